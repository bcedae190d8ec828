"""Programs of Python, each in a process of its own, which has imported already what takes a new one seconds.

Python's fork server imports once what is named here; every program is a fork of it.
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
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext

IMPORTED = (
    "snakemake.cli",
    "fedmrg_core.commands.command_line",
    "fedmrg_core.evaluation.reference",
    "fedmrg_core.runs.experiments",
    "fedmrg_core.tasks.reports.stored_base_models",
)


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def run_module(
    module: str, arguments: Sequence[str], folder: pathlib.Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """What `python -m module arguments` does in a folder, without an input; its modules are this repository's."""
    with tempfile.TemporaryDirectory() as kept:
        files = [pathlib.Path(kept, name) for name in ("out", "err")]
        process = _server().Process(
            target=_become, args=(module, list(arguments), str(folder), dict(environment), files)
        )
        process.start()
        process.join()
        written, told = (path.read_text() if path.is_file() else "" for path in files)
    return subprocess.CompletedProcess([module, *arguments], process.exitcode, written, told)


def _become(
    module: str, arguments: list[str], folder: str, environment: dict[str, str], files: list[pathlib.Path]
) -> None:
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
