"""The hash of the training code: words about the code leave it as it is, statements do not."""

import json
import shutil
import subprocess
import sys

import pytest

from fedmrg_core import code_state


def hash_of(tmp_path, monkeypatch, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code_state, "_SOURCES", code_state.read_sources(tmp_path))
    code_state.training_code_hash.cache_clear()
    try:
        return code_state.training_code_hash()
    finally:
        code_state.training_code_hash.cache_clear()


INIT = (code_state.PACKAGE / "__init__.py").read_text()
BEFORE = {"model.py": 'def f(x):\n    """Twice."""\n    return 2 * x\n', "evaluation/score.py": "A = 1\n"}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"model.py": 'def f(x):\n    """Two times x."""\n    # because\n    return (2 * x)\n'}, True),
        ({"evaluation/score.py": "A = 2\n"}, True),
        ({"model.py": 'def f(x):\n    """Twice."""\n    return 3 * x\n'}, False),
        ({"other.py": "B = 1\n"}, False),
    ],
)
def test_only_statements_of_training_count(tmp_path, monkeypatch, change, same):
    before = hash_of(tmp_path, monkeypatch, BEFORE)
    assert (hash_of(tmp_path, monkeypatch, {**BEFORE, **change}) == before) is same


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"findings.py": "A = 1  # a comment\n"}, True),
        ({"labeller/cues.py": "A = 2\n"}, False),
        ({"evaluation/score.py": "A = 2\n"}, True),
    ],
)
def test_the_labeller_decides_what_is_stored_with_a_report(monkeypatch, change, same):
    names = ("findings.py", "labeller/cues.py", "inference.py", "evaluation/score.py")
    hashes = []
    for sources in (dict.fromkeys(names, "A = 1\n"), dict.fromkeys(names, "A = 1\n") | change):
        monkeypatch.setattr(code_state, "_SOURCES", sources)
        hashes.append(code_state.report_code_hash())
    assert (hashes[0] == hashes[1]) is same


LONG_RUN = """
import pathlib, subprocess, sys
from fedmrg_core.run_folder import RunFolder
import fedmrg_core.model
pathlib.Path("fedmrg_core/model.py").write_text("A = 2\\n")
subprocess.run(["git", "commit", "-qam", "during the run"], check=True)
pathlib.Path("fedmrg_core/model.py").write_text("A = 3\\n")
RunFolder("run").write_manifest(data_fingerprint="x", seeds={}, wall_seconds=1)
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_manifest_names_the_code_that_was_imported(tmp_path, monkeypatch):
    """What is edited and committed while a run goes on is no part of it."""
    package = tmp_path / "fedmrg_core"
    package.mkdir()
    for name in ("__init__.py", "code_state.py", "run_folder.py"):
        shutil.copyfile(code_state.PACKAGE / name, package / name)
    (package / "model.py").write_text("A = 1\n")
    for key in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{key}_NAME", "nobody")
        monkeypatch.setenv(f"GIT_{key}_EMAIL", "nobody@localhost")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for arguments in (["init", "-q"], ["add", "fedmrg_core"], ["commit", "-qm", "before the run"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    before = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
    subprocess.run([sys.executable, "-c", LONG_RUN], cwd=tmp_path, check=True)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["commit"] == before.stdout.strip() and manifest["uncommitted_changes"] is False
    assert (package / "model.py").read_text() == "A = 3\n"
    assert manifest["training_code"] == hash_of(
        tmp_path / "model", monkeypatch, {"__init__.py": INIT, "model.py": "A = 1\n"}
    )


def test_what_is_left_out_exists():
    for name in (*code_state.AFTER_TRAINING, *code_state.REPORT_CODE):
        assert (code_state.PACKAGE / name).exists(), name
