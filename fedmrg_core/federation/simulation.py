"""Engine (b): the same two apps under `flwr run`, on a SuperLink of the run's own that ends with it.

Flower and Ray start processes that detach themselves. All of them inherit this run's FLWR_HOME, which tells them from
anybody else's: they are found by it and ended, also those that a crash of an earlier attempt has left. All of them
listen on loopback alone, and Ray's ask for a token that this run has drawn: other users of the machine stay outside.
"""

from __future__ import annotations

import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import torch

from fedmrg_core.federation.flower_programs import end_processes, flower_environment, write_app

RAY_FOLDER, RAY_PREFIX = "ray-folder", "fedmrg-ray-"  # in FLWR_HOME: where Ray's temporary folder is; how it begins
STARTUP_SECONDS = 60.0  # the SuperLink imports half of Flower before it answers


def run_simulation(
    run_folder: pathlib.Path, clients: int, last_round: int, threads: int, progress: bool, test: bool
) -> None:
    """Run the rounds up to `last_round` as a Flower simulation, one simulated SuperNode a client.

    As many clients work at the same time as the processors hold `threads` each. Whether it came to its end shows in the
    checkpoint: Flower's exit code is 0 also when the server app has raised.

    Args:
        run_folder: holds config.yaml.
        clients: number of simulated nodes.
        last_round: see above.
        threads: CPU threads of one client.
        progress: pass Flower's log on.
        test: have the hospitals test themselves at the end.

    Raises:
        RuntimeError: the SuperLink did not start.
    """
    home = flower_home(run_folder)
    port = _free_port()
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix=RAY_PREFIX) as ray_folder:
        environment = _environment(home, pathlib.Path(ray_folder))
        (home / RAY_FOLDER).write_text(ray_folder, encoding="utf-8")
        write_app(home, run_folder.resolve(), last_round, test)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "own"\n\n[superlink.own]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        try:
            with (home / "superlink.log").open("w") as log:
                command = ["flower-superlink", "--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
                superlink = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
                _wait_for(superlink, port, home / "superlink.log")
            _flwr_run(home, environment, clients, threads, progress)
        finally:
            end_simulation(run_folder)


def flower_home(run_folder: pathlib.Path) -> pathlib.Path:
    """The FLWR_HOME of a run; the user's own is not touched."""
    return run_folder.resolve() / ".flower"


def end_simulation(run_folder: pathlib.Path) -> None:
    """End what a simulation of this run folder has running, and remove its FLWR_HOME and the folder of its Ray."""
    home = flower_home(run_folder)
    end_processes(home)
    if (home / RAY_FOLDER).is_file():  # an attempt was killed: its temporary folder is still there
        left = pathlib.Path((home / RAY_FOLDER).read_text(encoding="utf-8"))
        if left.name.startswith(RAY_PREFIX) and left.parent == pathlib.Path(tempfile.gettempdir()):
            shutil.rmtree(left, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def _environment(home: pathlib.Path, ray_folder: pathlib.Path) -> dict[str, str]:
    home.mkdir(parents=True)
    return flower_environment(home) | {
        "RAY_TMPDIR": str(ray_folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # On Linux, too, Ray then takes the loopback address for its own: Flower passes no address on to it.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(superlink: subprocess.Popen, port: int, log: pathlib.Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and superlink.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"simulation: flower-superlink did not start; its log ends with: {log.read_text()[-500:]}")


def _flwr_run(home: pathlib.Path, environment: dict[str, str], clients: int, threads: int, progress: bool) -> None:
    processors = max(os.cpu_count() or 1, threads)
    resources = {
        "num-supernodes": clients,
        "client-resources-num-cpus": threads,
        "client-resources-num-gpus": 1.0 if torch.cuda.is_available() else 0.0,
        "init-args-num-cpus": processors,
    }
    options = " ".join(f"{name}={value}" for name, value in resources.items())
    command = ["flwr", "run", str(home / "app"), "own", "--stream", "--federation-config", options]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout:
            if progress:
                print(line, end="")
