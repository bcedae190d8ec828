"""Diagnosis prompts: the look-up, the adjusted loss, and the disease weights, each against a direct computation."""

import math

import pytest
import torch

from fedmrg_core.data.findings import BLANK, FINDINGS, POSITIVE, STATES
from fedmrg_core.data.labeller import label_report
from fedmrg_core.prompts import (
    SMALLEST_DISEASE_WEIGHT,
    DiagnosisPrompts,
    NoPrompts,
    classification_loss,
    consistent_states,
    initial_disease_weights,
    updated_disease_weights,
)

pytestmark = pytest.mark.numerical


def source(width: int = 6) -> DiagnosisPrompts:
    return DiagnosisPrompts(5, torch.randn(len(FINDINGS) * len(STATES), width))


def test_given_states_look_up_their_rows():
    prompts = source()
    states = torch.randint(0, 4, (3, 14))
    out = prompts(torch.zeros(3, 2, 6), torch.randn(3, 5), states)
    assert out.prompts.shape == (3, 14, 6)
    for b in range(3):
        for n in range(14):
            torch.testing.assert_close(out.prompts[b, n], prompts.table.weight[n * 4 + states[b, n]])


def test_without_states_the_most_likely_are_used():
    prompts = source()
    out = prompts(torch.zeros(3, 2, 6), torch.randn(3, 5))
    most_likely = out.auxiliary["state_logits"].argmax(-1)
    assert torch.equal(out.auxiliary["states"], consistent_states(most_likely))
    assert torch.equal(out.auxiliary["states"][:, :-1], most_likely[:, :-1])


@pytest.mark.parametrize(
    "report",
    [
        "The lungs are clear.",
        "No pneumothorax. A left chest wall pacemaker.",
        "Possible right basal consolidation.",
        "There is cardiomegaly. Endotracheal tube.",
    ],
)
def test_predicted_states_agree_on_no_finding_as_the_labeller_defines_it(report):
    true = torch.tensor([label_report(report)])
    for said in range(len(STATES)):  # whatever the head says of it
        contradicted = true.clone()
        contradicted[:, -1] = said
        assert torch.equal(consistent_states(contradicted), true) and contradicted[0, -1] == said
    assert true[0, -1] in (BLANK, POSITIVE)


def test_no_prompts_is_empty():
    assert NoPrompts()(torch.zeros(3, 2, 6), torch.zeros(3, 5)).prompts.shape == (3, 0, 6)


def test_classification_loss_by_hand():
    logits = torch.randn(2, 14, 4, dtype=torch.float64)
    states, weights = torch.randint(0, 4, (2, 14)), torch.rand(14, dtype=torch.float64) * 0.9 + 0.1
    expected = 0.0
    for b in range(2):
        for n in range(14):
            row = logits[b, n].tolist()
            row[POSITIVE] += math.log(weights[n])
            expected -= math.log(math.exp(row[states[b, n]]) / sum(map(math.exp, row))) / 28
    assert classification_loss(logits, states, weights).item() == pytest.approx(expected, rel=1e-9)


def test_classification_gradient_against_finite_differences():
    logits = torch.randn(1, 14, 4, dtype=torch.float64, requires_grad=True)
    states, weights = torch.randint(0, 4, (1, 14)), torch.rand(14, dtype=torch.float64) * 0.9 + 0.1
    assert torch.autograd.gradcheck(lambda x: classification_loss(x, states, weights), logits)


def test_initial_weights_are_base_rates_over_the_largest():
    states = torch.zeros(10, 14, dtype=torch.long)
    states[:8, 0], states[:2, 1] = POSITIVE, POSITIVE
    weights = initial_disease_weights(states)
    assert weights[0] == 1 and weights[1] == pytest.approx(0.25)
    assert (weights[2:] == SMALLEST_DISEASE_WEIGHT).all()


def test_updated_weights_move_halfway_to_relative_f1():
    states = torch.zeros(4, 14, dtype=torch.long)
    states[:2, 0] = states[:2, 1] = POSITIVE
    predicted = states.clone()
    predicted[0, 1] = 0  # finding 1: one hit, one miss, F1 = 2/3
    new = updated_disease_weights(torch.full((14,), 0.5), predicted, states)
    assert new[0] == pytest.approx(0.75) and new[1] == pytest.approx((0.5 + 2 / 3) / 2, rel=1e-6)
    assert (new[2:] == 0.5).all()  # never met in validation: kept


def test_soft_prompts_are_means_under_the_predicted_probabilities():
    prompts = DiagnosisPrompts(5, torch.randn(len(FINDINGS) * len(STATES), 6), soft=True)
    pooled, states = torch.randn(2, 5), torch.randint(0, 4, (2, 14))
    out, inferred = prompts(torch.zeros(2, 2, 6), pooled, states), prompts(torch.zeros(2, 2, 6), pooled)
    for b in range(2):
        for n in range(14):
            logits = (prompts.head.weight @ pooled[b] + prompts.head.bias)[n * 4 : n * 4 + 4].tolist()
            weights = [math.exp(v) / sum(map(math.exp, logits)) for v in logits]
            mean = sum(w * prompts.table.weight[n * 4 + s] for s, w in enumerate(weights))
            torch.testing.assert_close(out.prompts[b, n], mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(out.prompts, inferred.prompts)  # true states make no difference
    assert torch.equal(out.auxiliary["states"], states)
    assert torch.equal(inferred.auxiliary["states"], consistent_states(inferred.auxiliary["state_logits"].argmax(-1)))


def test_the_head_learns_through_soft_prompts_and_not_through_hard_ones():
    for soft in (True, False):
        prompts = DiagnosisPrompts(5, torch.randn(len(FINDINGS) * len(STATES), 6), soft=soft)
        prompts(torch.zeros(3, 2, 6), torch.randn(3, 5), torch.randint(0, 4, (3, 14))).prompts.square().sum().backward()
        assert (prompts.head.weight.grad is not None) == soft
        assert prompts.table.weight.grad.any()


def test_a_share_of_the_studies_is_prompted_with_predicted_states_in_training_only():
    prompts = DiagnosisPrompts(5, torch.randn(len(FINDINGS) * len(STATES), 6), predicted_share=0.25).train()
    pooled, true = torch.randn(4000, 5), torch.full((4000, 14), 3)  # a state that is never predicted of "no finding"
    used = prompts(torch.zeros(4000, 2, 6), pooled, true).auxiliary["states"]
    given = (used == true).all(dim=1)
    assert (~given).float().mean() == pytest.approx(0.25, abs=0.03)
    predicted = prompts(torch.zeros(4000, 2, 6), pooled).auxiliary["states"]
    assert torch.equal(used[~given], predicted[~given])
    assert torch.equal(prompts.eval()(torch.zeros(4000, 2, 6), pooled, true).auxiliary["states"], true)
