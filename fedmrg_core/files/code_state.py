"""Which code this process imported: the commit, and hashes of the statements of modules."""

from __future__ import annotations

import ast
import functools
import hashlib
import pathlib
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
NAME = PACKAGE.name


def source_state() -> dict[str, Any]:
    """The commit of the source and whether tracked files differed from it; both None outside a git checkout."""
    return dict(_COMMIT)


def statements_hash(texts: Iterable[str]) -> str:
    """sha256 over the statements of modules, in whatever order and under whatever names they come."""
    digests = sorted(_digest_of_statements(text) for text in texts)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def imported_modules(sources: Mapping[str, str], roots: Iterable[str]) -> list[str]:
    """Files of the package that modules import, and what those import in turn, also within functions.

    Args:
        sources: the text of every module by its path in the package, such as ``data/study.py``.
        roots: modules by their dotted name below the package; names that it lacks are passed over.

    Returns:
        Paths, sorted.
    """
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        path = file_of(waiting.pop(), sources)
        if path is not None and path not in found:
            found.add(path)
            waiting += imports_of(sources[path])
    return sorted(found)


def read_sources(package: pathlib.Path) -> dict[str, str]:
    """The text of every module of a package, by its path in it."""
    # Sorted as paths, not as text: a folder before the names that its own name begins.
    files = sorted(path for path in package.rglob("*.py") if path.is_file())
    return {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in files}


def file_of(module: str, sources: Mapping[str, str]) -> str | None:
    """The file of a module by its dotted name below the package; None where there is none."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in sources), None)


@functools.cache
def imports_of(source: str) -> tuple[str, ...]:
    """Dotted names below the package that a module imports, except for checking types alone."""
    tree = _parsed(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name.removeprefix(f"{NAME}.") for name in names if name.startswith(f"{NAME}."))


# Kept, as the hashes of training, of reports and of what a row picks are over nearly the same modules.
@functools.cache
def _digest_of_statements(source: str) -> str:
    return hashlib.sha256(_statements(source).encode()).hexdigest()


def _statements(source: str) -> str:
    tree = _parsed(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = body[1:] if body and _is_docstring(body[0]) else body
            node.body = [statement for statement in kept if not _imports_own(statement)]
    return repr(_plain(tree))


def _plain(node: object) -> object:
    """A syntax tree as lists, without empty ones: `ast.dump` differs from one version of Python to the next."""
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value != []]
        return [type(node).__name__, *fields]
    return [_plain(part) for part in node] if isinstance(node, list) else node


def _parsed(source: str) -> ast.Module:
    """The syntax tree; tried again where Python before 3.11.5 mixes up what two threads parse at the same time."""
    for _ in range(5):
        try:
            return ast.parse(source)
        except SystemError:
            continue
    return ast.parse(source)


def _imports_own(statement: ast.stmt) -> bool:
    """Whether a statement imports from this package: what it imports is counted, not where it lies."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module is not None and f"{statement.module}.".startswith(f"{NAME}.")
    return isinstance(statement, ast.Import) and all(f"{a.name}.".startswith(f"{NAME}.") for a in statement.names)


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
SOURCES = read_sources(PACKAGE)
_COMMIT = _commit_of(PACKAGE)
