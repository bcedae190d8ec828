"""Run a federation, in this process or as a Flower simulation: start it, go on with it, finish it."""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Literal

import filelock
import pandas
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from fedmrg_core.errors import InputError
from fedmrg_core.federation import attacking, client_app, server_app
from fedmrg_core.federation.checkpoints import ServerState, load_checkpoint
from fedmrg_core.federation.finish import Unfinished
from fedmrg_core.federation.gate import ChainUnavailable, enrol, seal
from fedmrg_core.federation.grid import RUN_ID, SERVER_NODE, InProcessGrid, WorkerGrid
from fedmrg_core.federation.model_files import NOTED, is_whole, model_digests
from fedmrg_core.federation.privacy import affordable_rounds
from fedmrg_core.federation.roster import Roster, write_roster
from fedmrg_core.federation.rounds import TooFewClients
from fedmrg_core.federation.simulation import end_simulation, run_simulation
from fedmrg_core.federation.task import Task, forget_tasks, load_task, run_fingerprint
from fedmrg_core.federation.workers import worker_count
from fedmrg_core.files.whole_files import remove_partial, writable
from fedmrg_core.runs.run_configuration import RunConfiguration, configure_run, read_configuration, write_configuration
from fedmrg_core.runs.run_folder import RunFolder
from fedmrg_core.runs.training_code import training_code_hash
from fedmrg_core.seeds import torch_threads

__all__ = ["configure_run", "continue_federation", "run_federation"]

Engine = Literal["in-process", "simulation"]
PATIENCE = 2.0  # seconds to wait for a run folder: the workers of a run that was killed let go of it a moment later


def run_federation(
    run_folder: pathlib.Path,
    configuration: RunConfiguration,
    engine: Engine = "in-process",
    stop_after_round: int | None = None,
    progress: bool = True,
    test: bool = False,
    workers: int = 1,
) -> None:
    """Deal the data, run the rounds that a run folder lacks, and have the model of the chosen round saved.

    Killed at any moment and called again, it ends with the same bytes; a finished run returns at once.

    Args:
        run_folder: made if it does not exist.
        configuration: of the run; the folder's own has to describe the same one.
        engine: "in-process" (one model in memory, clients in turn) or "simulation" (`flwr run`).
        stop_after_round: end there, without a model, if the run has more rounds.
        progress: show bars, or in a simulation Flower's log.
        test: have every hospital test itself at the end; their numbers become hospital_tests.csv.
        workers: how many hospitals of the in-process engine work at the same time; 0: one a core, one on a GPU. The
            bytes do not depend on it.

    Raises:
        InputError: the folder holds another run, is in use or cannot be written, or data or base models are missing.
        TooFewClients: in some round fewer than `min_clients` were left.
        Unfinished: a hospital did not save its part of the model.
        ChainUnavailable: the run has identities and their chain does not answer.
        RuntimeError: the simulation ended before its last round.
    """
    if engine not in ("in-process", "simulation"):
        raise InputError(f"engine: {engine!r} is unknown; expected in-process or simulation.")
    if stop_after_round is not None and stop_after_round < 1:
        raise InputError(f"stop_after_round is {stop_after_round}; expected a round from 1, or nothing.")
    with writable(run_folder, server_app.GO_ON):
        run_folder.mkdir(parents=True, exist_ok=True)
    with writable(run_folder, server_app.GO_ON), _locked(run_folder):
        configuration = write_configuration(run_folder, configuration)
        end_simulation(run_folder)  # one that outlived its killed parent must not write here any more
        remove_partial(run_folder)
        forget_tasks()  # what is in memory may be older than the folders on disk
        task = load_task(run_folder)
        roster = task.deal(run_folder, configuration)
        attacking.check_attack(task, roster, engine)
        write_roster(run_folder, roster)
        rounds = affordable_rounds(configuration, len(roster.clients))
        last_round = rounds if stop_after_round is None else min(stop_after_round, rounds)
        fingerprint = run_fingerprint(task, roster)
        state = load_checkpoint(run_folder / "checkpoint", fingerprint)
        if state is not None and state.round_number == rounds and is_whole(run_folder):
            seal(run_folder, configuration)  # a crash may have come between
            return
        enrol(run_folder, task, roster)
        (run_folder / server_app.FAILURE_FILE).unlink(missing_ok=True)
        if engine == "simulation":
            run_simulation(run_folder, len(roster.clients), last_round, configuration.threads, progress, test)
            raise_failure(run_folder)
        else:
            count = worker_count(workers, configuration.threads, len(roster.clients))
            app = attacking.app if configuration.profile.attack.planned else client_app.app
            _run_in_process(run_folder, app, roster, last_round, configuration.threads, progress, test, count)
        state = load_checkpoint(run_folder / "checkpoint", fingerprint)
        if state is None or state.round_number < last_round:
            raise RuntimeError(f"{run_folder}: the {engine} engine ended before round {last_round}; see its log.")
        if last_round == rounds:
            if not is_whole(run_folder):  # a model that was written again is the one that manifest.json has already
                write_manifest(run_folder, state, engine, task, roster)
            seal(run_folder, configuration)


