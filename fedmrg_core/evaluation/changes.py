"""What changed between two runs, number by number, and what chance alone would have changed: for `verify`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping

import pandas
import scipy.stats

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.seed_variance import FILE, kind_of
from fedmrg_core.metrics.statistics import CONFIDENCE, StudyStatistics, difference_statistics, jackknife_error
from fedmrg_core.runs.measures import Answers, Place

DIGITS = 5  # decimals that reference runs keep
ALPHA = 0.01  # chance of calling a run not reproduced that differs by chance alone


@dataclasses.dataclass(frozen=True)
class Change:
    """A number of the rerun beside that of the reference, and what chance would do to it.

    Attributes:
        reference: the number.
        rerun: the number.
        variance: of their difference, if chance alone were at work.
        degrees: degrees of freedom of that variance.
        allowed: the largest difference, of a number that chance does not touch; None where it does.
    """

    reference: float
    rerun: float
    variance: float = 0.0
    degrees: float = math.inf
    allowed: float | None = None

    @property
    def difference(self) -> float:
        """Rerun less reference."""
        return self.rerun - self.reference

    @property
    def p_value(self) -> float:
        """Two-sided, of Student's t; of a number that chance does not touch 1 or 0."""
        if not math.isfinite(self.difference):
            return 0.0  # what is no number reproduces nothing
        if abs(self.difference) <= max(self.allowed or 0.0, 10.0**-DIGITS):
            return 1.0
        if self.variance == 0:
            return 0.0
        if math.isinf(self.variance):
            return 1.0  # a single study: chance explains anything
        return float(2 * scipy.stats.t.sf(abs(self.difference) / math.sqrt(self.variance), self.degrees))

    def chance(self, comparisons: int) -> float:
        """The largest difference that chance explains when so many numbers are compared (Bonferroni)."""
        if self.variance == 0:
            return self.allowed or 0.0
        if math.isinf(self.variance):
            return math.inf
        return float(scipy.stats.t.isf(ALPHA / comparisons / 2, self.degrees)) * math.sqrt(self.variance)


def compare_answers(
    answers: Mapping[Place, Answers],
    others: Mapping[Place, Answers],
    known: pandas.DataFrame,
    measures: Collection[str],
    fixed: Collection[str] = (),
) -> dict[tuple[str, str, str], Change]:
    """Every measure of a reference's answers beside another run's to the same studies.

    Args:
        answers: the reference's.
        others: the other run's, of the same places and studies.
        known: see `seed_variance.variances_of`.
        measures: which of their measures, in this order.
        fixed: floors that no seed moves, and so only the arithmetic of single studies.

    Raises:
        InputError: a measure's variance between seeds is not known.
    """
    changes = {}
    for (scope, adapter), each in answers.items():
        for metric in (name for name in measures if name in each.measures):
            key = (kind_of(scope), adapter, metric)
            shared = (0.0, math.inf) if adapter in fixed else _variance(known, key, "beyond_studies")
            pair = each.measures[metric], others[scope, adapter].measures[metric]
            changes[scope, adapter, metric] = paired_change(*pair, *shared)
    return changes


def _variance(known: pandas.DataFrame, key: tuple[str, ...], column: str) -> tuple[float, float]:
    """A variance between seeds and its degrees of freedom."""
    row = known.loc[key] if key in known.index else None
    if row is None or pandas.isna(row[column]):
        raise InputError(f"{FILE} has no {column} of {', '.join(key)}; make it again with `fedmrg seed-variance`.")
    return float(row[column]), float(row["degrees"])


def paired_change(before: StudyStatistics, after: StudyStatistics, shared: float, degrees: float) -> Change:
    """Over the same studies: the variance of single studies' share and twice that of a run as a whole."""
    changed = int((before.summands != after.summands).any(axis=1).sum())
    of_studies = jackknife_error(difference_statistics(after, before)) ** 2
    of_runs = 2 * shared
    variance = of_studies + of_runs
    # Satterthwaite: what both shares are known by, weighted by their squares. Studies that did not change say nothing.
    spread = of_studies**2 / max(changed - 1, 1) + of_runs**2 / degrees
    return Change(before.estimate(), after.estimate(), variance, variance**2 / spread if spread else math.inf)


def unpaired_change(
    before: pandas.Series,
    after: pandas.Series,
    key: tuple[str, str, str],
    known: pandas.DataFrame | None,
    fixed: Collection[str] = (),
) -> Change:
    """A number that is known as a whole alone, as far as two seeds are apart; without `known` as intervals allow.

    Of the floors in `fixed`, which follow from the studies alone, nothing may change.
    """
    values = float(before["value"]), float(after["value"])
    if key[1] in fixed:
        return Change(*values, allowed=0.0)
    if known is not None:
        variance, degrees = _variance(known, (kind_of(key[0]), *key[1:]), "between_seeds")
        return Change(*values, 2 * variance, degrees)
    halves = [float(side["high"] - side["low"]) / 2 for side in (before, after)]
    errors = [half / scipy.stats.norm.ppf((1 + CONFIDENCE) / 2) for half in halves]
    return Change(*values, float(sum(error**2 for error in errors)))
