"""The server's rules against their formulas; partial participation; runs with nothing to share and with one client."""

from __future__ import annotations

import pathlib
import types

import numpy
import pandas
import pytest
import safetensors.torch
import torch
from federation_fake import (
    EXAMPLES,
    FakeHospital,
    FakeTask,
    everything,
    fake_configuration,
    last_shared,
    server_json,
)

from fedmrg_core.federation import hospital
from fedmrg_core.federation.messages import to_record
from fedmrg_core.federation.rounds import TooFewClients, sampled_clients
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.server_rules import factorised_mean, make_strategy
from fedmrg_core.runs.methods import ServerRule

RULES = {
    "fedavg": ServerRule(),
    "fedavgm": ServerRule(rule="fedavgm", momentum=0.5, learning_rate=0.7),
    "fedadam": ServerRule(rule="fedadam", learning_rate=0.05, tau=0.01),
    "exact-lora": ServerRule(rule="exact-lora"),
}
BUFFER = "encoder/stage.variance"
WEIGHTS = numpy.array(list(EXAMPLES.values())) / sum(EXAMPLES.values())


def mean(updates: list[dict[str, numpy.ndarray]], round_number: int, key: str) -> numpy.ndarray:
    return sum(w * update[key] for w, update in zip(WEIGHTS, updates[3 * round_number - 3 :][:3], strict=True))


@pytest.mark.numerical
@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_ends_with_the_same_bytes(rule: str, tmp_path: pathlib.Path) -> None:
    configuration = fake_configuration(rounds=4, server=RULES[rule])
    run_federation(tmp_path / "whole", configuration, progress=False)
    run_federation(tmp_path / "halves", configuration, stop_after_round=2, progress=False)
    run_federation(tmp_path / "halves", configuration, progress=False)
    assert everything(tmp_path / "halves") == everything(tmp_path / "whole")


@pytest.mark.numerical
def test_fedavgm_is_its_formula(tmp_path: pathlib.Path, updates: list) -> None:
    configuration = fake_configuration(rounds=4, server=RULES["fedavgm"])
    run_federation(tmp_path, configuration, progress=False)
    for key, start in FakeTask(tmp_path, configuration).initial_shared().items():
        x, v = start.double().numpy(), 0.0
        for round_number in range(1, 5):
            average = mean(updates, round_number, key)
            v = 0.5 * v + (x - average)
            x = average if key == BUFFER else x - 0.7 * v
        numpy.testing.assert_allclose(last_shared(tmp_path)[key].numpy(), x, rtol=1e-5, atol=1e-6, err_msg=key)


@pytest.mark.numerical
def test_fedadam_is_its_formula(tmp_path: pathlib.Path, updates: list) -> None:
    """With Flower's bias correction, which counts from round 2."""
    configuration = fake_configuration(rounds=4, server=RULES["fedadam"])
    run_federation(tmp_path, configuration, progress=False)
    for key, start in FakeTask(tmp_path, configuration).initial_shared().items():
        x, m, v = start.double().numpy(), 0.0, 0.0
        for t in range(1, 5):
            average = mean(updates, t, key)
            m = 0.9 * m + 0.1 * (average - x)
            v = 0.99 * v + 0.01 * (average - x) ** 2
            rate = 0.05 * numpy.sqrt(1 - 0.99 ** (t + 1)) / (1 - 0.9 ** (t + 1))
            x = average if key == BUFFER else x + rate * m / (numpy.sqrt(v) + 0.01)
        found = last_shared(tmp_path)[key]
        assert found.dtype == torch.float32
        numpy.testing.assert_allclose(found.numpy(), x, rtol=1e-5, atol=1e-6, err_msg=key)


