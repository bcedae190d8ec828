"""Client rules: each changes what it should and nothing else, and goes on from what the hospital kept."""

import math

import numpy
import pytest
import safetensors.torch
import torch
from small_model import PROFILE, small_model, small_studies

from fedmrg_core.runs.methods import ClientRule, Ownership, load_method
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.tasks.reports.fine_tuning import train_alone
from fedmrg_core.tasks.reports.local_training import train_client, validate_client
from fedmrg_core.tasks.reports.report_model import encoded_once
from fedmrg_core.training.client_rules import (
    ControlVariates,
    Proximal,
    initial_controls,
    moon_contrast,
    shared_parameters,
)
from fedmrg_core.training.client_state import HospitalState, without_controls
from fedmrg_core.training.client_update import fine_tuned
from fedmrg_core.training.training_steps import TrainingSteps, total_loss

pytestmark = pytest.mark.numerical

PLAIN = load_method("fed-lora")
STUDIES = small_studies()


def with_rule(method=PLAIN, **rule):
    return method.model_copy(update={"client": ClientRule(**rule)})


def with_training(**settings):
    return PROFILE.model_copy(update={"training": PROFILE.training.model_copy(update=settings)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("base") / "models"


@pytest.fixture(scope="module")
def model(folder):
    return small_model(folder, PLAIN)


@pytest.fixture(scope="module")
def start(model):
    return {name: tensor.clone() for name, tensor in model.state(Ownership.SHARED).items()}


def train(model, shared, state=None, round_number=1, method=PLAIN, profile=PROFILE, client="a", studies=STUDIES):
    return train_client(
        model, studies, shared, state, {}, client=client, round_number=round_number, profile=profile,
        method=method, seed=0, progress=False,
    )  # fmt: skip


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], keys) -> float:
    return sum((one[key] - other[key]).double().square().sum().item() for key in keys)


# ---- FedProx ----


def test_proximal_gradient_is_mu_times_the_distance(model, start):
    model.load_state(start)
    rule = Proximal(model, 0.3)
    parameters = shared_parameters(model)
    with torch.no_grad():
        for number, parameter in enumerate(parameters.values()):
            parameter += 0.01 * (number + 1)
    model.zero_grad()
    value = rule.terms(None, [])["proximal"]
    (rule.weight * value).backward()
    by_hand = sum((0.01 * (number + 1)) ** 2 * p.numel() for number, p in enumerate(parameters.values())) / 2
    assert value.item() == pytest.approx(by_hand, rel=1e-4)
    for key, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, 0.3 * (parameter.detach() - start[key]))
    model.zero_grad()


def test_proximal_holds_the_update_back(model, start):
    free, held = train(model, start), train(model, start, method=with_rule(proximal=1000.0))
    keys = shared_parameters(model)
    assert held.metrics["train_proximal"] > 0
    assert distance(held.shared, start, keys) < 0.5 * distance(free.shared, start, keys)
    assert held.state.tensors.keys() == free.state.tensors.keys()


def test_personal_modules_are_not_pulled(folder):
    model = small_model(folder, "fedper")
    assert all(key.startswith(("encoder/", "projection/")) for key in shared_parameters(model))
    assert len(Proximal(model, 1.0).pairs) == len(shared_parameters(model))


# ---- MOON ----


def test_moon_against_the_formula():
    generator = torch.Generator().manual_seed(0)
    h, near, far = (torch.randn(5, 7, generator=generator) for _ in range(3))
    losses = []
    for row in range(5):
        a, b = (
            sum(x * y for x, y in zip(h[row].tolist(), other[row].tolist(), strict=True))
            / math.sqrt(sum(x * x for x in h[row].tolist()) * sum(y * y for y in other[row].tolist()))
            for other in (near, far)
        )
        losses.append(-math.log(math.exp(a / 0.5) / (math.exp(a / 0.5) + math.exp(b / 0.5))))
    assert moon_contrast(h, near, far, 0.5).item() == pytest.approx(sum(losses) / 5, rel=1e-5)


def test_moon_waits_for_a_last_local_model(model, start):
    method = with_rule(moon=1.0)
    first, plain = train(model, start, method=method), train(model, start)
    assert "train_model_contrast" not in first.metrics and same(first.shared, plain.shared)
    kept = first.state.part("previous")
    assert kept.keys() == {key for key in start if key.startswith(("encoder/", "projection/"))}
    assert all(torch.equal(tensor, first.shared[key]) for key, tensor in kept.items())
    second = train(model, start, first.state, 2, method)
    without = train(model, start, plain.state, 2)
    assert second.metrics["train_model_contrast"] > 0
    assert not torch.equal(second.shared["projection/0.weight"], without.shared["projection/0.weight"])