def continue_federation(
    run_folder: pathlib.Path, engine: Engine = "in-process", progress: bool = True, workers: int = 1
) -> None:
    """Run what is left of a run folder, by its own config.yaml; see :func:`run_federation`."""
    run_federation(run_folder, read_configuration(run_folder), engine=engine, progress=progress, workers=workers)


def _run_in_process(
    run_folder: pathlib.Path,
    app: ClientApp,
    roster: Roster,
    last_round: int,
    threads: int,
    progress: bool,
    test: bool,
    workers: int,
) -> None:
    count = len(roster.clients)
    run_config = {
        "run-folder": str(run_folder.resolve()),
        "last-round": last_round,
        "progress": progress,
        "log": False,
        "test": test,
    }
    nodes = [{"partition-id": k, "num-partitions": count} for k in range(count)]
    side_by_side = (workers,) if workers > 1 else ()
    grid = (WorkerGrid if side_by_side else InProcessGrid)(app, nodes, run_config, run_folder, *side_by_side)
    context = Context(RUN_ID, SERVER_NODE, {}, RecordDict(), run_config)
    flower = logging.getLogger("flwr")
    level = flower.level
    flower.setLevel(logging.WARNING)  # it reports every sampling of nodes
    try:
        with grid.identity(), torch_threads(threads), grid:
            server_app.app(grid, context)
    finally:
        flower.setLevel(level)


def raise_failure(run_folder: pathlib.Path) -> None:
    """Raise in this process what the server app raised in its own."""
    path = run_folder / server_app.FAILURE_FILE
    if path.exists():
        kind, _, sentence = path.read_text(encoding="utf-8").strip().partition(": ")
        known = {error.__name__: error for error in (InputError, TooFewClients, Unfinished, ChainUnavailable)}
        raise known.get(kind, RuntimeError)(sentence)


def write_manifest(
    run_folder: pathlib.Path,
    state: ServerState,
    engine: str,
    task: Task,
    roster: Roster,
) -> None:
    """manifest.json: what the run started from, the round that was chosen, and what it cost."""
    timing = pandas.read_csv(run_folder / "timing.csv")
    configuration, fingerprints = task.configuration, {**roster.fingerprints, **task.fingerprints()}
    RunFolder(run_folder).write_manifest(
        data_fingerprint=fingerprints["data"],
        seeds={"root": configuration.seed},
        wall_seconds=float(timing.wall_seconds.sum()),
        local_seconds=float(timing.local_seconds.sum()),
        training_code=training_code_hash(configuration.task),
        fingerprints=fingerprints,
        parameters=task.parameter_counts(),
        engine=engine,
        threads=configuration.threads,
        rounds=state.round_number,
        selected_round=state.best.round_number,
        selected_states=state.best.state_rounds,
        selected_loss=state.best.loss,
        **{NOTED: model_digests(run_folder)},
    )


@contextlib.contextmanager
def _locked(run_folder: pathlib.Path) -> Iterator[None]:
    """Keep every other process out of the run folder; the lock ends with its process, however that ends."""
    try:
        with filelock.FileLock(run_folder / ".lock", timeout=PATIENCE):
            yield
    except filelock.Timeout as error:
        raise InputError(f"{run_folder}: another process is running this run folder; wait for it or end it.") from error
