"""Balanced accuracy and the area under the ROC curve as functions of sums over pictures, so that they have intervals.

Their values are scikit-learn's (`balanced_accuracy_score`, `roc_auc_score`), which tests hold. A class without a
picture, and for the area one without a picture of either outcome, does not count; without any the measure is blank.

The area is no sum of its pictures' parts: how far up a picture stands depends on the others. Resampled, it follows
DeLong's components, the placement of each picture among those of the other outcome [related: DeLong 1988].
"""

from __future__ import annotations

import numpy
import scipy.stats

from fedmrg_core.metrics.statistics import StudyStatistics


def recall_statistics(truth: numpy.ndarray, chosen: numpy.ndarray, several: bool) -> StudyStatistics:
    """Balanced accuracy: the mean over classes of the recall; where several can be right, of both outcomes' recalls.

    Args:
        truth: (N, K) of zeros and ones.
        chosen: likewise.
        several: classes are told each by itself.
    """
    truth, chosen = truth.astype(float), chosen.astype(float)
    hits, there = truth * chosen, truth
    if several:
        hits = numpy.hstack([hits, (1 - truth) * (1 - chosen)])
        there = numpy.hstack([truth, 1 - truth])
    return StudyStatistics(numpy.hstack([hits, there]), _several_recall if several else _one_recall)


def area_statistics(truth: numpy.ndarray, scores: numpy.ndarray) -> StudyStatistics:
    """The mean over classes of the area under the ROC curve, each class against the others.

    Args:
        truth: (N, K) of zeros and ones.
        scores: (N, K), higher for what is more likely there.
    """
    parts = [_placements(truth[:, k].astype(bool), scores[:, k]) for k in range(truth.shape[1])]
    return StudyStatistics(
        numpy.hstack(parts), _mean_area, anew=lambda rows: area_statistics(truth[rows], scores[rows])
    )


def _several_recall(sums: numpy.ndarray) -> numpy.ndarray:
    """Mean over classes of the mean of two recalls; a class needs both outcomes."""
    hits, there = numpy.split(sums, 2, axis=-1)
    return _mean_known(sum(numpy.split(_ratio(hits, there), 2, axis=-1)) / 2)


def _one_recall(sums: numpy.ndarray) -> numpy.ndarray:
    return _mean_known(_ratio(*numpy.split(sums, 2, axis=-1)))


def _placements(there: numpy.ndarray, scores: numpy.ndarray) -> numpy.ndarray:
    """(N, 6): placement of each picture with the class, one for each; of those without; and the area, one for each."""
    columns = numpy.zeros((len(scores), 6))
    columns[:, 1], columns[:, 3] = there, ~there
    with_it, without = int(there.sum()), int((~there).sum())
    if with_it and without:
        columns[there, 0] = _share_below(scores[there], scores[~there])
        columns[~there, 2] = 1 - _share_below(scores[~there], scores[there])
        columns[:, 4], columns[:, 5] = columns[there, 0].mean(), 1
    return columns


def _share_below(values: numpy.ndarray, others: numpy.ndarray) -> numpy.ndarray:
    """The share of the others below each value, equal ones counted half: ranks among all less ranks among its own."""
    together = scipy.stats.rankdata(numpy.concatenate([values, others]))[: len(values)]
    return (together - scipy.stats.rankdata(values)) / len(others)


def _mean_area(sums: numpy.ndarray) -> numpy.ndarray:
    parts = sums.reshape(*sums.shape[:-1], -1, 6)
    above, below, area = (_ratio(parts[..., 2 * n], parts[..., 2 * n + 1]) for n in range(3))
    return _mean_known(above + below - area)


def _ratio(numerators: numpy.ndarray, denominators: numpy.ndarray) -> numpy.ndarray:
    blank = numpy.full(numerators.shape, numpy.nan)
    return numpy.divide(numerators, denominators, out=blank, where=denominators > 0)


def _mean_known(values: numpy.ndarray) -> numpy.ndarray:
    """Mean over the last axis of what is known; NaN where nothing is."""
    known = ~numpy.isnan(values)
    return _ratio(numpy.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))
