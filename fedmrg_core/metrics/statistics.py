"""Intervals and tests over studies, for corpus measures as well as for means.

Most measures here are functions of a sum: BLEU of summed n-gram counts, micro-F1 of summed hits, a mean of summed
values. `StudyStatistics` keeps the summands by study, so that a bootstrap resample or a permutation is a matrix product
and never a second scoring.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy

from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

RESAMPLES = 1000
CONFIDENCE = 0.95
# Resamples drawn at a time: bounds the weight matrix to this many rows, whatever the number of studies.
_CHUNK = 250


@dataclasses.dataclass(frozen=True)
class StudyStatistics:
    """A measure as a function of sums over studies [ours].

    Attributes:
        summands: (N, S) float array, one row a study.
        value: maps sums (..., S) to the measure (...). It must be vectorised over the leading axes.
        anew: the measure of some rows, where a study's part depends on the studies scored with it; None: it does not.
    """

    summands: numpy.ndarray
    value: Callable[[numpy.ndarray], numpy.ndarray]
    anew: Callable[[numpy.ndarray], StudyStatistics] | None = None

    @property
    def studies(self) -> int:
        """The number of studies N."""
        return len(self.summands)

    def estimate(self) -> float:
        """The measure on all studies."""
        return float(self.value(self.summands.sum(axis=0)))

    def subset(self, rows: numpy.ndarray) -> StudyStatistics:
        """The same measure as if only these studies were scored (an index array of whole numbers)."""
        return self.anew(rows) if self.anew else dataclasses.replace(self, summands=self.summands[rows])


@dataclasses.dataclass(frozen=True)
class Interval:
    """A measure with the bounds of its bootstrap interval."""

    value: float
    low: float
    high: float


def mean_statistics(values: Sequence[float] | numpy.ndarray) -> StudyStatistics:
    """The mean of one number a study, as `StudyStatistics`; `values` has shape (N,)."""
    column = numpy.asarray(values, dtype=float)
    return StudyStatistics(numpy.column_stack([column, numpy.ones_like(column)]), _ratio_of_sums)


def ratio_statistics(numerators: numpy.ndarray, denominators: numpy.ndarray) -> StudyStatistics:
    """A ratio of two sums, such as a mean over the studies that a measure applies to; NaN where the second is zero.

    Args:
        numerators: (N,), zero where the measure does not apply.
        denominators: (N,), one where it applies and else zero.
    """
    return StudyStatistics(numpy.column_stack([numerators, denominators]), _ratio_or_blank)


def blank_statistics(studies: int) -> StudyStatistics:
    """A measure that cannot be said of these studies: NaN, whatever is resampled."""
    return mean_statistics(numpy.full(studies, math.nan))


def _ratio_of_sums(sums: numpy.ndarray) -> numpy.ndarray:
    return sums[..., 0] / sums[..., 1]


def _ratio_or_blank(sums: numpy.ndarray) -> numpy.ndarray:
    blank = numpy.full(sums.shape[:-1], math.nan)
    return numpy.divide(sums[..., 0], sums[..., 1], out=blank, where=sums[..., 1] > 0)


def _weights(studies: int, resamples: int, generator: numpy.random.Generator) -> Iterator[numpy.ndarray]:
    """Multinomial weights of bootstrap resamples: how often each study was drawn, up to (_CHUNK, N) at a time."""
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        yield generator.multinomial(studies, numpy.full(studies, 1.0 / studies), size=rows).astype(float)


def bootstrap_intervals(
    measures: dict[str, StudyStatistics],
    generator: numpy.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals over studies; every measure sees the same resamples.

    Args:
        measures: measures over the same N studies, by key.
        generator: a stream of `fedmrg_core.seeds.numpy_stream`.
        resamples: number of resamples R.
        confidence: coverage aimed at, in (0, 1).

    Returns:
        By key; without bounds (NaN) for a single study, whose resamples are all the same.

    Raises:
        InputError: no studies, measures over different numbers of studies, or a parameter out of range.
    """
    _check_resampling(resamples, confidence)
    if not measures:
        return {}
    studies = _common_studies(measures)
    draws: dict[str, list[numpy.ndarray]] = {key: [] for key in measures}
    for weights in _weights(studies, resamples, generator):
        for key, measure in measures.items():
            draws[key].append(measure.value(weights @ measure.summands))
    bounds = {key: _bounds(numpy.concatenate(drawn), studies, confidence) for key, drawn in draws.items()}
    return {key: Interval(measures[key].estimate(), low, high) for key, (low, high) in bounds.items()}