def test_moon_compares_with_server_model_and_last_local_model(model, start):
    """A value of the term before the first step, from features made apart from the rule."""
    method = with_rule(moon=1.0)
    still = with_training(batch_size=10, learning_rate=1e-12, adapter_learning_rate=1e-12, image_shift=0)
    first = train(model, start, method=method)
    update = train(model, start, first.state, 2, method, still)
    features = []
    received = {**start, **first.state.part("personal")}  # with the client's own BatchNorm statistics
    for tensors in (received, {**start, **first.state.part("previous")}):
        model.load_state(tensors)
        features.append(ClientBatches(model, STUDIES, still).features(model))
    model.load_state(start)
    model.train()
    with torch.no_grad():
        h = model.features(STUDIES.pixels)
    expected = moon_contrast(h, *features, method.client.moon_temperature)
    assert update.metrics["train_model_contrast"] == pytest.approx(expected.item(), rel=1e-4)


def test_a_batch_is_encoded_once(model):
    images, calls = STUDIES.pixels[:4], []
    plain = type(model.encoder).forward
    handle = model.encoder.backbone.register_forward_hook(lambda *_: calls.append(1))
    with encoded_once(model.encoder):
        assert model.encoder(images) is model.encoder(images)
        model.encoder(STUDIES.pixels[4:])
    handle.remove()
    assert len(calls) == 2 and model.encoder.forward.__func__ is plain


# ---- SCAFFOLD ----

SCAFFOLD = with_rule(control_variates=True)


def test_first_round_is_plain_and_leaves_the_control(model, start):
    received = start | initial_controls(model)
    update, plain = train(model, received, method=SCAFFOLD), train(model, start)
    assert update.shared.keys() == received.keys()
    assert same(without_controls(update.shared), plain.shared)
    control = update.state.part("control")
    assert control.keys() == shared_parameters(model).keys()
    assert all(torch.equal(tensor, update.shared[f"control/{key}"]) for key, tensor in control.items())


def test_control_is_the_mean_raw_gradient(model, start):
    """One batch, one step: the control is that step's gradient, before it is clipped."""
    whole = with_training(batch_size=10, image_shift=0, gradient_clip=1e-3)
    update = train(model, start | initial_controls(model), method=SCAFFOLD, profile=whole)
    model.load_state(start)
    model.train()
    batch = ClientBatches(model, STUDIES, whole).batch(range(10))
    model.zero_grad()
    total_loss(model.loss_terms(batch, PLAIN.losses, torch.ones(14), None), PLAIN.losses).backward()
    for key, parameter in shared_parameters(model).items():
        torch.testing.assert_close(update.state.part("control")[key], parameter.grad, rtol=1e-3, atol=1e-5)
    model.zero_grad()


def test_gradients_are_corrected_by_the_difference_of_the_controls(model, start):
    model.load_state(start)
    parameters = shared_parameters(model)
    received = {f"control/{key}": torch.full_like(p, 0.5) for key, p in parameters.items()}
    own = {f"control/{key}": torch.full_like(p, 0.2) for key, p in parameters.items()}
    rule = ControlVariates(model, HospitalState(own), received)
    for step in (1.0, 3.0):
        for parameter in parameters.values():
            parameter.grad = torch.full_like(parameter, step)
        rule.correct_gradients()
        assert all(torch.allclose(p.grad, torch.tensor(step + 0.3)) for p in parameters.values())
    assert all(torch.allclose(tensor, torch.tensor(2.0)) for tensor in rule.sent().values())
    model.zero_grad()


def test_equal_controls_change_nothing(model, start):
    first = train(model, start | initial_controls(model), method=SCAFFOLD)
    plain_first = train(model, start)
    equal = start | {f"control/{key}": tensor for key, tensor in first.state.part("control").items()}
    plain = train(model, start, plain_first.state, 2)
    assert same(without_controls(train(model, equal, first.state, 2, SCAFFOLD).shared), plain.shared)
    other = start | initial_controls(model)
    assert not same(without_controls(train(model, other, first.state, 2, SCAFFOLD).shared), plain.shared)


