"""Instruction sets: what REPRODUCIBLE=exact fixes, what a manifest says of them, and data that do not see them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fedmrg_core.errors import InputError
from fedmrg_core.runs.arithmetic import EXACT, NATIVE, VARIABLES, arithmetic_of, exact_environment

# Each stands for a processor without the newest instructions; a processor that lacks them anyway is not changed.
SETTINGS = {
    "older OpenBLAS": {"OPENBLAS_CORETYPE": "Sandybridge"},
    "NumPy without AVX2": {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"},
    "both": {"OPENBLAS_CORETYPE": "Sandybridge", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"},
}
DRAW = """
import hashlib
from fedmrg_core.data.phantom import CENTRES, draw_study
total = hashlib.sha256()
for centre in (*CENTRES, "public"):
    for index in range(12):
        study = draw_study(0, centre, index)
        total.update(study.image.tobytes() + study.findings.encode() + bytes(study.states))
print(total.hexdigest())
"""


def drawn(**environment: str) -> str:
    """The digest of 84 studies drawn by another process, with this process's instruction sets unless told otherwise."""
    done = subprocess.run(
        [sys.executable, "-c", DRAW], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def here() -> str:
    return drawn()


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_phantom_is_the_same_on_every_processor(here, setting):
    assert drawn(**SETTINGS[setting]) == here


def test_exact_is_told_from_native():
    exact = exact_environment()
    assert set(exact) <= set(VARIABLES) and "ATEN_CPU_CAPABILITY" in exact
    assert arithmetic_of(exact)["setting"] == EXACT and arithmetic_of(exact)["environment"] == exact
    assert arithmetic_of({})["setting"] == NATIVE
    some = dict(list(exact.items())[:1])
    assert arithmetic_of(some) == {**arithmetic_of({}), "environment": some}
    assert arithmetic_of({})["processor"]


@pytest.mark.parametrize("line", ["LD_PRELOAD=x", "ATEN_CPU_CAPABILITY"])
def test_a_wrong_line_is_named(tmp_path, line):
    path = tmp_path / "exact.env"
    path.write_text(f"# comment\n\n{line}\n")
    with pytest.raises(InputError, match=f"line {line.partition('=')[0]!r} is no NAME=VALUE"):
        exact_environment(path)
    with pytest.raises(InputError, match="cannot be read"):
        exact_environment(tmp_path / "nothing")
