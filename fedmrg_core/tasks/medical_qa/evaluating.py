"""A finished run, evaluated: every answer of the chosen model to every client's test questions, and the matrices.

On the benchmark's machine, which holds the client folders of all. Test questions are read here and nowhere else, when
the last round is over and validation has chosen: they steer nothing.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas

from fedmrg_core.data.questions.question import Question
from fedmrg_core.errors import InputError
from fedmrg_core.federation.model_files import check_model
from fedmrg_core.federation.model_task import load_chosen
from fedmrg_core.federation.roster import read_client, read_roster
from fedmrg_core.federation.task import load_task
from fedmrg_core.federation.workers import side_by_side, worker_count
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import read_json, write_text
from fedmrg_core.runs.measures import PREDICTIONS
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.runs.metric_table import write_metrics
from fedmrg_core.seeds import torch_threads
from fedmrg_core.tasks.medical_qa.answering import PROBABILITY, answers_to
from fedmrg_core.tasks.medical_qa.floors import floor_answers
from fedmrg_core.tasks.medical_qa.kept_adapters import load_kept
from fedmrg_core.tasks.medical_qa.measures import BASE_FLOOR, DECLARED, MAIN, MATRIX, MATRIX_BY_ROUND, with_places
from fedmrg_core.tasks.medical_qa.question_folders import open_questions, used_questions
from fedmrg_core.tasks.medical_qa.readings import possible_answers
from fedmrg_core.tasks.medical_qa.task import QuestionTask
from fedmrg_core.training.adapter_names import BASE, GENERIC, answer_label

MODEL = "model"
MATRIX_COLUMNS = ("adapter", "of", "on", "metric", "value", "studies")


@dataclasses.dataclass(frozen=True)
class TestSet:
    """The test questions of one client, and those it trained on, which floors copy from."""

    client: str
    questions: tuple[Question, ...]
    trained: tuple[Question, ...]


def evaluate_run(run_folder: pathlib.Path, workers: int = 1) -> pandas.DataFrame:
    """Write predictions.csv, metrics.csv, matrix.csv and, of kept rounds, matrix_by_round.csv of a finished run.

    Args:
        run_folder: of the run.
        workers: processes that answer side by side; 0: one a core. The tables do not depend on it.

    Returns:
        The long table of metrics.csv.

    Raises:
        InputError: the run is not finished, or its task answers no questions.
    """
    task, places = _finished(run_folder), list(test_sets(run_folder))
    jobs = [*_own_jobs(task, places), *_matrix_jobs(task, places)]
    count = worker_count(workers, task.configuration.threads, len(jobs))
    with torch_threads(task.configuration.threads):
        tables = side_by_side(lambda job: job(), jobs, count, "test questions")
    answers = pandas.concat(tables[: len(places)], ignore_index=True)
    matrix = pandas.concat(tables[len(places) :], ignore_index=True)
    metrics = _metrics(task, answers)
    write_text(run_folder / PREDICTIONS[0], table_text(answers))
    _write_matrices(run_folder, matrix)
    write_metrics(run_folder / "metrics.csv", metrics)
    return metrics


def _metrics(task: QuestionTask, answers: pandas.DataFrame) -> pandas.DataFrame:
    """The long table of the model and of the floors, which metrics.csv calls systems and no adapters."""
    scored = DECLARED.score(answers, task.configuration.seed, task.configuration.profile.bootstrap_samples)
    floors = scored["adapter"].isin(set(answers["system"]) - {MODEL})
    scored.loc[floors, "system"] = scored.loc[floors, "adapter"]
    scored.loc[floors, "adapter"] = "none"
    return scored


def _write_matrices(run_folder: pathlib.Path, matrix: pandas.DataFrame) -> None:
    chosen, kept = matrix[matrix["round"] == CHOSEN], matrix[matrix["round"] != CHOSEN]
    write_text(run_folder / MATRIX, table_text(chosen[list(MATRIX_COLUMNS)]))
    if len(kept):
        table = kept[["round", *MATRIX_COLUMNS]]
        write_text(run_folder / MATRIX_BY_ROUND, table_text(table))


def test_sets(run_folder: pathlib.Path) -> Iterator[TestSet]:
    """The test questions of every client of the run, in the order of their names.

    A centralised run's one client has the folders of all, and each is a client here. Other folders may lie beside
    them, of clients that have gone since.

    Raises:
        InputError: the run has no list of clients, or a folder of it is missing, damaged or without questions.
    """
    settings = load_task(run_folder).configuration
    folders = [run_folder / folder for client in read_roster(run_folder).clients for folder in client.folders]
    places = {read_client(path, run_folder).name: path for path in folders}
    for client, path in sorted(places.items()):
        trained = used_questions(path, "train", settings.profile.training.study_share, settings.seed)
        yield TestSet(client, tuple(open_questions(path, "test")), tuple(trained))


def _finished(run_folder: pathlib.Path) -> QuestionTask:
    if not (run_folder / "model" / "shared.safetensors").is_file():
        raise InputError(
            f"{run_folder}: no model/shared.safetensors; finish the run with notebook 11b_medical_qa_run first."
        )
    check_model(run_folder)
    task = load_task(run_folder)
    if not isinstance(task, QuestionTask):
        raise InputError(f"{run_folder}: its task answers no questions; expected a run of notebook 11b_medical_qa_run.")
    return task


Job = Callable[[], pandas.DataFrame]
CHOSEN = 0  # in place of a round: the one that validation chose


def _own_jobs(task: QuestionTask, places: Sequence[TestSet]) -> list[Job]:
    """For each client what its own model, the untouched base model and the floors say of its own test questions."""

    def cut(text: str) -> str:
        return task.reader.cut(text, task.numbers.new_tokens)

    def answers(place: TestSet) -> pandas.DataFrame:
        load_chosen(task.model, task.run_folder, place.client)
        parts = []
        for adapter in (*task.model.answers, BASE):
            name, system = (BASE_FLOOR, BASE_FLOOR) if adapter == BASE else (answer_label(adapter), MODEL)
            rows = with_places(_answers(task, adapter, place.questions, task.numbers.new_tokens))
            parts.append(rows.assign(adapter=name, system=system))
        for name, rows in floor_answers(place.questions, place.trained, cut):
            parts.append(with_places(rows).assign(adapter=name, system=name))
        return pandas.concat(parts, ignore_index=True).assign(site=place.client, role="home")

    return [_job(answers, place) for place in places]


def _matrix_jobs(task: QuestionTask, places: Sequence[TestSet]) -> Iterator[Job]:
    """Every adapter that there is on every client's test questions: of the chosen model, and of each kept round."""
    last = read_json(task.run_folder / "manifest.json")["rounds"]
    kept = [number for number in task.numbers.kept_rounds if number <= last]
    personal = [name for name in task.model.adapters if not _is_shared(task, name)]
    shared = [name for name in task.model.adapters if _is_shared(task, name)]

    def row(round_number: int, holder: str | None, adapters: Sequence[str]) -> pandas.DataFrame:
        if round_number == CHOSEN:
            load_chosen(task.model, task.run_folder, holder)
        else:
            load_kept(task.model, task.run_folder, round_number, last, holder)
        cells = [_cell(task, adapter, place) for adapter in adapters for place in places]
        return pandas.DataFrame(cells).assign(round=round_number, of=holder or "")

    for number in (CHOSEN, *kept):
        if shared:
            yield _job(row, number, None, shared)
        for place in places if personal else ():
            yield _job(row, number, place.client, personal)
    yield _job(row, CHOSEN, None, [BASE])


def _job(function: Callable[..., pandas.DataFrame], *arguments: Any) -> Job:
    return lambda: function(*arguments)


def _cell(task: QuestionTask, adapter: str, place: TestSet) -> dict[str, Any]:
    """The main accuracy on a client's questions with options; of one without any how probable right answers are."""
    closed = [question for question in place.questions if possible_answers(question)]
    metric, asked = (MAIN, closed) if closed else (PROBABILITY, place.questions)
    value = _answers(task, adapter, asked, 0)[metric].mean()
    name = "base" if adapter == BASE else answer_label(adapter)
    return {"adapter": name, "on": place.client, "metric": metric, "value": value, "studies": len(asked)}


def _is_shared(task: QuestionTask, adapter: str) -> bool:
    """Whether every client has the same adapter: FedSA-LoRA's generic one is half personal."""
    return adapter == GENERIC and task.model.adapter_owner(adapter) is Ownership.SHARED


def _answers(task: QuestionTask, adapter: str, questions: Sequence[Question], new_tokens: int) -> pandas.DataFrame:
    """With `new_tokens` 0 nothing is written."""
    return answers_to(task.model, task.reader, questions, adapter, task.numbers.batch_size, new_tokens)
