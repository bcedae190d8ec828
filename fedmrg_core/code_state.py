"""Which code made a result: the commit, and a hash of the statements that a trained model depends on."""

from __future__ import annotations

import ast
import functools
import hashlib
import pathlib

PACKAGE = pathlib.Path(__file__).resolve().parent
# What only reads finished models and predictions, or starts notebooks: a change here leaves trained models as they are.
AFTER_TRAINING = (
    "evaluation",
    "adaptation.py",
    "code_state.py",
    "command_line.py",
    "committed_notebooks.py",
    "experiments.py",
    "html_report.py",
    "inference.py",
    "notebooks.py",
    "paths.py",
    "reference.py",
    "run_folder.py",
    "trained_run.py",
    "verification.py",
)


@functools.cache
def training_code_hash() -> str:
    """sha256 over the statements of every module that training runs through.

    Comments, docstrings and layout do not count, so that saying something better does not make a run another run.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.parts[0] not in AFTER_TRAINING:
            digest.update(f"{relative.as_posix()}\n{_statements(path.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def _statements(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            del body[0]
    return ast.dump(tree)


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
