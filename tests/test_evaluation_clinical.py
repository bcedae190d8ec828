"""Clinical measures against scikit-learn."""

from __future__ import annotations

import warnings

import numpy
import pytest
from scores import score_states
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score

from fedmrg_core.data.findings import FINDINGS, POSITIVE, UNCERTAIN
from fedmrg_core.errors import InputError
from fedmrg_core.metrics.clinical import (
    CHEXPERT_FIVE,
    FINDING_SETS,
    UNCERTAIN_POLICIES,
    head_auroc,
    is_positive,
    states_f1_micro,
)

SCORERS = {"precision": precision_score, "recall": recall_score, "f1": f1_score}


@pytest.fixture
def states():
    generator = numpy.random.default_rng(7)
    reference, generated = generator.choice(4, size=(2, 60, 14), p=[0.5, 0.2, 0.15, 0.15])
    generated[:5] = 0  # studies without any positive finding, and a finding nobody has
    reference[3:8] = 0
    reference[:, 6] = generated[:, 6] = 2
    return reference, generated


@pytest.mark.parametrize("uncertain", UNCERTAIN_POLICIES)
@pytest.mark.parametrize("size", FINDING_SETS)
def test_parity_with_scikit_learn(states, uncertain, size):
    columns = [FINDINGS.index(name) for name in FINDING_SETS[size]]
    keep = {POSITIVE, UNCERTAIN} if uncertain == "positive" else {POSITIVE}
    true, predicted = (numpy.isin(side[:, columns], list(keep)) for side in states)
    scores = score_states(*states)
    for measure, scorer in SCORERS.items():
        for ours, theirs in (("example", "samples"), ("micro", "micro"), ("macro", "macro")):
            expected = scorer(true, predicted, average=theirs, zero_division=0)
            assert scores[f"clinical_{measure}_{ours}_{size}_uncertain_{uncertain}"] == pytest.approx(expected)


def test_keys_and_known_case():
    reference, generated = numpy.zeros((2, 14), int), numpy.zeros((2, 14), int)
    reference[0, 1] = POSITIVE
    generated[0, 1] = UNCERTAIN
    scores = score_states(reference, generated)
    assert len(scores) == 36
    assert scores["clinical_f1_example_14_uncertain_negative"] == 0.0
    assert scores["clinical_f1_example_14_uncertain_positive"] == 0.5  # the second study, 0 / 0, counts as 0
    assert scores["clinical_f1_micro_5_uncertain_positive"] == 1.0
    assert scores["clinical_f1_macro_5_uncertain_positive"] == pytest.approx(1 / 5)


def test_perfect_prediction_and_order_of_studies(states):
    reference, generated = states
    perfect = score_states(reference, reference)
    assert perfect["clinical_f1_micro_14_uncertain_negative"] == 1.0
    order = numpy.random.default_rng(0).permutation(len(reference))
    assert score_states(reference[order], generated[order]) == pytest.approx(score_states(reference, generated))


def test_states_f1_micro(states):
    assert states_f1_micro(states[1], states[0]) == score_states(*states)["clinical_f1_micro_14_uncertain_negative"]


def test_head_auroc(states):
    reference, _ = states
    probabilities = numpy.random.default_rng(1).dirichlet(numpy.ones(4), size=reference.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = head_auroc(probabilities, reference)
    assert [finding for finding, value in found.items() if numpy.isnan(value)] == ["pneumonia"]
    assert found["cardiomegaly"] == pytest.approx(
        roc_auc_score(reference[:, 1] == POSITIVE, probabilities[:, 1, POSITIVE])
    )
    assert head_auroc(probabilities[..., POSITIVE], reference) == pytest.approx(found, nan_ok=True)
    both = head_auroc(probabilities, reference, "positive")["edema"]
    edema = FINDINGS.index("edema")
    expected = roc_auc_score(
        is_positive(reference[:, edema], "positive"), probabilities[:, edema, [POSITIVE, UNCERTAIN]].sum(-1)
    )
    assert both == pytest.approx(expected)
    perfect = head_auroc(numpy.eye(4)[reference], reference)
    assert all(value == 1.0 for name, value in perfect.items() if name != "pneumonia")


@pytest.mark.parametrize(
    ("reference", "generated", "named"),
    [
        (numpy.zeros((2, 14)), numpy.zeros((1, 14)), "2 rows"),
        (numpy.zeros((0, 14)), numpy.zeros((0, 14)), "no studies"),
        (numpy.zeros((2, 13)), numpy.zeros((2, 13)), r"shape \(2, 13\)"),
        (numpy.zeros((2, 14)), numpy.full((2, 14), 4), "states_generated row 0 has state 4"),
    ],
)
def test_bad_states_are_named(reference, generated, named):
    with pytest.raises(InputError, match=named):
        score_states(reference, generated)


def test_bad_probabilities_and_policy_are_named(states):
    reference, generated = states
    with pytest.raises(InputError, match="probabilities has shape"):
        head_auroc(numpy.zeros((3, 14)), reference)
    with pytest.raises(InputError, match="row 2 is not finite"):
        scores = numpy.zeros(reference.shape)
        scores[2, 3] = numpy.nan
        head_auroc(scores, reference)
    with pytest.raises(InputError, match="uncertain is 'maybe'"):
        states_f1_micro(generated, reference, "maybe")


def test_the_five_are_findings():
    assert len(CHEXPERT_FIVE) == 5 and set(CHEXPERT_FIVE) < set(FINDINGS)


def test_without_a_positive_reference_there_is_nothing_to_find():
    """Blank, whatever was generated; a finding that some reference has keeps its 0 for 0 / 0 in averages."""
    blank, some = numpy.zeros((3, len(FINDINGS)), int), numpy.zeros((3, len(FINDINGS)), int)
    some[0, FINDINGS.index("fracture")] = POSITIVE
    for generated in (blank, some):
        assert all(numpy.isnan(value) for value in score_states(blank, generated).values())
    scores = score_states(some, blank)
    assert scores["clinical_f1_micro_14_uncertain_negative"] == 0.0
    assert numpy.isnan(scores["clinical_f1_micro_5_uncertain_positive"])  # no fracture among the five
