"""Intervals and tests on cases whose answer is known."""

from __future__ import annotations

import numpy
import pytest
import scipy.stats

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.statistics import (
    StudyStatistics,
    bootstrap_intervals,
    difference_statistics,
    exchange_test,
    holm,
    mean_statistics,
    pooled_seeds,
    seed_intervals,
)
from fedmrg_core.metrics.text import per_study_scores
from fedmrg_core.seeds import numpy_stream

pytestmark = pytest.mark.numerical


def test_interval_of_a_mean_agrees_with_scipy():
    values = numpy.random.default_rng(0).normal(size=80)
    ours = bootstrap_intervals({"mean": mean_statistics(values)}, numpy_stream(0, "test"), resamples=20_000)["mean"]
    theirs = scipy.stats.bootstrap(
        (values,), numpy.mean, n_resamples=20_000, method="percentile", rng=numpy.random.default_rng(1)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_coverage_of_a_known_mean():
    generator = numpy.random.default_rng(3)
    covered = 0
    for _ in range(200):
        interval = bootstrap_intervals({"m": mean_statistics(generator.normal(size=60))}, generator, resamples=400)["m"]
        covered += interval.low <= 0.0 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_corpus_bleu_interval_is_that_of_rescored_resamples():
    words = numpy.array("the heart lungs are clear no effusion seen is enlarged".split())
    generator = numpy.random.default_rng(0)
    references = [" ".join(generator.choice(words, 12)) for _ in range(20)]
    generated = [" ".join(generator.choice(words, 10)) for _ in range(20)]
    measures = per_study_scores(references, generated, meteor=False)
    rows = generator.integers(20, size=20)
    resampled = per_study_scores([references[i] for i in rows], [generated[i] for i in rows], meteor=False)
    weights = numpy.bincount(rows, minlength=20).astype(float)
    for key in ("bleu_1", "bleu_4", "rouge_l"):
        assert measures[key].value(weights @ measures[key].summands) == pytest.approx(resampled[key].estimate())
    for interval in bootstrap_intervals(measures, numpy_stream(0, "test")).values():
        assert interval.low <= interval.value <= interval.high


def test_intervals_are_reproducible():
    measure = {"m": mean_statistics(range(30))}
    assert bootstrap_intervals(measure, numpy_stream(5, "a")) == bootstrap_intervals(measure, numpy_stream(5, "a"))
    assert bootstrap_intervals(measure, numpy_stream(5, "a")) != bootstrap_intervals(measure, numpy_stream(5, "b"))


def test_exchange_test_agrees_with_scipy():
    generator = numpy.random.default_rng(2)
    first = generator.normal(0.3, 1, size=40)
    second = generator.normal(0.0, 1, size=40)
    found = exchange_test(mean_statistics(first), mean_statistics(second), numpy_stream(0, "test"), resamples=20_000)
    expected = scipy.stats.permutation_test(
        (first, second),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=numpy.random.default_rng(0),
    )
    assert found == pytest.approx(expected.pvalue, abs=0.02)


def test_exchange_test_of_equal_and_of_clearly_different_methods():
    values = numpy.random.default_rng(0).normal(size=50)
    assert exchange_test(mean_statistics(values), mean_statistics(values), numpy_stream(0, "test")) == 1.0
    better = exchange_test(mean_statistics(values + 1), mean_statistics(values), numpy_stream(0, "test"), resamples=999)
    assert better == pytest.approx(1 / 1000)


def test_holm_by_hand():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    with pytest.raises(InputError, match="'a'"):
        holm({"a": 1.5})


def two_methods(generator, effect, studies=40, seeds=3):
    """Scores of two methods: studies differ in difficulty, seeds in luck, the first is better by `effect`."""
    difficulty = generator.normal(size=studies)
    return [
        [mean_statistics(difficulty + shift + generator.normal(0, 0.5, studies)) for _ in range(seeds)]
        for shift in (effect, 0.0)
    ]


def test_pooled_seeds_is_the_mean_over_seeds():
    generator = numpy.random.default_rng(0)
    seeds = [mean_statistics(generator.normal(size=9)) for _ in range(3)]
    pooled = pooled_seeds(seeds)
    assert pooled.studies == 9 and pooled.estimate() == pytest.approx(numpy.mean([s.estimate() for s in seeds]))
    rows = numpy.array([0, 0, 5])
    assert pooled.subset(rows).estimate() == pytest.approx(numpy.mean([s.subset(rows).estimate() for s in seeds]))
    first, second = (mean_statistics(generator.normal(size=9)) for _ in range(2))
    assert difference_statistics(first, second).estimate() == pytest.approx(first.estimate() - second.estimate())


def test_exchange_test_over_seeds_finds_a_planted_difference_and_spreads_without_one():
    generator = numpy.random.default_rng(1)
    nulls = []
    for _ in range(60):
        same = [pooled_seeds(seeds) for seeds in two_methods(generator, 0.0)]
        nulls.append(exchange_test(*same, generator, resamples=200))
    assert sum(value < 0.05 for value in nulls) <= 8 and numpy.mean(nulls) == pytest.approx(0.5, abs=0.15)
    other = [pooled_seeds(seeds) for seeds in two_methods(generator, 0.4)]
    assert exchange_test(*other, generator, resamples=200) < 0.02


def test_seed_interval_holds_the_truth_and_both_sources():
    """True mean 0; studies with variance 1 (shared by the seeds), seeds with variance 0.04."""
    generator, inside, widths = numpy.random.default_rng(2), 0, []
    for _ in range(100):
        difficulty = generator.normal(size=50)
        seeds = [mean_statistics(difficulty + generator.normal(0, 0.2)) for _ in range(6)]
        interval = seed_intervals({"m": seeds}, generator, resamples=200)["m"]
        inside += interval.low <= 0 <= interval.high
        widths.append(interval.high - interval.low)
    assert 85 <= inside <= 99
    assert numpy.mean(widths) == pytest.approx(2 * 1.96 * numpy.sqrt(1 / 50 + 0.04 / 6), rel=0.15)


def test_one_seed_gives_the_interval_over_studies():
    values = numpy.random.default_rng(3).normal(size=80)
    one = seed_intervals({"m": [mean_statistics(values)]}, numpy_stream(0, "a"), resamples=2000)["m"]
    known = bootstrap_intervals({"m": mean_statistics(values)}, numpy_stream(0, "b"), resamples=2000)["m"]
    assert (one.low, one.high) == pytest.approx((known.low, known.high), abs=0.03)
    with pytest.raises(InputError, match="No seeds"):
        pooled_seeds([])
    with pytest.raises(InputError, match="between 1 and 2 seeds"):
        seed_intervals({"a": [mean_statistics([1.0])], "b": [mean_statistics([1.0])] * 2}, numpy_stream(0, "a"))


def test_bad_input_is_named():
    generator = numpy_stream(0, "test")
    one, two = mean_statistics([1.0]), mean_statistics([1.0, 2.0])
    with pytest.raises(InputError, match="'b' has 2 studies"):
        bootstrap_intervals({"a": one, "b": two}, generator)
    with pytest.raises(InputError, match="at least one study"):
        bootstrap_intervals({"a": StudyStatistics(numpy.zeros((0, 2)), numpy.sum)}, generator)
    with pytest.raises(InputError, match="resamples is 0"):
        bootstrap_intervals({"a": one}, generator, resamples=0)
    with pytest.raises(InputError, match="confidence is 1.0"):
        bootstrap_intervals({"a": one}, generator, confidence=1.0)
    with pytest.raises(InputError, match="'second' has 2"):
        exchange_test(one, two, generator)


def test_a_single_study_has_no_interval():
    """Its resamples are all the same: bounds would say that the value is known for sure."""
    measures = {"x": mean_statistics([0.5])}
    interval = bootstrap_intervals(measures, numpy_stream(0, "test"), 20)["x"]
    assert interval.value == 0.5 and numpy.isnan([interval.low, interval.high]).all()
    pooled = seed_intervals({"x": [mean_statistics([0.5]), mean_statistics([0.7])]}, numpy_stream(0, "test"), 20)["x"]
    assert pooled.value == pytest.approx(0.6) and numpy.isnan([pooled.low, pooled.high]).all()
