"""A finished run, evaluated: every client's test pictures, and those of centres that never trained.

On the benchmark's machine, which holds the pictures of all. Test pictures are read here and nowhere else.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pandas

from fedmrg_core.data.site_names import path_part
from fedmrg_core.errors import InputError
from fedmrg_core.federation.model_files import check_model
from fedmrg_core.federation.model_task import load_chosen
from fedmrg_core.federation.roster import read_client, read_roster
from fedmrg_core.federation.task import load_task
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.runs.measures import PREDICTIONS
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.runs.metric_table import write_metrics
from fedmrg_core.seeds import torch_threads
from fedmrg_core.tasks.visual_prompts.answering import answers_to
from fedmrg_core.tasks.visual_prompts.client_pictures import open_pictures, read_summary
from fedmrg_core.tasks.visual_prompts.measures import DECLARED
from fedmrg_core.tasks.visual_prompts.task import PictureTask


def evaluate_run(run_folder: pathlib.Path) -> pandas.DataFrame:
    """Write predictions.csv and metrics.csv of a finished run.

    Args:
        run_folder: of the run.

    Returns:
        The long table of metrics.csv.

    Raises:
        InputError: the run is not finished, or its task is another.
    """
    run_folder = run_folder.resolve()
    if not (run_folder / "model" / "shared.safetensors").is_file():
        raise InputError(f"{run_folder}: no model/shared.safetensors; finish the run with notebook 12b.")
    check_model(run_folder)
    task = load_task(run_folder)
    if not isinstance(task, PictureTask):
        raise InputError(f"{run_folder}: its task has no pictures; expected a run of notebook 12b.")
    with torch_threads(task.configuration.threads):
        answers = pandas.concat([*_at_home(task), *_unseen(task)], ignore_index=True)
    profile, seed = task.configuration.profile, task.configuration.seed
    metrics = DECLARED.score(answers, seed, profile.bootstrap_samples)
    write_text(run_folder / PREDICTIONS[0], table_text(answers))
    write_metrics(run_folder / "metrics.csv", metrics)
    return metrics


def _at_home(task: PictureTask) -> Iterator[pandas.DataFrame]:
    """Each client's own model on its own test pictures; a centralised one's on those of every site."""
    for client in read_roster(task.run_folder).clients:
        load_chosen(task.model, task.run_folder, client.name)
        for folder in client.folders:
            path = (task.run_folder / folder).resolve()
            site = read_client(path, path.parent).name  # of a centralised run's client, which holds the folders of all
            yield answers_to(task.model, *open_pictures(path, "test")).assign(site=site, role="home", adapter="own")


def _unseen(task: PictureTask) -> Iterator[pandas.DataFrame]:
    """The shared model at the centres that no client holds; a method that shares nothing has none."""
    if Ownership.SHARED not in task.model.ownership.values():
        return
    prepared = (task.run_folder / task.configuration.prepared).resolve()
    dealt = {pathlib.Path(folder).name for client in read_roster(task.run_folder).clients for folder in client.folders}
    load_chosen(task.model, task.run_folder)
    for site in read_summary(prepared)["pictures"]:
        if path_part(site) not in dealt:
            answers = answers_to(task.model, *open_pictures(prepared / path_part(site), "test"))
            yield answers.assign(site=site, role="unseen", adapter="shared")