def test_validation_takes_no_notice_of_controls(model, start):
    state = train(model, start).state
    arguments = {"client": "a", "profile": PROFILE, "method": PLAIN}
    plain, _ = validate_client(model, STUDIES, start, state, **arguments)
    assert validate_client(model, STUDIES, start | initial_controls(model), state, **arguments)[0] == plain


# ---- FedRep ----


def test_alternating_trains_personal_then_shared(folder, monkeypatch):
    method = load_method("fedrep")
    model = small_model(folder, method)
    moved = []
    plain_step = TrainingSteps.step

    def step(self, indices, stream):
        before = {owner: {k: t.clone() for k, t in model.state(owner).items()} for owner in list(Ownership)[:2]}
        loss = plain_step(self, indices, stream)
        moved.append({owner for owner, tensors in before.items() if not same(tensors, model.state(owner))})
        return loss

    monkeypatch.setattr(TrainingSteps, "step", step)
    twice = with_training(local_epochs=2)
    train(model, {k: v.clone() for k, v in model.state(Ownership.SHARED).items()}, method=method, profile=twice)
    half = len(moved) // 2
    assert moved == [{Ownership.PERSONAL}] * half + [{Ownership.SHARED}] * half
    batches = ClientBatches(model, STUDIES, twice)
    assert half == 2 * len(batches.shuffled(numpy.random.default_rng(0)))
    assert all(parameter.requires_grad for parameter in model.trainable().values())


# ---- what comes after, and what is called ----


def test_fine_tuning_moves_everything_and_repeats(model, start):
    method = with_rule(fine_tuning_epochs=2)

    def tuned_on(studies, client):
        stream = ("fine-tuning", client)
        settings = {"stream": stream, "profile": PROFILE, "method": method, "seed": 0}
        return fine_tuned(model, given, 2, lambda plan: train_alone(model, studies, plan, **settings))

    given = {name: tensor.clone() for name, tensor in start.items()}
    tuned, other = tuned_on(STUDIES, "a"), tuned_on(small_studies(seed=3), "b")
    assert same(given, start) and tuned.keys() == start.keys()
    assert all(not torch.equal(tuned[key], start[key]) for key in start if not key.endswith("lora_A"))
    assert not same(tuned, other)
    assert same(tuned, tuned_on(STUDIES, "a"))


def test_the_model_is_told_of_the_round_and_of_every_step(model, start, monkeypatch):
    told = []
    monkeypatch.setattr(
        model, "remember_shared", lambda: told.append(same(dict(model.state(Ownership.SHARED)), start)), raising=False
    )
    monkeypatch.setattr(model, "after_step", told.append)
    train(model, start, round_number=2)
    assert told == [True] + [pytest.approx((1 + step / 3) / 3) for step in (1, 2, 3)]


def test_a_hospital_without_anything_shared_trains_on(folder):
    method = load_method("local")
    model = small_model(folder, method)
    first = train(model, {}, method=method)
    second = train(model, {}, first.state, 2, method)
    assert first.shared == second.shared == {}
    assert not same(first.state.part("personal"), second.state.part("personal"))
    measures, _ = validate_client(model, STUDIES, {}, second.state, client="a", profile=PROFILE, method=method)
    assert math.isfinite(measures["validation_loss"])


RESUMED = [
    "fedmrg", "fedprox", "moon", "scaffold", "fedrep", "feddat", "fed-adalora", "fed-prompt", "fedsa-lora", "r2gen",
    "dcl",
]  # fmt: skip


@pytest.mark.parametrize("name", RESUMED)
def test_an_update_depends_on_its_arguments_alone(folder, tmp_path, name):
    """Killed after a round, the state read back from disk, another hospital in between: the same bytes."""
    method = load_method(name)
    model = small_model(folder, method)
    shared = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    shared |= initial_controls(model) if method.client.control_variates else {}
    first = train(model, shared, method=method)
    second = train(model, first.shared, first.state, 2, method)
    safetensors.torch.save_file(first.state.tensors, tmp_path / "state.safetensors")
    state = HospitalState(safetensors.torch.load_file(tmp_path / "state.safetensors"))
    torch.manual_seed(99)
    train(model, first.shared, None, 2, method, client="b", studies=small_studies(seed=5))
    again = train(model, first.shared, state, 2, method)
    assert same(again.shared, second.shared) and same(again.state.tensors, second.state.tensors)
    assert again.metrics == second.metrics
    fresh = train(small_model(folder, method), first.shared, state, 2, method)  # another process
    assert same(fresh.shared, second.shared) and same(fresh.state.tensors, second.state.tensors)