def with_intervals(measures: dict[str, StudyStatistics], resamples: int = 0, seed: int = 0) -> dict[str, float]:
    """Measures as plain numbers, as an `evaluate` module gives them.

    Args:
        measures: by key, over the same studies.
        resamples: of the bootstrap; 0 leaves intervals out.
        seed: root seed of the bootstrap's stream.

    Returns:
        Each key with its value, and with resamples ``<key>_low`` and ``<key>_high``.

    Raises:
        InputError: see `bootstrap_intervals`.
    """
    if not resamples:
        return {key: measure.estimate() for key, measure in measures.items()}
    numbers: dict[str, float] = {}
    for key, interval in bootstrap_intervals(measures, numpy_stream(seed, "bootstrap", "all"), resamples).items():
        numbers |= {key: interval.value, f"{key}_low": interval.low, f"{key}_high": interval.high}
    return numbers


def _bounds(draws: numpy.ndarray, studies: int, confidence: float) -> tuple[float, float]:
    """Percentiles of resampled values; NaN for a single study, which says nothing about the spread."""
    if studies < 2:
        return math.nan, math.nan
    low, high = numpy.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _common_studies(measures: dict[str, StudyStatistics]) -> int:
    counts = {key: measure.studies for key, measure in measures.items()}
    studies = next(iter(counts.values()))
    if studies == 0:
        raise InputError("No studies to resample; give at least one study.")
    for key, count in counts.items():
        if count != studies:
            raise InputError(f"Measure {key!r} has {count} studies, the others {studies}; score the same studies.")
    return studies


def _check_resampling(resamples: int, confidence: float = CONFIDENCE) -> None:
    if resamples < 1:
        raise InputError(f"Parameter resamples is {resamples}; expected at least 1.")
    if not 0 < confidence < 1:
        raise InputError(f"Parameter confidence is {confidence}; expected a number between 0 and 1.")


def jackknife_error(measure: StudyStatistics) -> float:
    """Standard error of a measure over its N studies, each left out once [related: Efron and Tibshirani 1993].

    Unlike a bootstrap's it needs no random numbers: the same answers give the same error everywhere.

    Returns:
        The error; infinite for a single study, which says nothing about the spread.
    """
    studies = measure.studies
    if studies < 2:
        return math.inf
    without = measure.value(measure.summands.sum(axis=0) - measure.summands)
    return float(numpy.sqrt((studies - 1) / studies * numpy.square(without - without.mean()).sum()))


def exchange_test(
    first: StudyStatistics, second: StudyStatistics, generator: numpy.random.Generator, resamples: int = RESAMPLES
) -> float:
    """The two-sided p value of a difference between two methods that answered the same studies, row by row.

    An approximate randomisation test: for every study the two outputs change places with probability one half, and the
    share of differences at least as large as the observed one is counted, the observed one included (so
    p >= 1 / (resamples + 1)).

    Raises:
        InputError: the two do not cover the same number of studies, there are none, or resamples is below 1.
    """
    _check_resampling(resamples)
    _common_studies({"first": first, "second": second})
    observed = first.estimate() - second.estimate()
    exchanged = numpy.concatenate(list(_exchanged_differences(first, second, generator, resamples)))
    # The tolerance lets permutations that equal the observed one but for rounding count as equal.
    extreme = numpy.sum(numpy.abs(exchanged) >= abs(observed) - 1e-12)
    return float((extreme + 1) / (resamples + 1))


def _exchanged_differences(
    first: StudyStatistics, second: StudyStatistics, generator: numpy.random.Generator, resamples: int
) -> Iterator[numpy.ndarray]:
    change = second.summands - first.summands
    total_first, total_second = first.summands.sum(axis=0), second.summands.sum(axis=0)
    for start in range(0, resamples, _CHUNK):
        swapped = generator.integers(0, 2, size=(min(_CHUNK, resamples - start), first.studies)).astype(float)
        moved = swapped @ change
        yield first.value(total_first + moved) - second.value(total_second - moved)