def test_a_variance_stays_positive_under_a_server_optimiser(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = ServerRule(rule="fedadam", learning_rate=2.0)
    run_federation(tmp_path / "plain", fake_configuration(server=rule), progress=False)
    assert (last_shared(tmp_path / "plain")[BUFFER] > 0).all()
    monkeypatch.setattr(FakeTask, "shared_buffers", lambda self: set())
    run_federation(tmp_path / "optimised", fake_configuration(server=rule), progress=False)
    assert not torch.equal(last_shared(tmp_path / "plain")[BUFFER], last_shared(tmp_path / "optimised")[BUFFER])


@pytest.mark.numerical
def test_exact_lora_factorises_the_mean_product(tmp_path: pathlib.Path, updates: list) -> None:
    run_federation(tmp_path, fake_configuration(rounds=1, server=RULES["exact-lora"]), progress=False)
    b, a = (last_shared(tmp_path)[f"generic_adapter/lora_{factor}"].double().numpy() for factor in "BA")
    products = [update["generic_adapter/lora_B"] @ update["generic_adapter/lora_A"] for update in updates]
    u, s, vh = numpy.linalg.svd(sum(w * product for w, product in zip(WEIGHTS, products, strict=True)))
    assert s[2] > 1e-4  # three clients of rank two: the mean product has a higher rank
    numpy.testing.assert_allclose(b @ a, (u[:, :2] * s[:2]) @ vh[:2], atol=1e-6)
    mean_b, mean_a = (mean(updates, 1, f"generic_adapter/lora_{factor}") for factor in "BA")
    ratio = numpy.linalg.norm(mean_b) / numpy.linalg.norm(mean_a)
    numpy.testing.assert_allclose(numpy.linalg.norm(b) / numpy.linalg.norm(a), ratio, rtol=1e-4)
    numpy.testing.assert_allclose(
        last_shared(tmp_path)["encoder/kernel"], mean(updates, 1, "encoder/kernel"), rtol=1e-5, atol=1e-6
    )


@pytest.mark.numerical
def test_exact_lora_takes_the_factors_of_whatever_module_is_shared() -> None:
    """A task may call its adapter as it likes; a factor whose partner is in another module is averaged."""
    generator = torch.Generator().manual_seed(0)
    sent = [
        {
            "answers/q.lora_A": torch.randn(2, 5, generator=generator),
            "answers/q.lora_B": torch.randn(6, 2, generator=generator),
            "half_a/q.lora_A": torch.randn(2, 5, generator=generator),
        }
        for _ in range(2)
    ]
    replies = [
        types.SimpleNamespace(content={"arrays": to_record(tensors), "metrics": {"num-examples": 4}})
        for tensors in sent
    ]
    means = {key: (sent[0][key] + sent[1][key]) / 2 for key in sent[0]}
    found = make_strategy(RULES["exact-lora"]).corrections(to_record(means), replies)
    assert found.keys() == {"answers/q.lora_A", "answers/q.lora_B"}
    product = sum(tensors["answers/q.lora_B"] @ tensors["answers/q.lora_A"] for tensors in sent) / 2
    u, s, vh = torch.linalg.svd(product, full_matrices=False)
    nearest = (u[:, :2] * s[:2]) @ vh[:2]
    torch.testing.assert_close(found["answers/q.lora_B"] @ found["answers/q.lora_A"], nearest, rtol=1e-4, atol=1e-5)


@pytest.mark.numerical
def test_exact_lora_is_exact_where_the_rank_allows() -> None:
    generator = torch.Generator().manual_seed(0)
    b = [torch.zeros(20, 4) for _ in range(2)]
    a = [torch.randn(4, 9, generator=generator) for _ in range(2)]
    for k in range(2):
        b[k][:, 2 * k : 2 * k + 2] = torch.randn(20, 2, generator=generator)  # rank two each, four together
    weights = torch.tensor([0.3, 0.7])
    mean_b, mean_a = 0.3 * b[0] + 0.7 * b[1], 0.3 * a[0] + 0.7 * a[1]
    new_b, new_a = factorised_mean(b, a, weights, mean_b, mean_a)
    product = 0.3 * b[0] @ a[0] + 0.7 * b[1] @ a[1]
    torch.testing.assert_close((new_b @ new_a).float(), product, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mean_b @ mean_a, product, atol=0.1)


@pytest.mark.numerical
def test_exact_lora_keeps_rows_and_columns_where_the_clients_have_them() -> None:
    """Their moments belong to them: no other turn of the pair is nearer to the mean factors."""
    generator = torch.Generator().manual_seed(0)
    base_b, base_a = torch.randn(20, 4, generator=generator), torch.randn(4, 9, generator=generator)
    b, a = ([base + 0.2 * torch.randn(base.shape, generator=generator) for _ in range(3)] for base in (base_b, base_a))
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.double)
    mean_b, mean_a = (sum(w * m.double() for w, m in zip(weights, ms, strict=True)) for ms in (b, a))
    new_b, new_a = factorised_mean(b, a, weights, mean_b, mean_a)

    def distance(turn: torch.Tensor) -> float:
        parts = ((new_b @ turn, mean_b), (turn.T @ new_a, mean_a))
        return float(sum((new - old).square().sum() / old.square().sum() for new, old in parts))

    identity = torch.eye(4, dtype=torch.double)
    assert distance(identity) < 0.3
    for _ in range(20):
        generated = torch.randn(4, 4, generator=generator, dtype=torch.double)
        assert distance(torch.linalg.qr(generated).Q) > distance(identity)
        skew = 0.05 * (generated - generated.T)
        assert distance(torch.matrix_exp(skew)) > distance(identity)


