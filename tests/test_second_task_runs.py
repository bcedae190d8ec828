"""The task of `linear_task` through the federation: rules, workers, kills, `flwr run`."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import tempfile
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from fork_server import start_program
from linear_runs import ROWS, configuration, run
from linear_task import CLIENTS, LinearHospital

from fedmrg_core.federation import simulation
from fedmrg_core.federation.simulation import flower_home
from fedmrg_core.federation.task import forget_tasks
from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.run_configuration import write_configuration


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Every row of `ROWS`, undisturbed in one process."""
    folder = tmp_path_factory.mktemp("finished")
    return {name: run(folder / name, name, test=True) for name in ROWS}


def test_the_task_is_small():
    assert len((REPOSITORY / "tests" / "linear_task.py").read_text().splitlines()) <= 100


def test_each_row_is_another_run_and_hospitals_test_themselves(finished):
    models = {name: files["model/shared.safetensors"] for name, files in finished.items()}
    assert len({*models.values()}) >= len(ROWS) - 1  # fine-tuning alone leaves the shared model as it is
    for files in finished.values():
        assert {f"model/personal/{client}.safetensors" for client in CLIENTS} <= files.keys()
        lines = files["hospital_tests.csv"].decode().splitlines()
        assert len(lines) == 1 + len(CLIENTS) and lines[1].startswith("a,accuracy,") and lines[1].endswith(",48")
    sizes = {name: len(files["checkpoint/round-0003/shared.safetensors"]) for name, files in finished.items()}
    assert sizes["scaffold"] > sizes["plain"] > sizes["fedrep"]


@pytest.mark.parametrize("name", ["plain", "scaffold", "compressed"])
def test_side_by_side_it_ends_with_the_same_bytes(name, finished, tmp_path):
    assert run(tmp_path, name, workers=2, test=True) == finished[name]


@pytest.mark.parametrize("name", ROWS)
def test_killed_and_taken_up_again_it_ends_with_the_same_bytes(name, finished, tmp_path, monkeypatch):
    """Once while the second client trains in round 2, once in a process that has forgotten everything."""
    original, calls = LinearHospital.train, []

    def then_die(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LinearHospital, "train", then_die)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, name)
    forget_tasks()
    run(tmp_path, name, stop_after_round=2)
    assert run(tmp_path, name, test=True) == finished[name]


PROGRAM = """
import pathlib, sys, time
from linear_task import LinearHospital
from fedmrg_core.federation.run import continue_federation
train = LinearHospital.train
def slowly(self, round_number, *arguments):
    time.sleep(0.3 if round_number == 2 else 0)
    return train(self, round_number, *arguments)
LinearHospital.train = slowly
continue_federation(pathlib.Path(sys.argv[1]), progress=False, workers=2)
"""


def test_its_process_killed_with_its_workers(finished, tmp_path):
    write_configuration(tmp_path, configuration("compressed"))
    process = start_program(PROGRAM, tmp_path)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "hospitals").glob("*/round-0002.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run(tmp_path, "compressed", test=True) == finished["compressed"]


def test_under_flwr_run_it_ends_with_the_same_bytes(finished, tmp_path):
    run(tmp_path, "scaffold", stop_after_round=1)
    with listening(flower_home(tmp_path)) as addresses:
        assert run(tmp_path, "scaffold", engine="simulation", test=True) == finished["scaffold"]
    names = {name for name, _ in addresses}
    assert {"gcs_server", "raylet"} <= names and {address for _, address in addresses} <= {
        "127.0.0.1",
        "::ffff:127.0.0.1",
    }


@contextlib.contextmanager
def listening(home: pathlib.Path) -> Iterator[set[tuple[str, str]]]:
    """Program and address of every socket that the processes of a FLWR_HOME listen on while this is open."""
    found: set[tuple[str, str]] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.3):
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error, OSError):
                    if process.environ().get("FLWR_HOME") == str(home):
                        sockets = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
                        found.update((process.name(), connection.laddr.ip) for connection in sockets)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()


def test_what_a_killed_simulation_has_left_is_removed(tmp_path):
    left = pathlib.Path(tempfile.mkdtemp(prefix=simulation.RAY_PREFIX))
    others = pathlib.Path(tempfile.mkdtemp(prefix="others-"))
    try:
        for folder in (left, others):  # a file that was tampered with removes nobody else's folder
            home = flower_home(tmp_path)
            home.mkdir()
            (home / simulation.RAY_FOLDER).write_text(str(folder))
            simulation.end_simulation(tmp_path)
            assert not home.exists()
        assert not left.exists() and others.exists()
    finally:
        others.rmdir()
