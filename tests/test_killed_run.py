"""kill -9 of a run of the small real model, in another process, at any moment: it ends with the same bytes."""

from __future__ import annotations

import pathlib
import signal
import time

import pytest
from federation_fake import everything
from fork_server import start_program
from small_model import PROFILE

from fedmrg_core.federation.run import configure_run, continue_federation
from fedmrg_core.runs.methods import load_method
from fedmrg_core.runs.run_configuration import write_configuration

PROGRAM = (
    "import pathlib, sys; from fedmrg_core.federation.run import continue_federation; "
    "continue_federation(pathlib.Path(sys.argv[1]), progress=False)"
)
# A run is killed as soon as this appears in its folder.
MOMENTS = (
    "hospitals/centre-b/round-0001.safetensors",
    "checkpoint/current",
    "hospitals/centre-d/round-0003.safetensors",
)


def _configure(workspace: pathlib.Path, name: str) -> pathlib.Path:
    run = workspace / name
    run.mkdir()
    inputs = {"prepared": workspace / "prepared", "base_models": workspace / "base_models"}
    settings = {"profile": PROFILE, "method": load_method("fedmrg"), "data": "phantom", "threads": 1}
    write_configuration(run, configure_run(run, **inputs, **settings))
    return run


def _run_until(run: pathlib.Path, appears: str) -> int:
    """Go on with the run in another process and kill it when a file is there."""
    process = start_program(PROGRAM, run)
    try:
        deadline = time.monotonic() + 120
        while not (run / appears).exists() and process.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        process.kill()
        process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def undisturbed(workspace: pathlib.Path) -> pathlib.Path:
    run = _configure(workspace, "undisturbed")
    continue_federation(run, progress=False)
    return run


@pytest.mark.parametrize(
    "moments",
    [pytest.param(MOMENTS[:1], id="once", marks=pytest.mark.numerical), pytest.param(MOMENTS[1:], id="twice")],
)
def test_a_killed_run_ends_with_the_same_bytes(
    workspace: pathlib.Path, undisturbed: pathlib.Path, moments: tuple[str, ...]
) -> None:
    killed = _configure(workspace, f"killed-{len(moments)}")
    for moment in moments:
        assert _run_until(killed, moment) == -signal.SIGKILL, f"the run ended before {moment} appeared"
    assert not (killed / "model").exists()
    continue_federation(killed, progress=False)
    expected, ended = everything(undisturbed), everything(killed)
    assert ended.keys() == expected.keys()
    assert [path for path, content in expected.items() if ended[path] != content] == []


def test_a_finished_run_is_left_alone(undisturbed: pathlib.Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "model").rglob("*")}
    continue_federation(undisturbed, progress=False)
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "model").rglob("*")} == before
