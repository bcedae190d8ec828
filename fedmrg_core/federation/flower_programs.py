"""What is the same of Flower's programs in a simulation and in a real federation: environment, app folder, their end.

Nothing here needs PyTorch, so that a hospital's node starts at once.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys

import psutil


def flower_environment(home: pathlib.Path) -> dict[str, str]:
    """What Flower's programs are started with: a home of their own, and this process's Python and packages."""
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # else `uv sync` builds another environment
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",  # seconds; every message starts a process
        "PYTHONUNBUFFERED": "1",
        # Flower starts its parts by name, and they must import what this process imports.
        "PATH": os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }


def write_app(home: pathlib.Path, run_folder: pathlib.Path, last_round: int, test: bool) -> None:
    """A Flower app folder that only points at this package."""
    folder = home / "app"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f"""[project]
name = "fedmrg-federation"
version = "1.0.0"
description = "The federation of one run folder"

[tool.flwr.app]
publisher = "fedmrg"

[tool.flwr.app.components]
serverapp = "fedmrg_core.federation.server_app:app"
clientapp = "fedmrg_core.federation.client_app:app"

[tool.flwr.app.config]
run-folder = {json.dumps(str(run_folder))}
last-round = {last_round}
progress = false
log = true
test = {str(test).lower()}
"""
    )


def end_processes(home: pathlib.Path, patience: float = 5.0) -> None:
    """End every process whose FLWR_HOME is `home`: first asked, then, after `patience` seconds, killed."""
    processes = [process for process in psutil.process_iter() if _belongs(process, home)]
    for action in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            try:
                action(process)
            except psutil.NoSuchProcess:
                continue
        _, processes = psutil.wait_procs(processes, timeout=patience)
        processes += [p for p in psutil.process_iter() if _belongs(p, home) and p not in processes]


def _belongs(process: psutil.Process, home: pathlib.Path) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("FLWR_HOME") == str(home)
    except (psutil.Error, OSError):
        return False  # another user's, or gone
