"""The hash of the training code: words about the code leave it as it is, statements do not."""

import json
import shutil
import subprocess
import sys

import pytest

from fedmrg_core.files import code_state
from fedmrg_core.runs import training_code


@pytest.fixture(autouse=True)
def forget_hashes():
    """The hashes are kept for the process; here the sources change."""
    yield
    training_code.training_code_hash.cache_clear()
    training_code.report_code_hash.cache_clear()


def hashes_of(monkeypatch, sources: dict[str, str]) -> tuple[str, str]:
    """The hashes of training and of reports of a package with these files."""
    monkeypatch.setattr(code_state, "SOURCES", sources)
    training_code.training_code_hash.cache_clear()
    training_code.report_code_hash.cache_clear()
    return training_code.training_code_hash(), training_code.report_code_hash()


MODEL = 'from fedmrg_core.words import A\n\ndef f(x):\n    """Twice."""\n    return 2 * x\n'
BEFORE = {
    "federation/run.py": "import json\nfrom fedmrg_core.federation import rounds\n",
    "federation/rounds.py": "def g():\n    from fedmrg_core.model import f\n    return f(1)\n",
    "model.py": MODEL,
    "words.py": "A = 1\n",
    "tasks/reports/inference.py": "import fedmrg_core.words\nC = 1\n",
    "data/labeller/__init__.py": "B = 1\n",
    "evaluation/score.py": "A = 1\n",
}


def moved(sources: dict[str, str], name: str, to: str) -> dict[str, str]:
    """The same package with one file in another place, and the imports that follow it."""
    old, new = (path.removesuffix(".py").replace("/", ".") for path in (name, to))
    changed = {path: text.replace(f"fedmrg_core.{old} ", f"fedmrg_core.{new} ") for path, text in sources.items()}
    changed[to] = changed.pop(name)
    return changed


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"model.py": MODEL.replace("Twice.", "Two times x.").replace("2 * x", "(2 * x)  # because")}, True),
        ({"evaluation/score.py": "A = 2\n"}, True),
        ({"other.py": "B = 1\n"}, True),
        ({"tasks/reports/inference.py": "C = 2\n"}, True),
        ({"model.py": MODEL.replace("2 * x", "3 * x")}, False),
        ({"words.py": "A = 2\n"}, False),
        ({"federation/run.py": "import json\n"}, False),
    ],
)
def test_only_statements_that_training_imports_count(monkeypatch, change, same):
    before, _ = hashes_of(monkeypatch, BEFORE)
    assert (hashes_of(monkeypatch, BEFORE | change)[0] == before) is same


def test_a_file_that_moves_leaves_the_hash_as_it_is(monkeypatch):
    before = hashes_of(monkeypatch, BEFORE)
    assert hashes_of(monkeypatch, moved(BEFORE, "model.py", "paper/model.py")) == before
    assert hashes_of(monkeypatch, moved(BEFORE, "words.py", "paper/words.py"))[0] == before[0]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"tasks/reports/inference.py": "import fedmrg_core.words\nC = 1  # a comment\n"}, True),
        ({"evaluation/score.py": "A = 2\n"}, True),
        ({"data/labeller/__init__.py": "B = 2\n"}, False),
        ({"words.py": "A = 2\n"}, False),
    ],
)
def test_the_labeller_decides_what_is_stored_with_a_report(monkeypatch, change, same):
    _, before = hashes_of(monkeypatch, BEFORE)
    assert (hashes_of(monkeypatch, BEFORE | change)[1] == before) is same


def test_the_hash_holds_what_training_runs_through():
    """On the package itself: the measure that training reports is in it, tables and tests of finished runs are not."""
    names = code_state.imported_modules(code_state.SOURCES, [*training_code.TRAINING, "tasks.reports.task"])
    assert {"metrics/clinical.py", "tasks/reports/local_training.py", "encoder.py"} <= set(names)
    assert not {"evaluation/comparison.py", "tasks/reports/testing.py", "commands/html_report.py"} & set(names)


def test_a_task_of_another_package_counts_with_its_module():
    assert training_code.training_code_hash("fake") not in (training_code.training_code_hash("reports"), "")


LONG_RUN = """
import pathlib, subprocess, sys
from fedmrg_core.runs.run_folder import RunFolder
import fedmrg_core.model
pathlib.Path("fedmrg_core/model.py").write_text("A = 2\\n")
subprocess.run(["git", "commit", "-qam", "during the run"], check=True)
pathlib.Path("fedmrg_core/model.py").write_text("A = 3\\n")
from fedmrg_core.files.code_state import SOURCES
RunFolder("run").write_manifest(data_fingerprint="x", seeds={}, wall_seconds=1, model=SOURCES["model.py"])
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_manifest_names_the_code_that_was_imported(tmp_path, monkeypatch):
    """What is edited and committed while a run goes on is no part of it."""
    package = tmp_path / "fedmrg_core"
    shutil.copytree(code_state.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(code_state.PACKAGE.parent / "profiles", tmp_path / "profiles")
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
    assert manifest["model"] == "A = 1\n"
