"""Programs of Python, each in a process of its own, which has imported already what takes a new one seconds.

Python's fork server imports once what is named here; every program is a fork of it, and imports this repository's code.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

HERE = pathlib.Path(__file__).parent
IMPORTED = (
    "snakemake.cli",
    "fedmrg_core.commands.command_line",
    "fedmrg_core.evaluation.reference",
    "fedmrg_core.runs.experiments",
    "fedmrg_core.tasks.reports.stored_base_models",
    "fedmrg_core.federation.client_app",
    "fedmrg_core.federation.run",
    "fedmrg_core.tasks.reports.task",
)


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def start(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a function of a module in a process of its own; `kill` and `exitcode` are the process's."""
    process = _server().Process(target=function, args=arguments)
    process.start()
    return process


def connection() -> tuple[Any, Any]:
    """Two ends of a pipe, one for the other process."""
    return _server().Pipe()


def start_program(code: str, *arguments: object) -> ForkServerProcess:
    """Start what `python -c code arguments` does; the tests' modules can be imported in it."""
    return start(_run_code, code, [str(argument) for argument in arguments], dict(os.environ), None)


def run_program(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run what `python -c code arguments` does, with further variables of the environment."""
    words = [str(argument) for argument in arguments]
    return _run(_run_code, code, words, os.environ | environment)


def run_module(
    module: str, arguments: Sequence[str], folder: pathlib.Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run what `python -m module arguments` does in a folder."""
    return _run(_run_module, module, list(arguments), environment, str(folder))


def _run(
    function: Callable[..., None], what: str, arguments: list[str], environment: Mapping[str, str], *more: str
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as kept:
        files = [pathlib.Path(kept, name) for name in ("out", "err")]
        process = start(function, what, arguments, dict(environment), files, *more)
        process.join()
        written, told = (path.read_text() if path.is_file() else "" for path in files)
    return subprocess.CompletedProcess([what, *arguments], process.exitcode, written, told)


def _become(environment: dict[str, str], files: list[pathlib.Path] | None) -> None:
    for number, path in enumerate(files or [], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)


def _run_code(code: str, arguments: list[str], environment: dict[str, str], files: list[pathlib.Path] | None) -> None:
    _become(environment, files)
    sys.path[:0] = [str(HERE)]
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})


def _run_module(
    module: str, arguments: list[str], environment: dict[str, str], files: list[pathlib.Path], folder: str
) -> None:
    _become(environment, files)
    os.chdir(folder)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
