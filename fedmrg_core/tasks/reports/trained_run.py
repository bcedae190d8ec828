"""A finished run, evaluated: reports and features of every test study, floors, every measure, in its run folder."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy
import pandas
import torch

from fedmrg_core.data.findings import POSITIVE
from fedmrg_core.data.site_names import path_part
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.federation.model_task import load_chosen
from fedmrg_core.federation.workers import side_by_side, worker_count
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.metrics.clinical import head_auroc
from fedmrg_core.runs.methods import Method, Ownership
from fedmrg_core.runs.metric_table import write_metrics
from fedmrg_core.runs.run_folder import RunFolder
from fedmrg_core.runs.training_code import report_code_hash
from fedmrg_core.seeds import torch_threads
from fedmrg_core.tasks.reports.answers import counting_answer
from fedmrg_core.tasks.reports.finished_run import FinishedRun
from fedmrg_core.tasks.reports.floors import floor_predictions
from fedmrg_core.tasks.reports.inference import digits, image_features, state_probabilities, write_reports
from fedmrg_core.tasks.reports.predictions import read_predictions, score_predictions, write_predictions
from fedmrg_core.training.adapter_names import GENERIC, answer_label


@dataclasses.dataclass(frozen=True)
class TestSet:
    """The test studies of one place."""

    site: str
    role: str  # home: a client's own; unseen: a centre that never trained
    studies: ClientTensors


def evaluate_run(folder: pathlib.Path, workers: int = 1) -> pandas.DataFrame:
    """Write predictions.csv, head_auroc.csv, features.safetensors, features.csv and metrics.csv of a finished run.

    Every place and adapter is stored as soon as it is done, so that an interrupted evaluation goes on where it stopped;
    reports that another model or other code has written are dropped first.
    The test studies are read here and nowhere else. A method that shares nothing has no model for a centre that never
    trained: its tables have no rows of role "unseen".

    Args:
        folder: of the run.
        workers: how many test sets are written about, and scored, at the same time; 0: one a core, one on a GPU.

    Returns:
        The long table of metrics.csv.

    Raises:
        InputError: the run has no selected model yet.
    """
    run = FinishedRun(folder)
    drop_outdated_reports(folder, run)
    with torch_threads(run.configuration.threads):
        run.model.eval()  # in memory before workers are forked, so that they share it
        workers = worker_count(workers, run.configuration.threads)
        # In one go: a worker that has no report left to write goes on with features.
        work = [_reports(folder, run), _features(folder, run), _probabilities(folder, run)]
        done = iter(side_by_side(lambda job: job(), [job for jobs in work for job in jobs], workers, "evaluation"))
        reports, features, probabilities = [list(itertools.islice(done, len(jobs))) for jobs in work]
    predictions = pandas.concat(reports, ignore_index=True)
    by_study = _store_features(folder, run, numpy.concatenate(features))
    if probabilities:
        _store_head_auroc(folder, run, numpy.concatenate(probabilities))
    training = pandas.concat(
        pandas.DataFrame({"study_id": studies.study_ids, "site": site, "reference": studies.texts})
        for site, studies in ((site, run.tensors(site, "train")) for site in run.sites)
    )
    settings = run.configuration
    floors = floor_predictions(predictions, training, settings.seed, by_study)
    everything = pandas.concat([predictions.assign(system="model"), floors], ignore_index=True)
    write_predictions(folder / "predictions.csv", everything)
    samples = settings.profile.bootstrap_samples
    metrics = score_predictions(everything, settings.seed, samples, workers=workers)
    write_metrics(folder / "metrics.csv", metrics)
    return metrics


def drop_outdated_reports(folder: pathlib.Path, run: FinishedRun) -> None:
    """Delete predictions/ unless what stands in `folder` now has written it: a report says nothing of its origin.

    Args:
        folder: of the finished run.
        run: the same.
    """
    mark, digest = folder / "predictions" / "made_by.sha256", _digest_of_reports(folder, run)
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() == digest:
        return
    if mark.parent.exists():
        shutil.rmtree(mark.parent)
    write_text(mark, digest + "\n")


def _digest_of_reports(folder: pathlib.Path, run: FinishedRun) -> str:
    """sha256 over all that decides the stored reports: the model's files, what it was trained from, settings, code."""
    settings = [report_code_hash(), run.configuration.identity(), run.fingerprints()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted(path for path in (folder / "model").rglob("*") if path.is_file()):
        with path.open("rb") as content:
            content_hash = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content_hash}\n".encode())
    return digest.hexdigest()


def test_sets(run: FinishedRun) -> Iterator[TestSet]:
    """The sites' test sets, then those of the unseen centres if the method shares a model that they could use."""
    for site in run.sites:
        yield TestSet(site, "home", run.tensors(site, "test"))
    if shares_a_model(run.configuration.method):
        for site, studies in run.unseen().items():
            yield TestSet(site, "unseen", ClientTensors(studies))


def shares_a_model(method: Method) -> bool:
    """Whether anything that the clients train comes together."""
    return Ownership.SHARED in method.modules.values()


def load_trained(folder: pathlib.Path, run: FinishedRun, client: str | None = None) -> None:
    """See :func:`fedmrg_core.federation.model_task.load_chosen`."""
    load_chosen(run.model, folder, client)


