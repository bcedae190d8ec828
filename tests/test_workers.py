"""Hospitals side by side: the same bytes with any number of workers, and clear ends when one dies."""

from __future__ import annotations

import os
import pathlib
import signal
import time

import federation_fake
import pytest
from federation_fake import everything, fake_configuration
from fork_server import start_program

from fedmrg_core.errors import InputError
from fedmrg_core.federation import workers
from fedmrg_core.federation.run import continue_federation, run_federation
from fedmrg_core.runs.run_configuration import write_configuration


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path: pathlib.Path) -> None:
    for count in (1, 2, 5):
        run_federation(tmp_path / str(count), fake_configuration(), progress=False, workers=count)
    expected = everything(tmp_path / "1")
    assert len(expected) > 20
    assert everything(tmp_path / "2") == expected and everything(tmp_path / "5") == expected


def test_a_failing_hospital_is_left_out_by_workers_too(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAILURES", "b:raises:2")
    for count in (1, 3):
        run_federation(tmp_path / str(count), fake_configuration(), progress=False, workers=count)
    assert everything(tmp_path / "3") == everything(tmp_path / "1")
    assert "the scanner is on fire" in (tmp_path / "3" / "hospitals" / "errors-1.log").read_text()


PROGRAM = """
import pathlib, sys, time
import federation_fake
from fedmrg_core.federation.run import continue_federation
train = federation_fake.FakeHospital.train
def slowly(self, round_number, *arguments):
    time.sleep(0.3 if round_number == 2 else 0)
    return train(self, round_number, *arguments)
federation_fake.FakeHospital.train = slowly
continue_federation(pathlib.Path(sys.argv[1]), progress=False, workers=2)
"""


def test_killed_with_its_workers_it_ends_with_the_same_bytes(tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path / "undisturbed", fake_configuration(), progress=False)
    killed = tmp_path / "killed"
    killed.mkdir()
    write_configuration(killed, fake_configuration())
    process = start_program(PROGRAM, killed)
    deadline = time.monotonic() + 60
    while not list((killed / "hospitals").glob("*/round-0002.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    continue_federation(killed, progress=False, workers=5)
    assert everything(killed) == everything(tmp_path / "undisturbed")


def test_a_worker_that_dies_is_told(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federation_fake.FakeHospital, "train", lambda *_: os._exit(9))
    with pytest.raises(RuntimeError, match="a worker process has ended"):
        run_federation(tmp_path, fake_configuration(), progress=False, workers=2)


def test_outcomes_come_in_order_and_errors_are_raised_here() -> None:
    def square(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        if number == 7:
            raise InputError("seven is no number here; choose another.")
        return number * number

    for count in (1, 3):
        assert workers.side_by_side(square, range(5), count, "squares") == [0, 1, 4, 9, 16]
        with pytest.raises(InputError, match="seven"):
            workers.side_by_side(square, (1, 7), count, "squares")


@pytest.mark.parametrize(
    ("asked", "jobs", "threads", "expected"),
    [(1, 5, 1, 1), (3, 5, 1, 3), (9, 5, 1, 5), (0, 1, 1, 1), (0, 5, 2, 1), (1, 5, 4, 1)],
)
def test_how_many_workers(asked: int, jobs: int, threads: int, expected: int) -> None:
    assert workers.worker_count(asked, threads, jobs) == expected


@pytest.mark.parametrize(("asked", "threads", "clue"), [(-1, 1, "workers is -1"), (2, 2, "each has one thread")])
def test_what_cannot_be_is_refused(asked: int, threads: int, clue: str) -> None:
    with pytest.raises(InputError, match=clue):
        workers.worker_count(asked, threads, 5)
