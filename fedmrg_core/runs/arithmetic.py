"""Which instruction sets and kernels a process computes with: they decide the last bits of sums and exponentials.

Training carries these last bits on, so that a run on another processor ends as one of another seed might have. The
setting "exact" fixes instruction sets that every x86 processor since 2013 has [ours]; see docs/reproducibility.md.
"""

from __future__ import annotations

import os
import pathlib
import platform
import sys
from collections.abc import Mapping
from typing import Any

from fedmrg_core.errors import InputError
from fedmrg_core.paths import REPOSITORY

EXACT_FILE = REPOSITORY / "profiles" / "exact.env"  # NAME=VALUE lines, read by the Makefile too
NATIVE, EXACT = "native", "exact"
EXACT_THREADS = 1  # of a run: sums depend on their number
# What the kernels' libraries read when Python starts.
VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)


def exact_environment(path: pathlib.Path = EXACT_FILE) -> dict[str, str]:
    """The environment variables of the setting "exact".

    Raises:
        InputError: the file is missing, or a line is not NAME=VALUE with a name of `VARIABLES`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); restore it from the repository.") from None
    pairs = [line.partition("=") for line in lines if line.strip() and not line.startswith("#")]
    for name, equals, _ in pairs:
        if not equals or name not in VARIABLES:
            raise InputError(f"{path}: line {name!r} is no NAME=VALUE with one of {', '.join(VARIABLES)}; mend it.")
    return {name: value for name, _, value in pairs}


def arithmetic_of(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What manifests say of a process's arithmetic.

    Args:
        environment: its environment variables; None: this process's.

    Returns:
        setting ("exact", or "native": the kernels that the libraries choose for this processor), environment (those of
        `VARIABLES` that are set), capability (of torch's own kernels, if torch is imported) and processor.
    """
    environment = os.environ if environment is None else environment
    given = {name: environment[name] for name in VARIABLES if environment.get(name)}
    torch = sys.modules.get("torch")
    return {
        "setting": EXACT if given == exact_environment() else NATIVE,
        "environment": given,
        "capability": None if torch is None else torch.backends.cpu.get_cpu_capability(),
        "processor": processor_name(),
    }


def processor_name() -> str:
    """The processor as the operating system calls it, e.g. "AMD EPYC"."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