def stored_reports(path: pathlib.Path, run: FinishedRun, place: TestSet, adapter: str, label: str) -> pandas.DataFrame:
    """The reports of a test set by the model as it stands, written to `path`.

    Args:
        path: of the CSV file.
        run: with the model loaded.
        place: the test set.
        adapter: which of the model's answers it is.
        label: what the column ``adapter`` says.
    """
    generation = run.configuration.profile.generation
    rows = write_reports(run.model, place.studies, adapter, generation, place.site)
    frame = pandas.DataFrame(map(dataclasses.asdict, rows))
    write_predictions(path, frame.assign(site=place.site, split="test", role=place.role, adapter=label))
    return stored_rows(path)


def stored_rows(path: pathlib.Path) -> pandas.DataFrame:
    """The rows that `stored_reports` wrote."""
    return read_predictions(path).drop(columns="system")


def predictions_path(folder: pathlib.Path, site: str, label: str) -> pathlib.Path:
    """Where the reports of one place and adapter are stored."""
    return folder / "predictions" / f"{path_part(site)}-{label}.csv"


def place_reports(folder: pathlib.Path, run: FinishedRun, place: TestSet, adapter: str) -> pandas.DataFrame:
    """The selected model's reports of one test set, written now unless they are stored."""
    label = answer_label(adapter)
    path = predictions_path(folder, place.site, label)
    if path.is_file():
        return stored_rows(path)
    load_trained(folder, run, place.site if place.role == "home" else None)
    return stored_reports(path, run, place, adapter, label)


def _reports(folder: pathlib.Path, run: FinishedRun) -> list[Callable[[], pandas.DataFrame]]:
    """One job a test set and answer."""
    return [
        functools.partial(place_reports, folder, run, place, adapter)
        for place in test_sets(run)
        for adapter in run.model.answers
        if (_written_at_home(run, adapter) if place.role == "home" else adapter == GENERIC)
    ]


def _written_at_home(run: FinishedRun, adapter: str) -> bool:
    """Whether the profile asks for this answer at home, or it is the one that counts there."""
    settings, names = run.configuration, {answer_label(name) for name in run.model.answers}
    label = answer_label(adapter)
    return label in settings.profile.answers_at_home or label == counting_answer("home", names, settings.method)


def _load_for_features(folder: pathlib.Path, run: FinishedRun, site: str, role: str) -> None:
    """The model that sees a site's images: at home with the client's own tensors, BatchNorm statistics among them.

    Where every client was tuned afterwards, the shared one: features of as many encoders could not be compared.
    """
    tuned = run.configuration.method.client.fine_tuning_epochs > 0
    load_trained(folder, run, site if role == "home" and not tuned else None)


def _feature_sets(run: FinishedRun) -> list[tuple[str, str, str, ClientTensors]]:
    """Site, role, split and studies of every training and test set, in the order of features.csv."""
    sets = [(site, "home", "train", run.tensors(site, "train")) for site in run.sites]
    return sets + [(place.site, place.role, "test", place.studies) for place in test_sets(run)]


def _features(folder: pathlib.Path, run: FinishedRun) -> list[Callable[[], numpy.ndarray]]:
    """One job a set of studies, with feature h (N, D) of each under the selected model."""

    def features_of(site: str, role: str, studies: ClientTensors) -> numpy.ndarray:
        _load_for_features(folder, run, site, role)
        return image_features(run.model, studies)

    return [functools.partial(features_of, site, role, studies) for site, role, _, studies in _feature_sets(run)]


def _store_features(folder: pathlib.Path, run: FinishedRun, features: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Write features.safetensors and features.csv for the figures.

    Returns:
        (D,) by study id.
    """
    frames = [
        pandas.DataFrame(
            {
                "study_id": studies.study_ids,
                "site": site,
                "role": role,
                "split": split,
                "states": [digits(row) for row in studies.states.tolist()],
            }
        )  # fmt: skip
        for site, role, split, studies in _feature_sets(run)
    ]
    table = pandas.concat(frames, ignore_index=True)
    RunFolder(folder).write_safetensors("features.safetensors", {"features": torch.from_numpy(features)})
    write_text(folder / "features.csv", table_text(table))
    return dict(zip(table.study_id, features, strict=True))


def _probabilities(folder: pathlib.Path, run: FinishedRun) -> list[Callable[[], numpy.ndarray]]:
    """One job a site: what the diagnosis head says of its validation studies; none where there is no head."""
    if "diagnosis_head" not in run.configuration.method.modules:
        return []

    def probabilities_at(site: str) -> numpy.ndarray:
        _load_for_features(folder, run, site, "home")
        return state_probabilities(run.model, run.tensors(site, "validation"))

    return [functools.partial(probabilities_at, site) for site in run.sites]


def _store_head_auroc(folder: pathlib.Path, run: FinishedRun, probabilities: numpy.ndarray) -> None:
    """head_auroc.csv: the selected diagnosis head on all sites' validation studies pooled, finding by finding."""
    states = numpy.concatenate([run.tensors(site, "validation").states.numpy() for site in run.sites])
    rows = [
        {"finding": name, "auroc": value, "positive": int((states[:, k] == POSITIVE).sum()), "studies": len(states)}
        for k, (name, value) in enumerate(head_auroc(probabilities, states).items())
    ]
    RunFolder(folder).write_csv("head_auroc.csv", rows)
