"""Flower's programs, started from the server's folder and from a hospital's: SuperLink, SuperNode, `flwr run`."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from fedmrg_core.errors import InputError
from fedmrg_core.federation.checkpoints import load_checkpoint
from fedmrg_core.federation.deployment import certificates
from fedmrg_core.federation.deployment.folders import NODES, RUN, read_federation, read_site
from fedmrg_core.federation.finish import COST
from fedmrg_core.federation.privacy import affordable_rounds
from fedmrg_core.federation.roster import read_roster
from fedmrg_core.federation.run import raise_failure, write_manifest
from fedmrg_core.federation.server_app import FAILURE_FILE
from fedmrg_core.federation.simulation import flower_environment, write_app
from fedmrg_core.federation.task import load_task, run_fingerprint
from fedmrg_core.runs.run_configuration import read_configuration

HOME, DATABASE, CONNECTION = "flower", "state.db", "own"
RETRY = 5.0  # seconds
LAST_SECONDS = 60.0  # for the server's app to end after its log has
REGISTERED = ".registered"  # beside a public key: the SuperLink knows it


def serve(folder: pathlib.Path) -> int:
    """Run the SuperLink until it is ended; its exit code.

    Raises:
        InputError: the certificate is expired or for another host, or the port is taken.
    """
    settings = read_federation(folder)
    certificates.check_certificate(folder / certificates.CERTIFICATE, settings.host)
    _check_port(settings.listen, settings.port, folder / "federation.yaml", "port")
    files = {name: str((folder / name).resolve()) for name in (certificates.CERTIFICATE, certificates.CERTIFICATE_KEY)}
    command = ["flower-superlink", "--host", settings.listen, "--port", str(settings.port)]
    command += ["--ssl-certfile", files[certificates.CERTIFICATE], "--ssl-keyfile", files[certificates.CERTIFICATE_KEY]]
    command += ["--ssl-ca-certfile", str((folder / certificates.AUTHORITY).resolve())]
    command += ["--enable-supernode-auth", "--database", str((folder / DATABASE).resolve())]
    command += ["--disable-runtime-dependency-installation"]
    return _call(folder, command)


def start_site(folder: pathlib.Path) -> int:
    """Run a hospital's SuperNode until it is ended; its exit code.

    As long as the server is away, or does not know the hospital's key yet, it is asked again.

    Raises:
        InputError: a key or the client folder is unreadable, or the port of its own runtime is taken.
    """
    site = read_site(folder)
    certificates.make_node_key(folder)  # names a key that is of another type or unreadable
    _check_port("127.0.0.1", site.runtime_port, folder / "site.yaml", "runtime_port")
    places = {"run-folder": folder / RUN, "client-folder": folder / site.client_folder}
    configured = " ".join(f'{name}="{path.resolve()}"' for name, path in places.items())
    command = ["flower-supernode", "--root-certificates", str((folder / certificates.AUTHORITY).resolve())]
    command += ["--superlink", f"{site.host}:{site.port}", "--node-config", configured]
    command += ["--auth-supernode-private-key", str((folder / certificates.NODE_KEY).resolve())]
    command += ["--host", "127.0.0.1", "--port", str(site.runtime_port)]
    while (code := _call(folder, command)) > 0:  # SuperNodes end where the server does not let them in
        print(f"{site.host}:{site.port} did not let {site.client} in; asked again in {RETRY:.0f} s.", flush=True)
        time.sleep(RETRY)
    return code


def register(folder: pathlib.Path) -> list[str]:
    """Tell the SuperLink, which has to be running, the key of every admitted hospital that it does not know yet.

    Returns:
        The names of those that are new.

    Raises:
        InputError: the SuperLink does not answer, or refuses a key.
    """
    _write_connection(folder)
    new = []
    for path in sorted((folder / NODES).glob("*.pub")):
        if path.with_suffix(REGISTERED).is_file():
            continue
        command = ["flwr", "supernode", "register", str(path.resolve()), CONNECTION, "--name", path.stem]
        done = subprocess.run(_found(command), env=_environment(folder), capture_output=True, text=True)
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-200:]
            raise InputError(f"{path}: the SuperLink did not register it ({said}); is fedmrg federation serve running?")
        path.with_suffix(REGISTERED).touch()
        new.append(path.stem)
    return new


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
    rounds = affordable_rounds(read_configuration(folder / RUN), len(roster.clients))
    write_app(folder / HOME, (folder / RUN).resolve(), rounds, test)
    command = ["flwr", "run", str((folder / HOME / "app").resolve()), CONNECTION, "--stream"]
    for name in (FAILURE_FILE, COST):
        (folder / RUN / name).unlink(missing_ok=True)
    with subprocess.Popen(
        _found(command), env=_environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as process:  # fmt: skip
        lines = []
        for line in process.stdout:
            lines.append(line)
            if progress:
                print(line, end="", flush=True)
    _wait_for_the_end(folder / RUN)
    raise_failure(folder / RUN)
    if process.returncode:
        raise InputError(f"{folder}: flwr run failed ({' '.join(''.join(lines[-3:]).split())[-200:]}).")
    task = load_task(folder / RUN)
    state = load_checkpoint(folder / RUN / "checkpoint", run_fingerprint(task, roster))
    if state is None or state.round_number < rounds:
        raise RuntimeError(f"{folder / RUN}: the run ended before round {rounds}; see the log of the SuperLink.")
    write_manifest(folder / RUN, state, "deployment", task, roster)


def _wait_for_the_end(run_folder: pathlib.Path) -> None:
    """The log may end before the server's app does: wait until that has written its last file, or its failure."""
    deadline = time.monotonic() + LAST_SECONDS
    while not any((run_folder / name).exists() for name in (FAILURE_FILE, COST)) and time.monotonic() < deadline:
        time.sleep(0.2)


def _write_connection(folder: pathlib.Path) -> None:
    """Where `flwr` finds the SuperLink and what it trusts."""
    settings = read_federation(folder)
    home = folder / HOME
    home.mkdir(exist_ok=True)
    authority = (folder / certificates.AUTHORITY).resolve()
    # Whoever listens on all addresses is called on loopback, which the certificate names.
    address = "127.0.0.1" if settings.listen == "0.0.0.0" else settings.listen  # noqa: S104
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
        f'address = "{address}:{settings.port}"\nroot-certificates = "{authority}"\n',
        encoding="utf-8",
    )


def _call(folder: pathlib.Path, command: Sequence[str]) -> int:
    (folder / HOME).mkdir(exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt):  # Flower's program has been told as well, and ends by itself
        return subprocess.run(_found(command), env=_environment(folder), cwd=folder).returncode
    return 0


def _environment(folder: pathlib.Path) -> dict[str, str]:
    return flower_environment((folder / HOME).resolve())


def _found(command: Sequence[str]) -> list[str]:
    """The program beside this Python, if it is there."""
    beside = pathlib.Path(sys.executable).parent / command[0]
    return [str(beside) if beside.exists() else command[0], *command[1:]]


def _check_port(address: str, port: int, file: pathlib.Path, key: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise InputError(f"{file}: {key} {port} of {address} is taken or not to be had; choose another.") from error
