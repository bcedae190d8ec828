"""Clinical efficacy: which findings two reports share, and how well the diagnosis head ranks studies.

"CheXbert F1" has many meanings, so every key names all of its choices, as in
``clinical_f1_example_14_uncertain_negative``: measure (precision, recall, f1), average (example, micro, macro), number
of findings (14, or the 5 of CheXpert), and what an uncertain statement counts as (positive, negative) in both reports.
Blank and negative are both "not positive".
0 / 0 counts as 0 [related: PromptMRG], so a study without a positive finding scores 0 in the example average, and so
does a finding in the macro average. Where no reference at all is positive there is nothing to find: the measure is
blank (NaN), see `without_positives`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import numpy
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

from fedmrg_core.data.findings import FINDINGS, POSITIVE, STATES, UNCERTAIN
from fedmrg_core.errors import InputError
from fedmrg_core.metrics.statistics import StudyStatistics, blank_statistics, mean_statistics

UncertainPolicy = Literal["positive", "negative"]
UNCERTAIN_POLICIES: tuple[UncertainPolicy, ...] = ("positive", "negative")
# The five findings of the CheXpert competition [related].
CHEXPERT_FIVE: tuple[str, ...] = ("cardiomegaly", "edema", "consolidation", "atelectasis", "pleural effusion")
FINDING_SETS: dict[int, tuple[str, ...]] = {14: FINDINGS, 5: CHEXPERT_FIVE}
_MEASURES = ("precision", "recall", "f1")
AVERAGES = ("example", "micro", "macro")


def check_states(states: ArrayLike, name: str) -> numpy.ndarray:
    """Bring states into an (N, 14) integer array.

    Raises:
        InputError: no studies, another shape, or a number that is no state.
    """
    array = numpy.asarray(states)
    if array.size == 0:
        raise InputError(f"{name} holds no studies; give at least one row of {len(FINDINGS)} states.")
    if array.ndim != 2 or array.shape[1] != len(FINDINGS):
        raise InputError(f"{name} has shape {array.shape}; expected (studies, {len(FINDINGS)}).")
    wrong = numpy.argwhere(~numpy.isin(array, range(len(STATES))))
    if len(wrong):
        row, column = wrong[0]
        state, finding = array[row, column], FINDINGS[column]
        raise InputError(f"{name} row {row} has state {state} for {finding!r}; expected 0 to {len(STATES) - 1}.")
    return array.astype(int)


def is_positive(states: numpy.ndarray, uncertain: UncertainPolicy) -> numpy.ndarray:
    """Boolean array of the shape of `states`: positive, and uncertain too under the policy "positive".

    Raises:
        InputError: an unknown policy.
    """
    if uncertain not in UNCERTAIN_POLICIES:
        raise InputError(f"Parameter uncertain is {uncertain!r}; expected one of {', '.join(UNCERTAIN_POLICIES)}.")
    positive = states == POSITIVE
    return positive | (states == UNCERTAIN) if uncertain == "positive" else positive


def _checked_pair(reference: ArrayLike, generated: ArrayLike) -> tuple[numpy.ndarray, numpy.ndarray]:
    first, second = check_states(reference, "states_reference"), check_states(generated, "states_generated")
    if len(first) != len(second):
        raise InputError(f"states_reference has {len(first)} rows, states_generated {len(second)}; expected as many.")
    return first, second


def per_study_clinical(reference: ArrayLike, generated: ArrayLike) -> dict[str, StudyStatistics]:
    """All 36 precision, recall and F1 variants with their statistics by study, see `statistics.bootstrap_intervals`.

    Args:
        reference: (N, 14) states of the reference reports.
        generated: (N, 14) states of the generated reports.

    Returns:
        By key, as fractions. Those of `without_positives` are blank, also in a subset.

    Raises:
        InputError: bad shapes, unequal lengths, no studies or an unknown state.
    """
    true, predicted = _checked_pair(reference, generated)
    measures: dict[str, StudyStatistics] = {}
    for uncertain in UNCERTAIN_POLICIES:
        for size, names in FINDING_SETS.items():
            columns = [FINDINGS.index(name) for name in names]
            hits = _hits(is_positive(true[:, columns], uncertain), is_positive(predicted[:, columns], uncertain))
            for average in AVERAGES:
                for measure in _MEASURES:
                    key = f"clinical_{measure}_{average}_{size}_uncertain_{uncertain}"
                    measures[key] = _said_or_blank(hits, measure, average)
    return measures


def without_positives(reference: ArrayLike) -> set[str]:
    """The keys of the variants whose findings no reference has: (N, 14) states.

    Raises:
        InputError: see `check_states`.
    """
    true = check_states(reference, "states_reference")
    return {
        f"clinical_{measure}_{average}_{size}_uncertain_{uncertain}"
        for uncertain in UNCERTAIN_POLICIES
        for size, names in FINDING_SETS.items()
        if not is_positive(true[:, [FINDINGS.index(name) for name in names]], uncertain).any()
        for average in AVERAGES
        for measure in _MEASURES
    }


def _hits(true: numpy.ndarray, predicted: numpy.ndarray) -> numpy.ndarray:
    """True positives, false positives and false negatives: (N, L) Booleans twice to (N, 3, L) numbers."""
    return numpy.stack([true & predicted, ~true & predicted, true & ~predicted], axis=1).astype(float)


def _said_or_blank(hits: numpy.ndarray, measure: str, average: str) -> StudyStatistics:
    """Blank where no reference of these studies is positive: no true positive and no false negative."""
    if not hits[:, [0, 2]].any():
        return blank_statistics(len(hits))
    anew = functools.partial(_said_or_blank_of, hits, measure, average)
    return dataclasses.replace(_statistics(hits, measure, average), anew=anew)


def _said_or_blank_of(hits: numpy.ndarray, measure: str, average: str, rows: numpy.ndarray) -> StudyStatistics:
    return _said_or_blank(hits[rows], measure, average)


def _statistics(hits: numpy.ndarray, measure: str, average: str) -> StudyStatistics:
    if average == "example":
        return mean_statistics(_measure(*hits.sum(axis=2).T, measure))
    value = functools.partial(_of_sums, measure=measure, average=average)
    return StudyStatistics(hits.reshape(len(hits), -1), value)


def _of_sums(sums: numpy.ndarray, measure: str, average: str) -> numpy.ndarray:
    """Micro or macro average of summed hits (..., 3 L)."""
    counts = sums.reshape(*sums.shape[:-1], 3, -1)
    if average == "micro":
        counts = counts.sum(axis=-1, keepdims=True)
    return _measure(counts[..., 0, :], counts[..., 1, :], counts[..., 2, :], measure).mean(axis=-1)


def _measure(hit: numpy.ndarray, extra: numpy.ndarray, missed: numpy.ndarray, measure: str) -> numpy.ndarray:
    top = 2 * hit if measure == "f1" else hit
    bottom = {"precision": hit + extra, "recall": hit + missed, "f1": 2 * hit + extra + missed}[measure]
    return numpy.divide(top, bottom, out=numpy.zeros_like(top), where=bottom > 0)


def states_f1_micro(predicted: ArrayLike, true: ArrayLike, uncertain: UncertainPolicy = "negative") -> float:
    """Micro-averaged F1 over the 14 findings of (N, 14) predicted against true states.

    Raises:
        InputError: see `per_study_clinical`, or an unknown policy.
    """
    reference, states = _checked_pair(true, predicted)
    hits = _hits(is_positive(reference, uncertain), is_positive(states, uncertain))
    return _statistics(hits, "f1", "micro").estimate()


def head_auroc(
    probabilities: ArrayLike, states: ArrayLike, uncertain: UncertainPolicy = "negative"
) -> dict[str, float]:
    """Area under the ROC curve of the diagnosis head, for each finding.

    Args:
        probabilities: (N, 14, 4) state probabilities, or (N, 14) scores that rise with the positive state. The score is
            the positive state's probability, plus the uncertain one's under the policy "positive".
        states: (N, 14) true states.
        uncertain: what an uncertain true state counts as.

    Returns:
        AUROC by finding; NaN where a finding is positive in no study or in all of them.

    Raises:
        InputError: bad shapes, unequal lengths, a probability that is not finite, no studies.
    """
    true = check_states(states, "states")
    given = numpy.asarray(probabilities, dtype=float)
    if given.shape not in ((len(true), len(FINDINGS)), (len(true), len(FINDINGS), len(STATES))):
        raise InputError(
            f"probabilities has shape {given.shape}; expected ({len(true)}, {len(FINDINGS)}, {len(STATES)}) or "
            f"({len(true)}, {len(FINDINGS)})."
        )
    if not numpy.isfinite(given).all():
        row = numpy.argwhere(~numpy.isfinite(given))[0][0]
        raise InputError(f"probabilities row {row} is not finite; check the diagnosis head.")
    positive = is_positive(true, uncertain)
    if given.ndim == 3:
        given = given[..., [POSITIVE, UNCERTAIN] if uncertain == "positive" else [POSITIVE]].sum(axis=-1)
    return {
        finding: float(roc_auc_score(positive[:, column], given[:, column]))
        if 0 < positive[:, column].sum() < len(true)
        else float("nan")
        for column, finding in enumerate(FINDINGS)
    }
