"""The one Flower ServerApp: the same in every engine."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator

import filelock
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from tqdm.auto import tqdm

from fedmrg_core.errors import InputError
from fedmrg_core.federation.finish import finish
from fedmrg_core.federation.privacy import affordable_rounds
from fedmrg_core.federation.roster import read_roster
from fedmrg_core.federation.rounds import FederatedRounds, log_round
from fedmrg_core.federation.task import SELECTION_MEASURE, load_task
from fedmrg_core.files.whole_files import writable, write_text
from fedmrg_core.seeds import torch_threads

FAILURE_FILE = "failure.txt"  # the sentence a run ended with that did not reach its last round
GO_ON = "start the same command again: the run goes on from its last round."

LOCK, PATIENCE = ".server.lock", 60.0  # seconds

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that are left and finish, under a progress bar or with a line of log a round.

    On an error its sentence is left in the run folder, for whoever waits in another process.
    """
    run_folder = pathlib.Path(str(context.run_config["run-folder"]))
    with _alone(run_folder), _telling(run_folder), writable(run_folder, GO_ON):
        _run(grid, context, run_folder)


@contextlib.contextmanager
def _alone(run_folder: pathlib.Path) -> Iterator[None]:
    """Let no two server apps write into one run folder: a SuperLink may have one left that was told to stop."""
    try:
        held = filelock.FileLock(run_folder / LOCK).acquire(timeout=PATIENCE)
    except filelock.Timeout as error:
        with _telling(run_folder):
            raise InputError(f"{run_folder}: another server app is writing there; end it, and {GO_ON}") from error
    with held:
        (run_folder / FAILURE_FILE).unlink(missing_ok=True)  # of the one before
        yield


@contextlib.contextmanager
def _telling(run_folder: pathlib.Path) -> Iterator[None]:
    """Leave an error's sentence in the run folder, for whoever waits in another process."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk takes this no more than it took the rest
            write_text(run_folder / FAILURE_FILE, f"{type(error).__name__}: {error}\n")
        raise


def _run(grid: Grid, context: Context, run_folder: pathlib.Path) -> None:
    last_round = int(context.run_config["last-round"])
    task = load_task(run_folder)
    configuration = task.configuration
    rounds = FederatedRounds(grid, run_folder, task, read_roster(run_folder))
    if context.run_config["log"]:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
        logging.getLogger("fedmrg_core").setLevel(logging.INFO)
    with tqdm(
        total=last_round,
        initial=min(rounds.state.round_number, last_round),
        desc="rounds",
        disable=not context.run_config["progress"],
    ) as bar:

        def report(rows: list[dict]) -> None:
            log_round(rows)
            bar.update()
            losses = {row["client"]: row.get(SELECTION_MEASURE) for row in rows}
            bar.set_postfix({name: "left out" if v is None else f"{v:.3f}" for name, v in losses.items()})

        rounds.report = report
        with torch_threads(configuration.threads):  # what the server computes depends on it as well
            rounds.run(last_round)
            if last_round == affordable_rounds(configuration, len(rounds.roster.clients)):
                finish(rounds, test=bool(context.run_config["test"]))
