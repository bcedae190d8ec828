"""Evaluation of a task whose hospitals say a number a measure of each test study (`ModelHospital.answers`)."""

from __future__ import annotations

import pathlib

import pandas
from tqdm.auto import tqdm

from fedmrg_core.errors import InputError
from fedmrg_core.federation.model_task import ModelTask, load_chosen
from fedmrg_core.federation.roster import read_roster
from fedmrg_core.federation.task import load_task
from fedmrg_core.runs.measures import measures_of


def evaluate_answers(run_folder: pathlib.Path, progress: bool = True) -> pandas.DataFrame:
    """Test a finished run on every client's test studies; write predictions.csv and metrics.csv.

    It is the benchmark's: one machine holds the client folders of all. Reports have notebook 07 instead.

    Args:
        run_folder: a finished run.
        progress: show a bar over the clients.

    Returns:
        The answers: study_id, site, role, adapter, and a number a measure.

    Raises:
        InputError: the run is not finished, or its task's hospitals say no such numbers.
    """
    run_folder = run_folder.resolve()
    if not (run_folder / "manifest.json").is_file():
        raise InputError(f"{run_folder}: manifest.json is missing; finish the run first.")
    task = load_task(run_folder)
    if not isinstance(task, ModelTask):
        raise InputError(f"{run_folder}: its task has an evaluation of its own, such as notebook 07 of reports.")
    measures, parts = measures_of(task.configuration.task), []
    for client in tqdm(read_roster(run_folder).clients, desc="test sets", disable=not progress, leave=False):
        hospital = task.hospital(client, [run_folder / folder for folder in client.folders])
        load_chosen(task.model, run_folder, client.name)
        task.model.eval()
        parts.append(hospital.answers().assign(site=client.name, role="home", adapter=measures.answers["home"][0]))
    answers = pandas.concat(parts, ignore_index=True)
    measures.write(run_folder, answers, task.configuration.seed)
    return answers
