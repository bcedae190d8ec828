"""Flower's programs that stay: the SuperLink, from the server's folder, and a SuperNode, from a hospital's.

Nothing here needs PyTorch, so that they start at once.
"""

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
    hospital_environment,
    server_environment,
)
from fedmrg_core.federation.deployment.reach import check_server
from fedmrg_core.federation.deployment.superlink import found
from fedmrg_core.federation.flower_programs import end_processes
from fedmrg_core.federation.gate import check_joined
from fedmrg_core.federation.roster import read_client
from fedmrg_core.runs.run_configuration import read_configuration

DATABASE = "state.db"
RETRY = 5.0  # seconds
LOOPBACK = "127.0.0.1"


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
        with ending(process):
            return process.wait()
    except KeyboardInterrupt:
        return None


@contextlib.contextmanager
def ending(process: subprocess.Popen) -> Iterator[None]:
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
