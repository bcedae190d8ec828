"""Which code this process imported: the commit, and hashes of the statements that a model or a report depends on."""

from __future__ import annotations

import ast
import functools
import hashlib
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

PACKAGE = pathlib.Path(__file__).resolve().parent
# What only reads finished models and predictions, or starts notebooks: a change here leaves trained models as they are.
AFTER_TRAINING = (
    "evaluation",
    "adaptation.py",
    "arithmetic.py",
    "code_state.py",
    "command_line.py",
    "committed_notebooks.py",
    "experiments.py",
    "html_report.py",
    "inference.py",
    "labeller",  # its states are part of the prepared data, which runs name by fingerprint
    "notebooks.py",
    "paths.py",
    "reference.py",
    "report_words.py",
    "run_folder.py",
    "stored_base_models.py",
    "trained_run.py",
    "verification.py",
)
# What decides, beside a trained model, the rows that are stored with its reports: it labels and asks for them, and
# adapts the model to a new centre.
REPORT_CODE = ("findings.py", "labeller", "report_words.py", "inference.py", "adaptation.py")


def source_state() -> dict[str, Any]:
    """The commit of the source and whether tracked files differed from it; both None outside a git checkout."""
    return dict(_COMMIT)


@functools.cache
def training_code_hash() -> str:
    """sha256 over the statements of every module that training runs through.

    Comments, docstrings and layout do not count, so that saying something better does not make a run another run.
    """
    return statements_hash(
        {name: text for name, text in _SOURCES.items() if name.partition("/")[0] not in AFTER_TRAINING}
    )


def report_code_hash() -> str:
    """sha256 over the statements of `REPORT_CODE`."""
    return statements_hash({name: text for name, text in _SOURCES.items() if name.partition("/")[0] in REPORT_CODE})


def statements_hash(sources: Mapping[str, str]) -> str:
    """sha256 over the statements of modules, given as text by name."""
    digest = hashlib.sha256()
    for name, text in sources.items():
        digest.update(f"{name}\n{_statements(text)}\n".encode())
    return digest.hexdigest()


def read_sources(package: pathlib.Path) -> dict[str, str]:
    """The text of every module of a package, by its path in it."""
    # Sorted as paths, not as text: a folder before the names that its own name begins.
    files = sorted(path for path in package.rglob("*.py") if path.is_file())
    return {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in files}


def _statements(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            del body[0]
    return repr(_plain(tree))


def _plain(node: object) -> object:
    """A syntax tree as lists, without empty ones: `ast.dump` differs from one version of Python to the next."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value != []]
        return [type(node).__name__, *fields]
    return [_plain(part) for part in node] if isinstance(node, list) else node


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _commit_of(folder: pathlib.Path) -> dict[str, Any]:
    commit = _git(folder, "rev-parse", "HEAD")
    # Without the lock that `git status` takes: somebody may be committing at this moment.
    arguments = ("--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    changes = _git(folder, *arguments) if commit else None
    return {"commit": commit, "uncommitted_changes": None if changes is None else bool(changes)}


def _git(folder: pathlib.Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# Read when the process imports its code: what is edited or committed during a run of hours is no part of that run.
_SOURCES = read_sources(PACKAGE)
_COMMIT = _commit_of(PACKAGE)
