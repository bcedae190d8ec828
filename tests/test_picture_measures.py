"""Measures of classes and masks: scikit-learn's and MONAI's values, rules for what is empty, intervals."""

from __future__ import annotations

import math

import numpy
import pandas
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from fedmrg_core.metrics.classification import area_statistics, recall_statistics
from fedmrg_core.metrics.segmentation import DICE, HAUSDORFF, dice, hausdorff95
from fedmrg_core.metrics.statistics import bootstrap_intervals, exchange_test, pooled_seeds
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.tasks.visual_prompts.measures import DECLARED


def drawn(seed: int = 0, studies: int = 60, classes: int = 3) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Truth and scores that follow it a little, some of them equal."""
    draw = numpy.random.default_rng(seed)
    truth = draw.integers(0, 2, (studies, classes))
    return truth, (truth + draw.normal(0, 1.2, truth.shape)).round(1)


def test_the_area_is_scikit_learn_s():
    truth, scores = drawn()
    assert area_statistics(truth, scores).estimate() == pytest.approx(roc_auc_score(truth, scores, average="macro"))
    rows = numpy.arange(10, 40)
    expected = roc_auc_score(truth[rows], scores[rows], average="macro")
    assert area_statistics(truth, scores).subset(rows).estimate() == pytest.approx(expected)


def test_a_class_of_one_outcome_does_not_count():
    truth, scores = drawn()
    truth[:, 1] = 0
    expected = numpy.mean([roc_auc_score(truth[:, k], scores[:, k]) for k in (0, 2)])
    assert area_statistics(truth, scores).estimate() == pytest.approx(expected)
    assert math.isnan(area_statistics(truth[:, 1:2], scores[:, 1:2]).estimate())


def test_the_interval_of_the_area_is_as_wide_as_by_resampling_anew():
    truth, scores = drawn(studies=150, classes=1)
    measure = area_statistics(truth, scores)
    interval = bootstrap_intervals({"auc": measure}, numpy_stream(0, "x"), 1000)["auc"]
    draw, anew = numpy.random.default_rng(0), []
    for _ in range(400):
        rows = draw.integers(0, 150, 150)
        anew.append(roc_auc_score(truth[rows, 0], scores[rows, 0]))
    low, high = numpy.quantile(anew, [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.02) and interval.high == pytest.approx(high, abs=0.02)


def test_two_methods_and_several_seeds_are_compared():
    truth, scores = drawn(studies=100)
    good, bad = (area_statistics(truth, truth + numpy.random.default_rng(1).normal(0, s, truth.shape)) for s in (1, 9))
    assert exchange_test(good, bad, numpy_stream(0, "x"), 300) < 0.05
    assert exchange_test(good, good, numpy_stream(0, "x"), 300) == 1
    assert pooled_seeds([good, bad]).estimate() == pytest.approx((good.estimate() + bad.estimate()) / 2)


def test_balanced_accuracy_is_scikit_learn_s():
    draw = numpy.random.default_rng(0)
    right, said = draw.integers(0, 4, (2, 50))
    one = numpy.eye(5, dtype=int)
    found = recall_statistics(one[right], one[said], several=False).estimate()
    assert found == pytest.approx(balanced_accuracy_score(right, said))
    truth, scores = drawn()
    chosen = (scores > 0.5).astype(int)
    expected = numpy.mean([balanced_accuracy_score(truth[:, k], chosen[:, k]) for k in range(3)])
    assert recall_statistics(truth, chosen, several=True).estimate() == pytest.approx(expected)


def test_masks_overlap_and_lie_apart():
    found, truth = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    found[..., 4:12, 4:12], truth[..., 4:12, 8:16] = 1, 1
    assert dice(found, truth).item() == pytest.approx(0.5)
    assert hausdorff95(found, truth).item() == pytest.approx(4)
    assert hausdorff95(found, found).item() == 0


def test_the_rule_for_empty_masks_is_in_the_name_and_holds():
    empty, full = torch.zeros(1, 1, 4, 5), torch.ones(1, 1, 4, 5)
    assert (DICE, HAUSDORFF) == ("dice_empty_1", "hausdorff95_empty_diagonal")
    assert dice(empty, empty).item() == 1 and hausdorff95(empty, empty).item() == 0
    for one, other in ((empty, full), (full, empty)):
        assert dice(one, other).item() == 0 and hausdorff95(one, other).item() == pytest.approx(5)


def test_a_blank_measure_is_declared_as_such():
    truth = ["1 0", "1 0"]
    rows = pandas.DataFrame({"kind": "several", "truth": truth, "chosen": truth, "probability": truth, "accuracy": 1.0})
    found = {key: each.estimate() for key, each in DECLARED.statistics(rows).items()}
    assert math.isnan(found["auc"]) and math.isnan(found["balanced_accuracy"]) and found["accuracy"] == 1
    assert all(any(key.startswith(name) for name in DECLARED.blank) for key in found)
