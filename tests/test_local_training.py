"""One client's update: it learns, repeats to the byte, keeps what is personal, and resumes its optimiser."""

import numpy
import pytest
import torch
from small_model import PROFILE, small_model, small_studies

from fedmrg_core.prompts import classification_loss
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.tasks.reports.local_training import (
    ClientBatches,
    HospitalState,
    first_state,
    train_client,
    validate_client,
)
from fedmrg_core.training.batch_statistics import is_statistic

pytestmark = pytest.mark.numerical

METHOD = load_method("fedmrg")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("base") / "models")


@pytest.fixture(scope="module")
def start(model):
    return {name: tensor.clone() for name, tensor in model.state(Ownership.SHARED).items()}


def train(model, shared, state=None, round_number=1, prototypes=None, method=METHOD):
    return train_client(
        model, small_studies(), shared, state, prototypes or {}, client="a", round_number=round_number,
        profile=PROFILE, method=method, seed=0, progress=False,
    )  # fmt: skip


def test_update_repeats_to_the_byte(model, start):
    first, again = train(model, start), train(model, start)
    assert first.metrics == again.metrics
    for one, other in ((first.shared, again.shared), (first.state.tensors, again.state.tensors)):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_progress_bar_changes_nothing(model, start):
    arguments = {"client": "a", "round_number": 2, "profile": PROFILE, "method": METHOD, "seed": 0}
    with_bar = train_client(model, small_studies(), start, None, {}, progress=True, **arguments)
    without = train_client(model, small_studies(), start, None, {}, progress=False, **arguments)
    assert all(torch.equal(with_bar.shared[name], without.shared[name]) for name in start)


def test_every_epoch_holds_every_study_once(model):
    batches = ClientBatches(model, small_studies(21), PROFILE)
    first, second = (batches.shuffled(numpy.random.default_rng(seed)) for seed in (0, 1))
    assert sorted(i for batch in first for i in batch) == list(range(21)) and first != second
    assert min(map(len, first)) > 1


def test_every_shared_and_personal_tensor_moves(model, start):
    prototypes = {"a": torch.randn(32), "b": torch.randn(32)}
    update = train(model, start, prototypes=prototypes)
    update = train(model, update.shared, update.state, 2, prototypes)  # adapters' A moves once B is not zero
    still = [n for n, t in update.shared.items() if torch.equal(t, start[n])]
    assert all("prompt_table" in name for name in still)
    personal = update.state.part("personal")
    assert {key for key in personal if not is_statistic(key)} == model.initial_personal.keys()
    assert all(not torch.equal(personal[name], model.initial_personal[name]) for name in model.initial_personal)


def test_loss_falls_over_rounds(model, start):
    shared, state, losses = start, None, []
    for round_number in range(1, 4):
        update = train(model, shared, state, round_number)
        shared, state = update.shared, update.state
        losses.append(update.metrics["train_language"])
    assert losses[-1] < losses[0]


def test_optimiser_moments_are_kept_and_used(model, start):
    first = train(model, start)
    fresh = HospitalState({k: v for k, v in first.state.tensors.items() if not k.startswith("optimiser/")})
    with_moments, without = train(model, first.shared, first.state, 2), train(model, first.shared, fresh, 2)
    name = "diagnosis_head/weight"
    assert not torch.equal(with_moments.shared[name], without.shared[name])
    assert with_moments.state.tensors[f"optimiser/{name}/step"] == 2 * first.state.tensors[f"optimiser/{name}/step"]


def test_inter_client_term_waits_for_prototypes(model, start):
    assert "train_contrast_inter" not in train(model, start).metrics
    both = {"a": torch.randn(32), "b": torch.randn(32)}
    assert train(model, start, prototypes=both).metrics["train_contrast_inter"] > 0


def test_prototype_is_the_mean_feature_of_the_model_received(model, start):
    update = train(model, start)
    model.load_state(start)
    model.eval()
    with torch.no_grad():
        expected = model.features(small_studies().pixels).mean(dim=0)
    torch.testing.assert_close(update.prototype, expected, rtol=1e-4, atol=1e-5)


def test_validation_measures_and_moves_disease_weights(model, start):
    state = first_state(model, small_studies())
    measures, after = validate_client(model, small_studies(), start, state, client="a", profile=PROFILE, method=METHOD)
    assert measures["validation_language_loss"] == pytest.approx(
        (
            measures["validation_language_loss_generic_adapter"]
            + measures["validation_language_loss_specialised_adapter"]
        )
        / 2
    )
    assert 0 <= measures["validation_head_auroc"] <= 1
    assert after.tensors["disease_weights"].shape == (14,)
    assert {k for k in after.tensors} == {k for k in state.tensors}


def test_method_without_prompts_or_contrast(tmp_path):
    method = load_method("fed-lora")
    model = small_model(tmp_path / "models", method)
    update = train(model, {k: v.clone() for k, v in model.state(Ownership.SHARED).items()}, method=method)
    assert update.prototype is None and set(update.metrics) == {"train_language", "train_loss"}


def test_validation_loss_weighs_terms_as_training_does(model, start):
    state = first_state(model, small_studies())
    measures, _ = validate_client(model, small_studies(), start, state, client="a", profile=PROFILE, method=METHOD)
    language = sum(measures[f"validation_language_loss_{name}"] for name in model.adapters)
    diagnosis = METHOD.losses.classification * measures["validation_classification"]
    assert measures["validation_loss"] == pytest.approx(language + diagnosis)


def test_validation_measures_do_not_depend_on_the_order_of_reading(model, start):
    """Studies are read by length of their reports; the head is still held against each study's own states."""
    studies = small_studies(21)
    state = first_state(model, studies)
    measures, _ = validate_client(model, studies, start, state, client="a", profile=PROFILE, method=METHOD)
    with torch.no_grad():
        logits = model.eval().prefix(studies.images(range(21))).prompts.auxiliary["state_logits"]
    weights = state.tensors["disease_weights"]
    direct = classification_loss(logits, studies.states, weights, PROFILE.training.logit_adjustment)
    assert measures["validation_classification"] == pytest.approx(direct.item(), rel=1e-4)