def pooled_seeds(seeds: Sequence[StudyStatistics]) -> StudyStatistics:
    """The mean over seeds of a measure as one measure, every study with all its seeds' answers in one row.

    A study is then drawn or exchanged with the answers of every seed at once: answers to one study are not independent
    of each other only because the training seeds were [ours].

    Args:
        seeds: the measure of each seed on the same N studies, in the same order.

    Raises:
        InputError: no seed, or seeds over different numbers of studies.
    """
    if not seeds:
        raise InputError("No seeds to pool; give at least one run.")
    _common_studies({f"seed {number}": measure for number, measure in enumerate(seeds)})
    width, value = seeds[0].summands.shape[1], seeds[0].value

    def mean_value(sums: numpy.ndarray) -> numpy.ndarray:
        return value(sums.reshape(*sums.shape[:-1], len(seeds), width)).mean(axis=-1)

    return StudyStatistics(numpy.hstack([measure.summands for measure in seeds]), mean_value)


def difference_statistics(first: StudyStatistics, second: StudyStatistics) -> StudyStatistics:
    """First minus second on the same N studies as one measure; study rows have to match.

    Raises:
        InputError: the two do not cover the same number of studies.
    """
    _common_studies({"first": first, "second": second})
    width = first.summands.shape[1]

    def difference(sums: numpy.ndarray) -> numpy.ndarray:
        return first.value(sums[..., :width]) - second.value(sums[..., width:])

    return StudyStatistics(numpy.hstack([first.summands, second.summands]), difference)


def seed_intervals(
    measures: dict[str, Sequence[StudyStatistics]],
    generator: numpy.random.Generator,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> dict[str, Interval]:
    """Mean over seeds with a percentile bootstrap over seeds and studies, without bounds for a single study [ours].

    Every resample draws S of the S seeds and N of the N studies, each with replacement. The studies drawn are the same
    for all seeds, because all seeds answered the same studies. With few seeds the spread between them comes out a
    little small, by the factor (S - 1) / S in its variance, and one seed says nothing about it.

    Args:
        measures: by key, the measure of each seed on the same N studies in the same order.
        generator: a stream of `fedmrg_core.seeds.numpy_stream`.
        resamples: number of resamples R.
        confidence: coverage aimed at, in (0, 1).

    Raises:
        InputError: no seeds, no studies, uneven numbers of either, or a parameter out of range.
    """
    _check_resampling(resamples, confidence)
    if not measures:
        return {}
    pooled = {key: pooled_seeds(seeds) for key, seeds in measures.items()}
    studies, counts = _common_studies(pooled), {len(seeds) for seeds in measures.values()}
    if len(counts) > 1:
        raise InputError(f"Measures have between {min(counts)} and {max(counts)} seeds; give each measure every seed.")
    seeds = counts.pop()
    draws: dict[str, list[numpy.ndarray]] = {key: [] for key in measures}
    for weights in _weights(studies, resamples, generator):
        seed_weights = generator.multinomial(seeds, numpy.full(seeds, 1 / seeds), size=len(weights)) / seeds
        for key, by_seed in measures.items():
            values = numpy.column_stack([measure.value(weights @ measure.summands) for measure in by_seed])
            draws[key].append((values * seed_weights).sum(axis=1))
    bounds = {key: _bounds(numpy.concatenate(drawn), studies, confidence) for key, drawn in draws.items()}
    return {key: Interval(pooled[key].estimate(), low, high) for key, (low, high) in bounds.items()}


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction: adjusted p values by key, in the order given.

    Raises:
        InputError: a p value is not a number in [0, 1].
    """
    for key, p_value in p_values.items():
        if not 0 <= p_value <= 1:
            raise InputError(f"The p value of {key!r} is {p_value}; expected a number between 0 and 1.")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, key in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[key]))
        adjusted[key] = largest
    return {key: adjusted[key] for key in p_values}
