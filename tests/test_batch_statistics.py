"""BatchNorm statistics: own ones at home, pooled ones for strangers."""

from __future__ import annotations

import pathlib

import pytest
import torch
from federation_fake import EXAMPLES, FakeTask, fake_configuration, last_shared
from small_model import PROFILE, small_model, small_studies

from fedmrg_core.federation.run import run_federation
from fedmrg_core.runs.methods import Ownership, ServerRule, load_method
from fedmrg_core.tasks.reports.local_training import train_client, validate_client
from fedmrg_core.training.batch_statistics import is_statistic, pooled_statistics

pytestmark = pytest.mark.numerical


def test_pooled_statistics_are_those_of_all_samples_together() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = [3 * k + (k + 1) * torch.randn(n, 4, generator=generator) for k, n in enumerate((20, 50, 30))]
    clients = [
        {"e/n.running_mean": x.mean(0), "e/n.running_var": x.var(0, correction=0), "e/n.weight": x[0]} for x in samples
    ]
    found = pooled_statistics(clients, [0.2, 0.5, 0.3])
    together = torch.cat(samples)
    assert found.keys() == {"e/n.running_mean", "e/n.running_var"}
    torch.testing.assert_close(found["e/n.running_mean"], together.mean(0))
    torch.testing.assert_close(found["e/n.running_var"], together.var(0, correction=0))


@pytest.mark.parametrize("rule", [ServerRule(), ServerRule(rule="fedadam"), ServerRule(rule="exact-lora")])
def test_the_server_pools_them_under_every_rule(
    rule: ServerRule,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    updates: list,
) -> None:
    initial = FakeTask.initial_shared
    added = {"encoder/norm.running_mean": torch.zeros(3), "encoder/norm.running_var": torch.full((3,), 2.0)}
    monkeypatch.setattr(FakeTask, "initial_shared", lambda self: initial(self) | added)
    monkeypatch.setattr(FakeTask, "shared_buffers", lambda self: set(added) | {"encoder/stage.variance"})
    run_federation(tmp_path, fake_configuration(rounds=1, server=rule), progress=False)
    weights = torch.tensor(list(EXAMPLES.values())).double() / sum(EXAMPLES.values())
    means, variances = (torch.stack([torch.as_tensor(u[key]) for u in updates]) for key in added)
    mean = (weights[:, None] * means).sum(0)
    between = (weights[:, None] * (means - mean) ** 2).sum(0)
    shared = last_shared(tmp_path)
    torch.testing.assert_close(shared["encoder/norm.running_mean"], mean.float())
    torch.testing.assert_close(
        shared["encoder/norm.running_var"], ((weights[:, None] * variances).sum(0) + between).float()
    )
    assert (between > 0).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    model = small_model(tmp_path_factory.mktemp("base") / "models", "fed-lora")
    initial = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    settings = {"client": "a", "profile": PROFILE, "method": load_method("fed-lora")}
    update = train_client(model, small_studies(), initial, None, {}, round_number=1, seed=0, progress=False, **settings)
    return model, initial, update, settings


def test_a_client_keeps_its_own_and_sends_them_too(trained: tuple) -> None:
    model, initial, update, _ = trained
    own = update.state.part("personal")
    assert own and all(map(is_statistic, own))  # fed-lora has no personal module
    for key, tensor in own.items():
        assert torch.equal(tensor, update.shared[key]) and not torch.equal(tensor, initial[key])


def test_a_client_may_keep_none(trained: tuple) -> None:
    model, initial, update, settings = trained
    profile = PROFILE.model_copy(update={"training": PROFILE.training.model_copy(update={"own_statistics": False})})
    settings = settings | {"profile": profile}
    pooled = train_client(model, small_studies(), initial, None, {}, round_number=1, seed=0, progress=False, **settings)
    assert not pooled.state.part("personal")
    assert all(torch.equal(pooled.shared[key], update.shared[key]) for key in update.shared)
    strangers = {key: t + 5.0 if is_statistic(key) else t for key, t in update.shared.items()}
    there, _ = validate_client(model, small_studies(seed=1), strangers, pooled.state, **settings)
    here, _ = validate_client(model, small_studies(seed=1), update.shared, pooled.state, **settings)
    assert there != here


def test_at_home_the_shared_weights_are_read_with_the_clients_own_statistics(trained: tuple) -> None:
    model, _, update, settings = trained
    strangers = {key: t + 5.0 if is_statistic(key) else t for key, t in update.shared.items()}
    at_home, _ = validate_client(model, small_studies(seed=1), strangers, update.state, **settings)
    same, _ = validate_client(model, small_studies(seed=1), update.shared, update.state, **settings)
    assert at_home == same
    bare = type(update.state)({k: t for k, t in update.state.tensors.items() if not k.startswith("personal/")})
    without, _ = validate_client(model, small_studies(seed=1), strangers, bare, **settings)
    assert without != same
