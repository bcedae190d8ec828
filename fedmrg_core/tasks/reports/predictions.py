"""predictions.csv and metrics.csv: stored answers by study, and every measure computed from them alone.

Only functions are here. Which round is scored was decided on validation before; the test studies are read once.
"""

from __future__ import annotations

import logging
import math
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy
import pandas

from fedmrg_core.data.findings import FINDINGS, STATES
from fedmrg_core.errors import InputError
from fedmrg_core.federation.workers import side_by_side
from fedmrg_core.files.stored_tables import read_table, table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.metrics.diversity import diversity
from fedmrg_core.metrics.meteor import LONGEST_FOR_METEOR, too_long_for_meteor
from fedmrg_core.metrics.normalise import normalise
from fedmrg_core.metrics.statistics import RESAMPLES, Interval, StudyStatistics, bootstrap_intervals
from fedmrg_core.runs.metric_table import METRIC_COLUMNS, ROLES, fairness_rows, scopes_of
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.tasks.reports.floors import FLOORS

logger = logging.getLogger(__name__)

# `site` is the client whose test set the study belongs to, or the unseen centre.
COLUMNS: tuple[str, ...] = (
    "study_id",
    "site",
    "split",
    "role",
    "adapter",
    "reference",
    "generated",
    "states_reference",
    "states_generated",
    "states_head",
)
# "both": half of each low-rank update; "adapted-N": a shared model that went on alone on N studies of the unseen centre
# (notebook 09); "none": a floor.
ADAPTERS: tuple[str, ...] = ("generic", "specialised", "both", "adapted-8", "adapted-32", "adapted-128", "none")
# What a reader sees of those that a table or figure shows.
ADAPTER_NAMES = {"generic": "generic adapter", "specialised": "specialised adapter", "both": "mean of both"}
SYSTEMS: tuple[str, ...] = ("model", *FLOORS)
# Why a value is blank, by the beginning of its measure's name.
BLANK = {
    "cider": "CIDEr is blank, for no word tells one reference from another (one study, or equal reports).",
    "meteor": f"METEOR is blank, for a report has more than {LONGEST_FOR_METEOR} words, too many to align in seconds.",
    "clinical": "clinical measures are blank where no reference is positive in the findings that they count.",
}
_STATES = re.compile(rf"[0-{len(STATES) - 1}]{{{len(FINDINGS)}}}")


def write_predictions(path: pathlib.Path | str, predictions: pandas.DataFrame) -> None:
    """Write predictions.csv atomically: the contract's columns, and ``system`` where the frame has it.

    Raises:
        InputError: a column is missing or a row is not as `check_predictions` expects.
    """
    check_predictions(predictions, str(path))
    columns = [*COLUMNS, *(["system"] if "system" in predictions else [])]
    write_text(pathlib.Path(path), table_text(predictions[columns]))


def read_predictions(path: pathlib.Path | str) -> pandas.DataFrame:
    """Read predictions.csv; every column is text, and ``system`` is "model" where the file does not say.

    Raises:
        InputError: the file is missing or unreadable, or see `check_predictions`.
    """
    frame = read_table(path, COLUMNS, "write predictions with notebook 07", dtype=str, na_values=[])
    if "system" not in frame:
        frame["system"] = "model"
    check_predictions(frame, str(path))
    return frame


def check_predictions(predictions: pandas.DataFrame, source: str) -> None:
    """Hold predictions against the contract.

    Raises:
        InputError: no rows, a missing column, an unknown role, adapter or system, a report that is no text, an empty
            reference, states that are not 14 digits from 0 to 3, or two rows of one study, adapter and system.
    """
    missing = [name for name in COLUMNS if name not in predictions]
    if missing:
        raise InputError(f"{source}: column {missing[0]!r} is missing; predictions need {', '.join(COLUMNS)}.")
    if not len(predictions):
        raise InputError(f"{source}: there are no rows; expected one for each test study and adapter.")
    for column, allowed in (("role", ROLES), ("adapter", ADAPTERS), ("system", SYSTEMS)):
        if column in predictions:
            _require(predictions, predictions[column].isin(allowed), column, f"one of {', '.join(allowed)}", source)
    for column in ("reference", "generated"):
        _require(predictions, predictions[column].map(_is_text), column, "text", source)
    _require(predictions, predictions["reference"].map(normalise) != "", "reference", "a report with words", source)
    for column in ("states_reference", "states_generated"):
        _require(predictions, predictions[column].map(_is_states), column, "14 digits from 0 to 3", source)
    head = predictions["states_head"]
    usable = (head == "") | head.map(_is_states)
    _require(predictions, usable, "states_head", "14 digits from 0 to 3, or nothing", source)
    keys = [name for name in ("study_id", "adapter", "system") if name in predictions]
    twice = predictions[predictions.duplicated(keys)]
    if len(twice):
        raise InputError(f"{source}: row {_line(twice)} repeats {tuple(twice.iloc[0][keys])}; expected one row each.")


def _is_text(cell: object) -> bool:
    return isinstance(cell, str)


def _is_states(text: object) -> bool:
    return isinstance(text, str) and _STATES.fullmatch(text) is not None


def _require(frame: pandas.DataFrame, good: pandas.Series, column: str, expected: str, source: str) -> None:
    bad = frame[~good.astype(bool)]
    if len(bad):
        row = bad.iloc[0]
        raise InputError(
            f"{source}: row {_line(bad)} (study {row['study_id']!r}) has {column} {row[column]!r}; expected {expected}."
        )


def _line(rows: pandas.DataFrame) -> object:
    return rows.index[0]


def state_array(column: Iterable[str]) -> numpy.ndarray:
    """A column of 14-digit strings as an (N, 14) integer array."""
    return numpy.array([[int(digit) for digit in text] for text in column])


