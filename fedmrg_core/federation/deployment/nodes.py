"""Flower's programs, started from the server's folder and from a hospital's: SuperLink, SuperNode, `flwr run`."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import filelock

from fedmrg_core.errors import InputError
from fedmrg_core.federation.checkpoints import load_checkpoint
from fedmrg_core.federation.deployment import certificates
from fedmrg_core.federation.deployment.folders import (
    APPLICATION,
    FREE,
    INVITATION,
    RUN,
    check_made_here,
    read_federation,
    read_site,
)
from fedmrg_core.federation.deployment.program_environment import (
    HOME,
    environment,
    hospital_environment,
    server_environment,
)
from fedmrg_core.federation.deployment.reach import check_server
from fedmrg_core.federation.deployment.superlink import CONNECTION, called, found, register, stop_runs
from fedmrg_core.federation.finish import COST
from fedmrg_core.federation.gate import check_joined, seal
from fedmrg_core.federation.privacy import affordable_rounds
from fedmrg_core.federation.roster import read_client, read_roster
from fedmrg_core.federation.run import raise_failure, write_manifest
from fedmrg_core.federation.server_app import FAILURE_FILE, GO_ON
from fedmrg_core.federation.simulation import end_processes, write_app
from fedmrg_core.federation.task import load_task, run_fingerprint
from fedmrg_core.runs.run_configuration import read_configuration

DATABASE = "state.db"
RETRY = 5.0  # seconds
LOOPBACK = "127.0.0.1"
LAST_SECONDS = 60.0  # for the server's app to end after its log has


def serve(folder: pathlib.Path) -> int:
    """Run the SuperLink until it is ended; its exit code.

    Raises:
        InputError: the certificate is expired or for another host, its key another's, the port taken, or the folder
            of another version.
    """
    settings = read_federation(folder)
    check_made_here(folder / INVITATION)
    certificates.check_certificate(folder / certificates.CERTIFICATE, settings.host)
    certificates.check_key(folder)
    task = read_configuration(folder / RUN).task
    files = {name: str((folder / name).resolve()) for name in (certificates.CERTIFICATE, certificates.CERTIFICATE_KEY)}
    command = ["flower-superlink", "--host", settings.listen, "--port", str(settings.port)]
    command += ["--ssl-certfile", files[certificates.CERTIFICATE], "--ssl-keyfile", files[certificates.CERTIFICATE_KEY]]
    command += ["--ssl-ca-certfile", str((folder / certificates.AUTHORITY).resolve())]
    command += ["--enable-supernode-auth", "--database", str((folder / DATABASE).resolve())]
    command += ["--disable-runtime-dependency-installation"]
    with _alone(folder):
        _check_port(settings.listen, settings.port, folder / "federation.yaml", "port")
        return _call(folder, command, server_environment(folder, task)) or 0


def start_site(folder: pathlib.Path) -> int:
    """Run a hospital's SuperNode until it is ended; its exit code.

    As long as the server is away, does not know the hospital's key yet, or takes it for still being there after a
    crash, it is asked again.

    Raises:
        InputError: a key or the client folder is unreadable, the port of its own runtime is taken, the folder is of
            another version, the server's certificate is not its authority's, or the clocks differ.
    """
    site = read_site(folder)
    check_made_here(folder / APPLICATION)
    certificates.read_node_key(folder)
    read_client(folder / site.client_folder, folder / RUN)
    configuration = read_configuration(folder / RUN)
    check_joined(folder / RUN, configuration)
    places = {"run-folder": folder / RUN, "client-folder": folder / site.client_folder}
    configured = " ".join(f'{name}="{path.resolve()}"' for name, path in places.items())
    command = ["flower-supernode", "--root-certificates", str((folder / certificates.AUTHORITY).resolve())]
    command += ["--superlink", f"{site.host}:{site.port}", "--node-config", configured]
    command += ["--auth-supernode-private-key", str((folder / certificates.NODE_KEY).resolve())]
    with _alone(folder):
        variables = hospital_environment(folder, configuration.task)
        while True:
            there = check_server(site.host, site.port, folder / certificates.AUTHORITY)
            # SuperNodes end where the server does not let them in, and where it has forgotten them.
            own = ["--host", LOOPBACK, "--port", str(_runtime_port(folder, site.runtime_port))]
            if there and _call(folder, [*command, *own], variables) is None:
                return 0
            what = f"did not let {site.client} in" if there else "does not answer"
            print(f"{site.host}:{site.port} {what}; asked again in {RETRY:.0f} s.", flush=True)
            time.sleep(RETRY)


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
            with _ending(process):
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


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """One program a folder. What one that was killed has left running is ended, and so is what outlives this one."""
    home = (folder / HOME).resolve()
    home.mkdir(exist_ok=True)
    try:
        held = filelock.FileLock(home / ".lock").acquire(timeout=0)
    except filelock.Timeout as error:
        raise InputError(f"{folder}: its program is running already; end that one first.") from error
    with held:
        end_processes(home)
        try:
            yield
        finally:
            end_processes(home)


def _call(folder: pathlib.Path, command: Sequence[str], variables: Mapping[str, str]) -> int | None:
    """Run one of Flower's programs until it ends; its exit code, or None if this process was told to end."""
    process = subprocess.Popen(found(command), env=variables, cwd=folder)
    try:
        with _ending(process):
            return process.wait()
    except KeyboardInterrupt:
        return None


@contextlib.contextmanager
def _ending(process: subprocess.Popen) -> Iterator[None]:
    """While this is open, whoever ends this process ends the other one, too; Ctrl-C reaches both by itself.

    Told once it ignores the next: a group that is ended may tell every process twice, and the second time would find
    `subprocess` with its lock taken.
    """
    told = False

    def end(*_: object) -> None:
        nonlocal told
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        told = True
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # others cannot be told anything
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        if told:
            process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _runtime_port(folder: pathlib.Path, port: int) -> int:
    """The port of a SuperNode's own runtime: the one that is set, or a free one, so that several share a machine."""
    if port != FREE:
        _check_port(LOOPBACK, port, folder / "site.yaml", "runtime_port")
        return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def _check_port(address: str, port: int, file: pathlib.Path, key: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise InputError(f"{file}: {key} {port} of {address} is taken or not to be had; choose another.") from error