@pytest.mark.numerical
@pytest.mark.parametrize(("rows", "columns", "rank"), [(6, 5, 2), (3, 9, 4), (9, 3, 4)])
def test_exact_lora_leaves_no_direction_dead(rows: int, columns: int, rank: int) -> None:
    """B = 0 as at the start; and layers narrower than the rank."""
    a = [torch.randn(rank, columns, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    new_b, new_a = factorised_mean(
        [torch.zeros(rows, rank)] * 2, a, torch.tensor([0.5, 0.5]), torch.zeros(rows, rank), (a[0] + a[1]) / 2
    )
    assert new_b.shape == (rows, rank) and new_a.shape == (rank, columns)
    assert (new_b == 0).all() and (new_a.norm(dim=1) > 0.1).all()


def test_a_rule_without_a_strategy_is_not_taken_for_another() -> None:
    with pytest.raises(ValueError, match="server.rule fednova has no strategy"):
        make_strategy(ServerRule.model_construct(rule="fednova"))


# ---- who takes part ----


def test_the_sample_is_the_share_rounded_up() -> None:
    clients = [f"client-{k:02d}" for k in range(30)]
    for share, count in ((0.1, 3), (0.2, 6), (0.5, 15), (0.51, 16), (0.001, 1), (1.0, 30)):
        assert len(sampled_clients(clients, share, 0, 1)) == count
    assert sampled_clients(clients, 1.0, 0, 1) == clients
    first, second = sampled_clients(clients, 0.5, 0, 1), sampled_clients(clients, 0.5, 0, 2)
    assert first == sampled_clients(clients, 0.5, 0, 1) and first != second and first == sorted(first)
    assert {c for r in range(30) for c in sampled_clients(clients, 0.2, 0, r)} == set(clients)


def test_a_third_trains_and_all_validate(tmp_path: pathlib.Path) -> None:
    configuration = fake_configuration(rounds=6, participation=0.3)
    run_federation(tmp_path, configuration, progress=False)
    table = pandas.read_csv(tmp_path / "rounds.csv")
    assert (table.groupby("round").status.apply(lambda s: sorted(s)) .map(tuple)
            == ("not_sampled", "not_sampled", "ok")).all()  # fmt: skip
    assert table.validation_loss.notna().all() and (table.num_examples.notna() == (table.status == "ok")).all()
    for number, rows in table.groupby("round"):
        assert list(rows[rows.status == "ok"].client) == sampled_clients("abc", 0.3, 0, number)
    ledger = pandas.read_csv(tmp_path / "ledger.csv").query("module == 'message'")
    trained = ledger[ledger.phase == "train"].groupby(["round", "direction"]).client.count()
    assert (trained == 1).all()
    rounds = server_json(tmp_path)["state_rounds"]
    for client, number in rounds.items():
        mine = table[(table.client == client) & (table.status == "ok")]["round"]
        assert number == (0 if mine.empty else mine.max())


def test_a_resting_hospital_keeps_its_state(tmp_path: pathlib.Path) -> None:
    """Resting hospitals validate, which must not change what their last round left: rounds are run again."""
    configuration = fake_configuration(rounds=6, participation=0.3)
    run_federation(tmp_path / "whole", configuration, progress=False)
    for number in range(1, 7):
        run_federation(tmp_path / "parts", configuration, stop_after_round=number, progress=False)
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")
    rounds = server_json(tmp_path / "whole")["state_rounds"]
    for client, number in rounds.items():
        if number:
            state = hospital.HospitalDisk(tmp_path / "whole", client).load(number).tensors
            trained = [n for n in range(1, number + 1) if client in sampled_clients("abc", 0.3, 0, n)]
            torch.testing.assert_close(state["disease_weights"], torch.full((2,), 0.9 ** len(trained)))


def test_min_clients_counts_the_sampled(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = sampled_clients("abc", 0.3, 0, 2)[0]
    monkeypatch.setenv("FAKE_FAILURES", f"{one}:nan:2")
    with pytest.raises(TooFewClients, match=f"round 2: 0 usable .* min_clients is 1; left out: {one}: [^;]*$"):
        run_federation(tmp_path, fake_configuration(participation=0.3), progress=False)


# ---- nothing to share, nobody to share with ----


def test_nothing_shared(tmp_path: pathlib.Path) -> None:
    configuration = fake_configuration(rounds=4, task="fake-alone")
    run_federation(tmp_path / "whole", configuration, progress=False)
    run_federation(tmp_path / "halves", configuration, stop_after_round=2, progress=False)
    run_federation(tmp_path / "halves", configuration, progress=False)
    assert everything(tmp_path / "halves") == everything(tmp_path / "whole")
    assert server_json(tmp_path / "whole")["state_rounds"] == {"a": 4, "b": 4, "c": 4}
    ledger = pandas.read_csv(tmp_path / "whole" / "ledger.csv")
    assert set(ledger.module) == {"message", "metrics", "config", "prototypes", "framing"}
    assert safetensors.torch.load_file(tmp_path / "whole" / "model" / "shared.safetensors") == {}
    assert (tmp_path / "whole" / "model" / "a.safetensors").is_file()


def test_hospitals_that_share_nothing_keep_each_its_own_best_round(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(self, shared, state):
        return {"validation_loss": 10 + float(state.tensors["optimiser/momentum"][0])}, state, 2  # up and down

    monkeypatch.setattr(FakeHospital, "validate", validate)
    run_federation(tmp_path, fake_configuration(rounds=6, task="fake-alone"), progress=False)
    table = pandas.read_csv(tmp_path / "rounds.csv")
    own = {client: int(part.set_index("round").validation_loss.idxmin()) for client, part in table.groupby("client")}
    assert len(set(own.values())) > 1 and set(own.values()) != {6}  # else this shows nothing
    best = server_json(tmp_path)["best"]
    assert best["state_rounds"] == own and best["round_number"] == 6
    assert best["losses"] == pytest.approx(table.groupby("client").validation_loss.min().to_dict())
    for client, round_number in own.items():
        trained = hospital.HospitalDisk(tmp_path, client).load(round_number).part("personal")
        saved = safetensors.torch.load_file(tmp_path / "model" / f"{client}.safetensors")
        assert saved and all(torch.equal(trained[key], saved[key]) for key in saved)


def test_one_client_is_enough_where_there_is_one(tmp_path: pathlib.Path) -> None:
    run_federation(tmp_path, fake_configuration(min_clients=2, task="fake-pooled"), progress=False)
    table = pandas.read_csv(tmp_path / "rounds.csv")
    assert list(table.client) == ["pooled"] * 3 and set(table.status) == {"ok"}