def score_predictions(
    predictions: pandas.DataFrame,
    root_seed: int = 0,
    resamples: int = RESAMPLES,
    meteor: bool = True,
    workers: int = 1,
) -> pandas.DataFrame:
    """Every measure of every system, by client, pooled at home and on the unseen centre.

    Args:
        predictions: rows of one run; the floors' rows (`floors.floor_predictions`) may be appended, told apart by
            ``system`` (missing: "model"). METEOR's Java starts once for all of them.
        root_seed: the run's root seed; the bootstrap has a stream of its own.
        resamples: bootstrap resamples.
        meteor: False leaves METEOR out.
        workers: how many systems and places are scored at the same time, from 1.

    Returns:
        The long table of `METRIC_COLUMNS`. Shares and counts of distinct reports have no interval (NaN): a resample
        with repeated studies says nothing about them. What cannot be said is blank (NaN): see `metrics.text`,
        `metrics.clinical` and, for single studies, `statistics.bootstrap_intervals`; the reasons are logged once.
        ``worst_client_<metric>`` and ``harmonic_mean_<metric>`` stand in scope "home", their interval is NaN too.

    Raises:
        InputError: see `check_predictions`, or METEOR's Java does not run.
    """
    frame = predictions.reset_index(drop=True)
    frame["system"] = frame["system"].fillna("model") if "system" in frame else "model"
    check_predictions(frame, "predictions")
    measures = _measures_by_study(frame, meteor)
    groups = dict(list(frame.groupby(["system", "adapter"], sort=False)))
    scopes = {(names, scope): studies for names, group in groups.items() for scope, studies in scopes_of(group)}

    def score(of: tuple[Any, str]) -> list[dict[str, Any]]:
        generator = numpy_stream(root_seed, "bootstrap", of[1])  # every system sees the same resamples
        found = _score_scope(scopes[of], measures, generator, resamples)
        return [{"scope": of[1], **_named(of[0]), "studies": len(scopes[of]), **row} for row in found]

    found = map(score, scopes) if workers == 1 else side_by_side(score, list(scopes), workers, "scores")
    scored = dict(zip(scopes, found, strict=True))
    rows: list[dict[str, Any]] = []
    for names, group in groups.items():
        rows += [row for of in scopes if of[0] == names for row in scored[of]]
        rows += _fairness(rows, group, _named(names))
    metrics = pandas.DataFrame(rows)[list(METRIC_COLUMNS)]
    for reason in blank_reasons(metrics, frame):
        logger.warning("%s", reason)
    return metrics


def _named(names: tuple[str, str]) -> dict[str, Any]:
    """The columns of metrics.csv that say whose reports were scored."""
    return {"adapter": names[1], "system": names[0]}


def _measures_by_study(frame: pandas.DataFrame, meteor: bool) -> dict[str, StudyStatistics]:
    """Every measure of the `evaluate` modules, in the order of metrics.csv; subsets of its studies give scopes."""
    from fedmrg_core.metrics.modules import load_metric  # `evaluate` takes long to import

    text = load_metric("report_text").compute(
        predictions=frame["generated"].tolist(), references=frame["reference"].tolist(), meteor=meteor, per_study=True
    )
    clinical = load_metric("report_clinical").compute(
        predictions=state_array(frame["states_generated"]).tolist(),
        references=state_array(frame["states_reference"]).tolist(),
        per_study=True,
    )
    cider = text.pop("cider")  # stands last in every stored metrics.csv
    return {**text, **clinical, "cider": cider}


def blank_reasons(metrics: pandas.DataFrame, predictions: pandas.DataFrame) -> list[str]:
    """Why values and intervals of metrics.csv are blank: a sentence for each cause, with the scopes it concerns."""
    sentences = []
    for prefix, sentence in BLANK.items():
        scopes = metrics["scope"][metrics["metric"].str.startswith(prefix) & metrics["value"].isna()].unique()
        if len(scopes):
            sentences.append(f"{', '.join(scopes)}: {sentence}")
    if single := sorted(set(metrics["scope"][metrics["studies"] == 1])):
        sentences.append(f"{', '.join(single)}: intervals are blank, for there is one study.")
    if any(sentence.endswith(BLANK["meteor"]) for sentence in sentences):
        long = predictions[["reference", "generated"]].map(too_long_for_meteor).any(axis=1)
        names = ", ".join(predictions["study_id"][long].unique())
        sentences.append(f"reports of more than {LONGEST_FOR_METEOR} words: {names}.")
    return sentences


def _score_scope(
    studies: pandas.DataFrame,
    measures: dict[str, StudyStatistics],
    generator: numpy.random.Generator,
    resamples: int,
) -> list[dict[str, Any]]:
    here = {key: measure.subset(studies.index.to_numpy()) for key, measure in measures.items()}
    intervals = bootstrap_intervals(here, generator, resamples)
    varied = diversity(studies["generated"].tolist())
    for key in ("distinct_reports", "distinct_share", "most_frequent_share", "empty_share", "looping_share"):
        intervals[key] = Interval(float(getattr(varied, key)), math.nan, math.nan)
    return [
        {"metric": key, "value": interval.value, "low": interval.low, "high": interval.high}
        for key, interval in intervals.items()
    ]


def _fairness(rows: list[dict[str, Any]], group: pandas.DataFrame, named: dict[str, Any]) -> list[dict[str, Any]]:
    """Worst client and harmonic mean of each measure with an interval, over the clients at home that have a value."""
    home = group[group["role"] == "home"]
    return fairness_rows(rows, home, named, ("bleu", "meteor", "rouge", "cider", "clinical"))
