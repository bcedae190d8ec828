"""The rounds of a real federation: `flwr run` on the server's own SuperLink."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import time

from fedmrg_core.errors import InputError
from fedmrg_core.federation.checkpoints import load_checkpoint
from fedmrg_core.federation.deployment.folders import RUN, read_federation
from fedmrg_core.federation.deployment.nodes import ending
from fedmrg_core.federation.deployment.program_environment import HOME, environment
from fedmrg_core.federation.deployment.superlink import CONNECTION, called, found, register, stop_runs
from fedmrg_core.federation.finish import COST
from fedmrg_core.federation.flower_programs import write_app
from fedmrg_core.federation.gate import seal
from fedmrg_core.federation.privacy import affordable_rounds
from fedmrg_core.federation.roster import read_roster
from fedmrg_core.federation.run import raise_failure, write_manifest
from fedmrg_core.federation.server_app import FAILURE_FILE, GO_ON
from fedmrg_core.federation.task import load_task, run_fingerprint
from fedmrg_core.runs.run_configuration import read_configuration

LAST_SECONDS = 60.0  # for the server's app to end after its log has


def run(folder: pathlib.Path, test: bool = False, progress: bool = True) -> None:
    """Run the rounds that are left on the SuperLink, with the hospitals that are connected.

    Args:
        folder: of the server.
        test: have every hospital test itself at the end.
        progress: show Flower's log.

    Raises:
        InputError: no hospital was admitted, or the SuperLink does not answer.
        TooFewClients: in some round fewer than `min_clients` were left.
        Unfinished: a hospital did not save its part of the model.
        RuntimeError: Flower ended the run before its last round.
    """
    roster = read_roster(folder / RUN)
    register(folder)
    stop_runs(folder)  # one that was begun before would write into the same folder
    rounds = affordable_rounds(read_configuration(folder / RUN), len(roster.clients))
    write_app(folder / HOME, (folder / RUN).resolve(), rounds, test)
    command = ["flwr", "run", str((folder / HOME / "app").resolve()), CONNECTION, "--stream"]
    for name in (FAILURE_FILE, COST):
        (folder / RUN / name).unlink(missing_ok=True)
    lines = []
    with subprocess.Popen(
        found(command), env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as process:  # fmt: skip
        try:
            with ending(process):
                for line in process.stdout:
                    lines.append(line)
                    if progress:
                        print(line, end="", flush=True)
        except KeyboardInterrupt:
            stop_runs(folder)  # else it would go on without anybody who waits for it
            raise
    _wait_for_the_end(folder)
    raise_failure(folder / RUN)
    if process.returncode:
        raise InputError(f"{folder}: flwr run failed ({' '.join(''.join(lines[-3:]).split())[-200:]}).")
    task = load_task(folder / RUN)
    state = load_checkpoint(folder / RUN / "checkpoint", run_fingerprint(task, roster))
    if state is None or state.round_number < rounds:
        raise RuntimeError(f"{folder / RUN}: the run ended before round {rounds}; see the log of the SuperLink.")
    write_manifest(folder / RUN, state, "deployment", task, roster)
    seal(folder / RUN, task.configuration)


def _wait_for_the_end(folder: pathlib.Path) -> None:
    """The log may end before the server's app does: wait until that has written its last file, or its failure."""
    settings, deadline = read_federation(folder), time.monotonic() + LAST_SECONDS
    while not any((folder / RUN / name).exists() for name in (FAILURE_FILE, COST)) and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((called(settings), settings.port)):
                raise InputError(
                    f"{folder}: the SuperLink has ended; start fedmrg federation serve again, and then {GO_ON}"
                )
        time.sleep(0.2)
