"""The environment of Flower's programs: where they keep their files, and which SuperExec starts the apps' processes."""

from __future__ import annotations

import os
import pathlib
import shlex
import stat
import sys

from fedmrg_core.federation.flower_programs import flower_environment

HOME = "flower"  # below a server's folder and a hospital's
SUPEREXEC = "flower-superexec"  # as SuperLink and SuperNode start it
APP, TASK = "FEDMRG_APP", "FEDMRG_TASK"  # what a SuperExec imports before it takes anything
POLL_INTERVAL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"  # seconds between two questions for a process to start


def environment(folder: pathlib.Path) -> dict[str, str]:
    """What Flower's programs of a folder are started with."""
    return flower_environment((folder / HOME).resolve()) | {POLL_INTERVAL: "1"}


def hospital_environment(folder: pathlib.Path, task: str) -> dict[str, str]:
    """What a hospital's SuperNode is started with, so that every message has a fork, see `deployment.superexec`.

    Args:
        folder: of the hospital.
        task: the name of what is trained.
    """
    # Every message starts a process, and asking for it costs both sides a transaction of their database.
    return _with_forks(folder, "flwr-clientapp", "client_app", task) | {POLL_INTERVAL: "0.5"}


def server_environment(folder: pathlib.Path, task: str) -> dict[str, str]:
    """What the SuperLink is started with, so that every run has a fork, see `deployment.superexec`.

    Args:
        folder: of the server.
        task: the name of what is trained.
    """
    return _with_forks(folder, "flwr-serverapp", "server_app", task)


def _with_forks(folder: pathlib.Path, program: str, app: str, task: str) -> dict[str, str]:
    """The environment in which `deployment.superexec` is found in place of Flower's; its file is written here."""
    variables, file = environment(folder), folder / HOME / "bin" / SUPEREXEC
    file.parent.mkdir(parents=True, exist_ok=True)
    # Not `-m`: every fork would run that module again.
    code = f"from {__package__}.superexec import main; main('{program}')"
    file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n', encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return variables | {
        "PATH": os.pathsep.join([str(file.parent.resolve()), variables["PATH"]]),
        APP: f"fedmrg_core.federation.{app}",
        TASK: task,
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # to ask for a GPU as torch does by itself would forbid it to all forks
    }
