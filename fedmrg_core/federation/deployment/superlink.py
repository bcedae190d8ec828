"""What the server asks of its own SuperLink: the hospitals that it knows, the runs that it has."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import stat
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment import certificates
from fedmrg_core.federation.deployment.folders import NODES, FederationFolder, read_federation
from fedmrg_core.federation.simulation import flower_environment
from fedmrg_core.files.whole_files import write_text

HOME, CONNECTION = "flower", "own"
SUPEREXEC = "flower-superexec"  # as a SuperNode starts it
TASK = "FEDMRG_TASK"
POLL_INTERVAL = "FLWR_SUPEREXEC_TASK_POLL_INTERVAL"  # seconds between two questions for a process to start
COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")  # notebooks ask for them
REGISTERED = ".registered"  # beside a public key: the number that the SuperLink has given it


def register(folder: pathlib.Path) -> list[str]:
    """Tell the SuperLink, which has to be running, the key of every admitted hospital that it does not know.

    Its database may have been deleted since: what it knows now counts.

    Returns:
        The names of those that are new.

    Raises:
        InputError: the SuperLink does not answer, or refuses a key.
    """
    write_connection(folder)
    known = {node["node-id"] for node in ask(folder, "supernode", "list", CONNECTION)["nodes"]}
    new = []
    for path in sorted((folder / NODES).glob("*.pub")):
        note = path.with_suffix(REGISTERED)
        if note.is_file() and note.read_text(encoding="utf-8").strip() in known:
            continue
        answer = ask(folder, "supernode", "register", str(path.resolve()), CONNECTION, "--name", path.stem)
        write_text(note, f"{answer['node-id']}\n")
        new.append(path.stem)
    return new


def stop_runs(folder: pathlib.Path) -> None:
    """End every run that the SuperLink takes for running, with its messages: of a crash, or left to itself.

    Raises:
        InputError: the SuperLink does not answer.
    """
    write_connection(folder)
    for run in ask(folder, "list", CONNECTION)["runs"]:
        if not run["status"].startswith("finished"):
            ask(folder, "stop", run["run-id"], CONNECTION)


def write_connection(folder: pathlib.Path) -> None:
    """Where `flwr` finds the SuperLink and what it trusts."""
    settings = read_federation(folder)
    home = folder / HOME
    home.mkdir(exist_ok=True)
    authority = (folder / certificates.AUTHORITY).resolve()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "{called(settings)}:{settings.port}"\nroot-certificates = {json.dumps(str(authority))}\n',
        encoding="utf-8",
    )


def called(settings: FederationFolder) -> str:
    """The address under which the server calls its own SuperLink; one on all addresses is called on loopback."""
    return "127.0.0.1" if settings.listen == "0.0.0.0" else settings.listen  # noqa: S104


def ask(folder: pathlib.Path, *command: str) -> dict[str, Any]:
    """The answer of a `flwr` command.

    Raises:
        InputError: there is none, or it is a refusal.
    """
    plain = {name: value for name, value in environment(folder).items() if name not in COLOURS} | {"NO_COLOR": "1"}
    done = subprocess.run(found(["flwr", *command, "--format", "json"]), env=plain, capture_output=True, text=True)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"success": False, "error-message": done.stderr or done.stdout}
    if not answer.get("success"):
        said = " ".join(str(answer.get("error-message")).split())[-200:]
        raise InputError(f"{folder}: flwr {command[0]} failed ({said}); is fedmrg federation serve running?")
    return answer


def environment(folder: pathlib.Path) -> dict[str, str]:
    """What Flower's programs of a folder are started with."""
    return flower_environment((folder / HOME).resolve()) | {POLL_INTERVAL: "1"}


def hospital_environment(folder: pathlib.Path, task: str) -> dict[str, str]:
    """What a hospital's SuperNode is started with: it finds `deployment.superexec` in place of Flower's SuperExec.

    Args:
        folder: of the hospital; the program's file is written below it.
        task: the name of what is trained.
    """
    variables, program = environment(folder), folder / HOME / "bin" / SUPEREXEC
    program.parent.mkdir(parents=True, exist_ok=True)
    # Not `-m`: every fork would run that module again.
    code = f"from {__package__}.superexec import main; main()"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n', encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return variables | {
        "PATH": os.pathsep.join([str(program.parent.resolve()), variables["PATH"]]),
        TASK: task,
        POLL_INTERVAL: "0.5",  # every message starts a process; asking costs both sides a transaction of their database
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # to ask for a GPU as torch does by itself would forbid it to all forks
    }


def found(command: Sequence[str]) -> list[str]:
    """The program beside this Python, if it is there."""
    beside = pathlib.Path(sys.executable).parent / command[0]
    return [str(beside) if beside.exists() else command[0], *command[1:]]
