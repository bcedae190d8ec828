"""A finished run, evaluated: every answer of the chosen model to every client's test questions, and the matrix.

On the benchmark's machine, which holds the client folders of all. Test questions are read here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import pandas
from tqdm.auto import tqdm

from fedmrg_core.adapters import BASE, GENERIC, answer_label
from fedmrg_core.data.questions.question import Question
from fedmrg_core.errors import InputError
from fedmrg_core.federation.model_task import load_chosen
from fedmrg_core.federation.roster import read_client
from fedmrg_core.federation.task import load_task
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.runs.measures import PREDICTIONS
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.runs.metric_table import write_metrics
from fedmrg_core.seeds import torch_threads
from fedmrg_core.tasks.medical_qa.answering import PROBABILITY, answers_to
from fedmrg_core.tasks.medical_qa.floors import floor_answers
from fedmrg_core.tasks.medical_qa.measures import BASE_FLOOR, DECLARED, MAIN, with_places
from fedmrg_core.tasks.medical_qa.question_folders import open_questions
from fedmrg_core.tasks.medical_qa.task import QuestionTask

MATRIX = "matrix.csv"  # every adapter on every client's test questions
MATRIX_MEASURES = (MAIN, PROBABILITY)  # the second is blank where no question is open, the first where all are
MODEL = "model"


@dataclasses.dataclass(frozen=True)
class TestSet:
    """The test questions of one client, and those it trained on."""

    client: str
    questions: tuple[Question, ...]
    trained: tuple[Question, ...]


def evaluate_run(run_folder: pathlib.Path) -> pandas.DataFrame:
    """Write predictions.csv, metrics.csv and matrix.csv of a finished run.

    Args:
        run_folder: of the run.

    Returns:
        The long table of metrics.csv.

    Raises:
        InputError: the run is not finished, or its task answers no questions.
    """
    task, places = _finished(run_folder), list(test_sets(run_folder))
    with torch_threads(task.configuration.threads):
        answers = pandas.concat(list(_own_answers(task, places)), ignore_index=True)
        matrix = pandas.concat(list(_matrix_rows(task, places)), ignore_index=True)
    seed, resamples = task.configuration.seed, task.configuration.profile.bootstrap_samples
    metrics = pandas.concat(
        [
            DECLARED.score(rows, seed, resamples).assign(system=system)
            for system, rows in answers.groupby("system", sort=False)
        ],
        ignore_index=True,
    )
    write_text(run_folder / PREDICTIONS[0], answers.to_csv(index=False, lineterminator="\n"))
    write_text(run_folder / MATRIX, matrix.to_csv(index=False, lineterminator="\n"))
    write_metrics(run_folder / "metrics.csv", metrics)
    return metrics


def test_sets(run_folder: pathlib.Path) -> Iterator[TestSet]:
    """Every client's test questions, in the order of their names."""
    task = load_task(run_folder)
    folder = (run_folder / task.configuration.dealt).resolve()
    places = {read_client(path, folder).name: path for path in folder.iterdir() if (path / "client.json").is_file()}
    for client, path in sorted(places.items()):
        yield TestSet(client, tuple(open_questions(path, "test")), tuple(open_questions(path, "train")))


def _finished(run_folder: pathlib.Path) -> QuestionTask:
    if not (run_folder / "model" / "shared.safetensors").is_file():
        raise InputError(
            f"{run_folder}: no model/shared.safetensors; finish the run with notebook 11_medical_qa first."
        )
    task = load_task(run_folder)
    if not isinstance(task, QuestionTask):
        raise InputError(f"{run_folder}: its task answers no questions; expected a run of notebook 11_medical_qa.")
    return task


def _own_answers(task: QuestionTask, places: Sequence[TestSet]) -> Iterator[pandas.DataFrame]:
    """What each client's own model says of its own test questions, and what the untouched base model and floors do."""
    for place in tqdm(places, desc="test sets", leave=False):
        load_chosen(task.model, task.run_folder, place.client)
        for adapter in (*task.model.answers, BASE):
            label = "none" if adapter == BASE else answer_label(adapter)
            system = BASE_FLOOR if adapter == BASE else MODEL
            rows = with_places(_answers(task, adapter, place, task.numbers.new_tokens))
            yield rows.assign(site=place.client, role="home", adapter=label, system=system)
        for system, rows in floor_answers(place.questions, place.trained):
            yield with_places(rows).assign(site=place.client, role="home", adapter="none", system=system)


def _matrix_rows(task: QuestionTask, places: Sequence[TestSet]) -> Iterator[pandas.DataFrame]:
    """`MATRIX_MEASURES` of every adapter that there is on every client's test questions."""
    personal = Ownership.PERSONAL in task.model.ownership.values()
    holders = [place.client for place in places] if personal else [None]
    for holder in tqdm(holders, desc="matrix", leave=False):
        load_chosen(task.model, task.run_folder, holder)
        for adapter in task.model.adapters:
            if holder is not places[0].client and holder is not None and _is_shared(task, adapter):
                continue
            named = {"adapter": answer_label(adapter), "of": "" if _is_shared(task, adapter) else holder}
            yield _on_all(task, adapter, places, named)
    yield _on_all(task, BASE, places, {"adapter": "base", "of": ""})


def _on_all(task: QuestionTask, adapter: str, places: Sequence[TestSet], named: dict[str, str]) -> pandas.DataFrame:
    """One adapter on every client's test questions; nothing is written."""
    means = [_answers(task, adapter, place, 0)[list(MATRIX_MEASURES)].mean().to_dict() for place in places]
    return pandas.DataFrame([{**named, "on": place.client, **row} for place, row in zip(places, means, strict=True)])


def _is_shared(task: QuestionTask, adapter: str) -> bool:
    """Whether every client has the same adapter: FedSA-LoRA's generic one is half personal."""
    return adapter == GENERIC and task.model.adapter_owner(adapter) is Ownership.SHARED


def _answers(task: QuestionTask, adapter: str, place: TestSet, new_tokens: int) -> pandas.DataFrame:
    return answers_to(task.model, task.reader, place.questions, adapter, task.numbers.batch_size, new_tokens)
