"""Run folders with made-up answers: how good a method is, how much seeds differ, and what it sends are all planted."""

from __future__ import annotations

import functools
import json
import pathlib

import numpy
import pandas
import yaml

from fedmrg_core.data.labeller import label_report
from fedmrg_core.evaluation.seed_variance import COLUMNS as VARIANCE_COLUMNS
from fedmrg_core.evaluation.seed_variance import write_seed_variance
from fedmrg_core.federation.model_files import MANIFEST, NOTED, model_digests
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.methods import Method
from fedmrg_core.runs.metric_table import write_metrics
from fedmrg_core.runs.run_configuration import configure_run
from fedmrg_core.tasks.reports.floors import floor_predictions
from fedmrg_core.tasks.reports.measures import MEASURES
from fedmrg_core.tasks.reports.predictions import COLUMNS, score_predictions, write_predictions

CLIENTS = ("centre-a", "centre-b", "centre-c")
UNSEEN = "centre-f"
TEXTS = (
    "The heart is enlarged. No pleural effusion or pneumothorax is seen. Lungs are clear.",
    "Lungs are clear. No pneumothorax. The cardiac silhouette is normal in size.",
    "There is a small left pleural effusion with adjacent atelectasis. Heart size is normal.",
    "Right upper lobe consolidation, which may be pneumonia. A pacemaker is in place.",
)


@functools.cache
def states(text: str) -> str:
    return "".join(map(str, label_report(text)))


@functools.cache
def loaded(profile: str, method: str, variant: str) -> tuple[Profile, Method]:
    return RunSettings(profile=profile, method=method, variant=variant).load()


@functools.cache
def answered(
    seed: int, quality: float, studies: int, draws: int, two: bool, resamples: int
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """predictions.csv and metrics.csv; equal settings share them, because scoring is what takes the time."""
    answers = _answers(seed, quality, studies, draws, two)
    training = pandas.DataFrame(
        [(f"t{n}", site, TEXTS[n % 4]) for n, site in enumerate(CLIENTS * 4)], columns=["study_id", "site", "reference"]
    )
    everything = pandas.concat(
        [answers.assign(system="model"), floor_predictions(answers, training, seed)], ignore_index=True
    )
    return everything, score_predictions(everything, seed, resamples, meteor=False)


def write_run(
    root: pathlib.Path,
    quality: float = 0.5,
    *,
    studies: int = 60,
    fingerprint: str = "data-1",
    commit: str = "a" * 40,
    training_code: str = "code-1",
    gpu: str | None = None,
    sent: int = 400_000,
    predictions: bool = True,
    resamples: int = 40,
    draws: int = 0,
    **settings: object,
) -> pathlib.Path:
    """A finished run of `settings` (see `RunSettings`) below root/results.

    Args:
        quality: share of the test studies that are answered with their own reference.
        draws: names the random numbers, beside method and seed; equal ones of two methods give equal answers.
    """
    run = RunSettings(**settings)
    folder = root / "results" / run.name
    folder.mkdir(parents=True)
    profile, method = loaded(run.profile, run.method, run.variant)
    configuration = configure_run(
        folder, profile=profile, method=method, data=run.data, partition=run.partition, clients=run.clients or None,
        seed=run.seed, threads=1, prepared=root / "prepared", base_models=root / "base_models",
    )  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration.model_dump(mode="json"), sort_keys=False))
    manifest = {
        "commit": commit, "training_code": training_code, "data_fingerprint": fingerprint,
        "packages": {"torch": "2.0"}, "parameters": {"shared": 1000}, "gpu": gpu and {"name": gpu},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    two = "specialised_adapter" in method.modules
    everything, metrics = answered(run.seed, quality, studies, draws, two, resamples)
    if predictions:
        write_predictions(folder / "predictions.csv", everything)
    write_metrics(folder / "metrics.csv", metrics)
    _write_rounds(folder, quality, sent)
    return folder


def _answers(seed: int, quality: float, studies: int, draws: int, two: bool) -> pandas.DataFrame:
    generator = numpy.random.default_rng([draws, seed])
    rows = []
    for number in range(studies):
        site = (*CLIENTS, UNSEEN)[number % 4]
        reference = TEXTS[(number * 7 // 4) % 4]
        luck, other = generator.random(), TEXTS[generator.integers(4)]
        text = reference if luck < quality else other
        role = "unseen" if site == UNSEEN else "home"
        for adapter in ("generic", "specialised")[: 2 if two and role == "home" else 1]:
            columns = (states(reference), states(text), states(reference))
            rows.append((f"s{number:03}", site, "test", role, adapter, reference, text, *columns))
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def _write_rounds(folder: pathlib.Path, quality: float, sent: int) -> None:
    rounds = [
        {"round": number, "client": client, "status": "ok", "validation_language_loss": 3 / number - quality + k / 9}
        for number in (1, 2, 3)
        for k, client in enumerate(CLIENTS)
    ]
    pandas.DataFrame(rounds).to_csv(folder / "rounds.csv", index=False)
    ledger = [
        {"round": number, "phase": "train", "client": client, "direction": way, "module": module, "bytes": size}
        for number in (1, 2, 3)
        for client in CLIENTS
        for way, factor in (("up", 1), ("down", 2))
        for module, size in {"message": factor * sent, "encoder": factor * (sent - 100), "framing": 100}.items()
    ]
    pandas.DataFrame(ledger).to_csv(folder / "ledger.csv", index=False)


def planted_variance(path, value=0.0, degrees=20):
    """A variance between seeds that knows every number of the made-up runs; see `evaluation.seed_variance`."""
    rows = [
        ("phantom", "fedmrg", scope, adapter, metric, value, value, degrees)
        for scope in ("client", "home", "unseen")
        for adapter in ("generic", "specialised")
        for metric in MEASURES
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_seed_variance(path, pandas.DataFrame(rows, columns=list(VARIANCE_COLUMNS)))


def note_model(folder: pathlib.Path) -> None:
    """Have manifest.json know the model's files as they are: another run might have written them."""
    manifest = json.loads((folder / MANIFEST).read_text()) | {NOTED: model_digests(folder)}
    (folder / MANIFEST).write_text(json.dumps(manifest))
