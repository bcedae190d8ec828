"""A real federation on loopback for tests: folders made by the commands, programs that end with the test."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from typer.testing import CliRunner

from fedmrg_core.commands.command_line import app
from fedmrg_core.federation.deployment import folders, program_environment, running
from fedmrg_core.federation.flower_programs import end_processes

HERE = pathlib.Path(__file__).parent
LIMIT = ["timeout", "1800"] if shutil.which("timeout") else []  # they end also where the tests are killed
PATIENCE = 300.0  # seconds; nothing here takes as long on a machine that does nothing else


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(*arguments: object, cwd: pathlib.Path) -> str:
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def make_site(place: pathlib.Path, name: str, studies: pathlib.Path, *more: object) -> None:
    given = ["--invitation", "server/invitation.json", "--client-folder", studies]
    call("site", "init", name, *given, *more, cwd=place)


def make_places(
    place: pathlib.Path, run: pathlib.Path, clients: dict[str, pathlib.Path], *more: object
) -> pathlib.Path:
    """The server's folder and the hospitals', made by the commands as a stranger would make them.

    Args:
        place: where.
        run: a run folder with the configuration.
        clients: the client folder of each hospital; copied.
        more: options of `site init`.
    """
    call("federation", "init", "server", "--configuration", run, "--port", free_port(), cwd=place)
    for name, studies in clients.items():
        shutil.copytree(studies, place / f"{name}-studies")
        make_site(place, name, f"{name}-studies", *more)
    call("federation", "admit", "server", *(f"{name}/application.json" for name in clients), cwd=place)
    return place


def python_path(*more: pathlib.Path) -> str:
    return os.pathsep.join([*map(str, more), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])


class Programs:
    """`fedmrg federation serve` and `fedmrg site start` of a place; their logs stand beside the folders."""

    def __init__(self, place: pathlib.Path) -> None:
        self.place, self.processes = place, {}

    def start(self, name: str, hooks: Sequence[pathlib.Path] = ()) -> None:
        """Start the program of a folder; `hooks` go first on its Python's path."""
        command = ("federation", "serve", name) if name == "server" else ("site", "start", name)
        with (self.place / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(
                [*LIMIT, sys.executable, "-m", "fedmrg_core.commands.command_line", *command], cwd=self.place,
                env=os.environ | {"PYTHONPATH": python_path(*hooks)}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        if name == "server":
            port = folders.read_federation(self.place / "server").port
            wait_until(lambda: _answers(port), self.log(name))

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a program and all that it has started."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        home = (self.place / name / program_environment.HOME).resolve()
        end_processes(home, patience=0.0 if number == signal.SIGKILL else 5.0)
        process.wait()

    def log(self, name: str) -> pathlib.Path:
        return self.place / f"{name}.log"


@contextlib.contextmanager
def started(place: pathlib.Path, *names: str) -> Iterator[Programs]:
    programs = Programs(place)
    try:
        for name in names:
            programs.start(name)
        yield programs
    finally:
        for name in list(programs.processes):
            programs.end(name)


class Running(threading.Thread):
    """`fedmrg federation run` of a place, while the test goes on."""

    def __init__(self, place: pathlib.Path) -> None:
        super().__init__(daemon=True)
        self.place, self.error = place, None
        self.start()

    def run(self) -> None:
        try:
            running.run(self.place / "server", test=True, progress=False)
        except Exception as error:
            self.error = error

    def until(self, path: pathlib.Path) -> None:
        """Wait until a file is there, while this goes on."""
        wait_until(lambda: path.exists() or not self.is_alive())
        assert path.exists(), self.error

    def ended(self) -> Exception | None:
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.error


def wait_until(true: Callable[[], bool], log: pathlib.Path | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if true():
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-2000:] if log else "it did not come to be")


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
