"""What the server asks of its own SuperLink: the hospitals that it knows, the runs that it has."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from fedmrg_core.errors import InputError
from fedmrg_core.federation.deployment import certificates
from fedmrg_core.federation.deployment.folders import NODES, FederationFolder, read_federation
from fedmrg_core.federation.deployment.program_environment import HOME, environment
from fedmrg_core.files.whole_files import write_text

CONNECTION = "own"
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
    for number in _running(folder):
        try:
            ask(folder, "stop", number, CONNECTION)
        except InputError:
            if number in _running(folder):  # else it has ended by itself, as one does whose app was lost in a crash
                raise


def _running(folder: pathlib.Path) -> list[str]:
    runs = ask(folder, "list", CONNECTION)["runs"]
    return [run["run-id"] for run in runs if not run["status"].startswith("finished")]


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


def found(command: Sequence[str]) -> list[str]:
    """The program beside this Python, if it is there."""
    beside = pathlib.Path(sys.executable).parent / command[0]
    return [str(beside) if beside.exists() else command[0], *command[1:]]
