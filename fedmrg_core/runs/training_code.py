"""Hashes of the code that a model or a report depends on, by the task that ran."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
from collections.abc import Iterable, Sequence

from fedmrg_core.files import code_state
from fedmrg_core.files.code_state import NAME, imported_modules, imports_of, statements_hash
from fedmrg_core.runs.task_registry import task_entry

# Where training starts, whatever the task; the rest follows from what is imported.
TRAINING = ("federation.run",)
# What decides, beside a trained model, the rows that are stored with its reports: it labels and asks for them, and
# adapts the model to a new centre.
REPORTS = ("tasks.reports.inference", "data.labeller", "tasks.reports.adaptation")


@functools.cache
def training_code_hash(task: str = "reports") -> str:
    """sha256 over the statements of every module that training a task runs through.

    Comments, docstrings, layout, names of files and where they lie do not count, so that saying or placing something
    better does not make a run another run; nor does a module that training never imports.

    Args:
        task: a name in `fedmrg_core.runs.task_registry`.
    """
    return _hash_of(TRAINING, [task_entry(task).module])


@functools.cache
def picked_code_hash(modules: tuple[str, ...]) -> str:
    """sha256 over the statements of modules that a run picks by name (`Method.picked_code`), and what those import.

    Args:
        modules: their dotted names, of this package or of another.
    """
    return _hash_of([], modules)


def _hash_of(roots: Iterable[str], modules: Sequence[str]) -> str:
    """Statements of modules of this package below `roots`, of `modules` wherever they lie, and what of it they import.

    Args:
        roots: dotted names below the package.
        modules: dotted names; what a module of another package imports of its own is not followed.
    """
    own = [name.removeprefix(f"{NAME}.") for name in modules if name.startswith(f"{NAME}.")]
    others = [_text_of_module(name) for name in modules if not name.startswith(f"{NAME}.")]
    followed = [name for text in others for name in imports_of(text)]
    found = imported_modules(code_state.SOURCES, [*roots, *own, *followed])
    return statements_hash([*(code_state.SOURCES[name] for name in found), *others])


@functools.cache
def report_code_hash() -> str:
    """sha256 over the statements of `REPORTS` and what they import."""
    return statements_hash(code_state.SOURCES[name] for name in imported_modules(code_state.SOURCES, REPORTS))


def _text_of_module(name: str) -> str:
    """The source of a module outside the package, "" where it has none."""
    found = importlib.util.find_spec(name)
    return pathlib.Path(found.origin).read_text(encoding="utf-8") if found and found.has_location else ""
