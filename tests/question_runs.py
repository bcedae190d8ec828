"""Run folders of medical questions with planted answers: how often each method is right, here and elsewhere."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

import numpy
import pandas

from fedmrg_core.files.whole_files import write_text
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.metric_table import write_metrics
from fedmrg_core.runs.run_configuration import write_configuration
from fedmrg_core.tasks.medical_qa.answering import PROBABILITY
from fedmrg_core.tasks.medical_qa.measures import BASE_FLOOR, DECLARED, MAIN, MATRIX, MATRIX_BY_ROUND, with_places

CLIENTS = ("hospital-1", "hospital-2", "hospital-3")
QUESTIONS = 60  # of each client, a third of them about what others hold
BASE = 0.25


def write_question_run(
    root: pathlib.Path,
    method: str,
    here: float,
    elsewhere: float,
    *,
    seed: int = 0,
    variant: str = "",
    rounds: int = 3,
    training_code: str = "code-1",
    further: Mapping[str, tuple[float, float]] | None = None,
    **settings: object,
) -> pathlib.Path:
    """A finished run below root/results.

    Args:
        root: the workspace.
        method: a row of methods_medical_qa.yaml.
        here: share of right answers among those the client holds.
        elsewhere: among those that others hold.
        seed: draws the answers; the base model's are the same for every run.
        variant: of the run.
        rounds: kept in the matrix by round.
        training_code: as the manifest has it.
        further: shares of right answers here and elsewhere under other adapters than the generic one.
        settings: data and partition, where they are others; MedQuAD's questions are open.
    """
    run = RunSettings(**{"data": "medical_world", "method": method, "variant": variant, "seed": seed, **settings})
    folder = run.folder(root)
    folder.mkdir(parents=True)
    write_configuration(folder, run.configuration(root))
    manifest = {
        "commit": "a" * 40, "uncommitted_changes": False, "training_code": training_code, "data_fingerprint": "data-1",
        "packages": {"torch": "2.0"}, "parameters": {"shared": 1000}, "rounds": rounds, "selected_round": rounds,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    draws = numpy.random.default_rng([seed, len(method), *map(ord, method)]), numpy.random.default_rng(7)
    shares = {"here": here, "elsewhere": elsewhere}
    others = {name: dict(zip(shares, pair, strict=True)) for name, pair in (further or {}).items()}
    answers = pandas.concat(
        [
            _answers(draws[0], shares, "generic", "model"),
            *(_answers(draws[0], each, name, "model") for name, each in others.items()),
            _answers(draws[1], dict.fromkeys(shares, BASE), BASE_FLOOR, BASE_FLOOR),
        ],
        ignore_index=True,
    )
    if run.data == "medquad":
        answers = _without_options(answers)
    write_text(folder / "predictions.csv", answers.to_csv(index=False, lineterminator="\n"))
    write_measures(folder, answers)
    _write_matrices(folder, method, here, elsewhere, rounds, PROBABILITY if run.data == "medquad" else MAIN)
    return folder


def write_measures(folder: pathlib.Path, answers: pandas.DataFrame) -> None:
    """metrics.csv of these answers."""
    scored = DECLARED.score(answers, 0, resamples=40)
    floors = scored["adapter"] == BASE_FLOOR
    scored.loc[floors, ["adapter", "system"]] = ["none", BASE_FLOOR]
    write_metrics(folder / "metrics.csv", scored)


def _answers(draw: numpy.random.Generator, shares: dict[str, float], adapter: str, system: str) -> pandas.DataFrame:
    places = ["elsewhere" if number % 3 == 0 else "here" for number in range(QUESTIONS)]
    parts = []
    for client in CLIENTS:
        right = [float(draw.random() < shares[place]) for place in places]
        rows = pandas.DataFrame({"study_id": [f"{client}-{n:03}" for n in range(QUESTIONS)], "fact_held": places})
        rows = rows.assign(accuracy_sum=right, accuracy_per_token=right, token_f1=numpy.nan, rouge_l=numpy.nan)
        rows["open_probability_per_token"] = numpy.nan
        parts.append(with_places(rows.assign(**{MAIN: right})).assign(site=client))
    return pandas.concat(parts).assign(role="home", adapter=adapter, system=system)


def _without_options(answers: pandas.DataFrame) -> pandas.DataFrame:
    """The same, where right means a likely answer and no question has options."""
    answers[[PROBABILITY, "token_f1"]] = answers[[MAIN, MAIN]].to_numpy() * 0.5
    answers[[name for name in answers if name.startswith("accuracy")]] = numpy.nan
    return answers


def _write_matrices(folder: pathlib.Path, method: str, here: float, elsewhere: float, rounds: int, metric: str) -> None:
    owners = CLIENTS if method == "local" else ("",)
    rows = [
        {
            "adapter": "generic",
            "of": of,
            "on": on,
            "metric": metric,
            "value": here if of in ("", on) else elsewhere,
            "studies": 60,
        }
        for of in owners
        for on in CLIENTS
    ]
    base = [{"adapter": "base", "of": "", "on": on, "metric": metric, "value": BASE, "studies": 60} for on in CLIENTS]
    pandas.DataFrame([*rows, *base]).to_csv(folder / MATRIX, index=False)
    by_round = [
        {"round": number, **row, "value": row["value"] * number / rounds}
        for number in range(1, rounds + 1)
        for row in rows
    ]
    pandas.DataFrame(by_round).to_csv(folder / MATRIX_BY_ROUND, index=False)
