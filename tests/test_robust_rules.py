"""Krum, trimmed mean and median against NumPy, and what a dishonest client moves under each rule."""

from __future__ import annotations

import itertools
import pathlib
import types

import numpy
import pandas
import pytest
import torch
from federation_fake import FakeTask, everything, fake_configuration, last_shared
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given
from hypothesis import strategies as some

from fedmrg_core.errors import InputError
from fedmrg_core.federation import attacking
from fedmrg_core.federation.deployment.folders import init_federation
from fedmrg_core.federation.messages import from_record, to_record
from fedmrg_core.federation.replies import NORM_FACTOR
from fedmrg_core.federation.robust_rules import nearest, squared_distances
from fedmrg_core.federation.rounds import TooFewClients
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.server_rules import make_strategy, state_of
from fedmrg_core.files.strict_yaml import validated
from fedmrg_core.runs.attack import Attack, attackers
from fedmrg_core.runs.experiments import RunSettings, check_run
from fedmrg_core.runs.methods import Method, ServerRule, load_method
from fedmrg_core.runs.run_configuration import RunConfiguration, write_configuration

RULES = {
    "krum": ServerRule(rule="krum", attackers=1),
    "multi-krum": ServerRule(rule="multi-krum", attackers=1),
    "trimmed-mean": ServerRule(rule="trimmed-mean", attackers=1),
    "median": ServerRule(rule="median"),
}
MEAN, VARIANCE = "norm.running_mean", "norm.running_var"
CLIENTS = ("a", "b", "c", "d", "e")
KINDS = ("sign", "noise", "scale")


def replies_of(clients: list[dict[str, numpy.ndarray]], examples: list[int] | None = None) -> list:
    """Messages as far as a strategy looks at them."""
    found = []
    for client, count in zip(clients, examples or [4] * len(clients), strict=True):
        arrays = to_record({key: torch.as_tensor(value) for key, value in client.items()})
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": count})})
        found.append(types.SimpleNamespace(content=content, has_error=lambda: False))
    return found


def models(count: int, seed: int = 0) -> list[dict[str, numpy.ndarray]]:
    draw = numpy.random.default_rng(seed)
    shapes = {"head/scale": (), "head/weight": (3, 4), "net/norm.running_mean": (5,), "net/norm.running_var": (5,)}
    found = [{key: draw.normal(size=shape).astype("float32") for key, shape in shapes.items()} for _ in range(count)]
    return [{**model, f"net/{VARIANCE}": abs(model[f"net/{VARIANCE}"])} for model in found]


BUFFERS = {f"net/{MEAN}", f"net/{VARIANCE}"}


def aggregated(rule: ServerRule, clients: list, examples: list[int] | None = None) -> dict[str, numpy.ndarray]:
    arrays, _ = make_strategy(rule, BUFFERS).aggregate_train(1, replies_of(clients, examples))
    assert all(tensor.dtype == torch.float32 for tensor in from_record(arrays).values())
    return {key: tensor.numpy() for key, tensor in from_record(arrays).items()}


def brute_force(clients: list[dict[str, numpy.ndarray]], attackers: int, kept: int) -> list[int]:
    """Krum's choice, client by client."""
    flat = [numpy.concatenate([m[k].ravel() for k in sorted(m) if k not in BUFFERS]).astype(float) for m in clients]
    scores = []
    for one in range(len(flat)):
        others = sorted(((flat[one] - flat[k]) ** 2).sum() for k in range(len(flat)) if k != one)
        scores.append(sum(others[: len(flat) - attackers - 2]))
    return sorted(sorted(range(len(flat)), key=lambda k: scores[k])[:kept])


def middle(values: list[numpy.ndarray], cut: int) -> numpy.ndarray:
    """The mean without the `cut` lowest and highest, number by number."""
    stacked = numpy.array(values, dtype=float)
    if not stacked.shape[1:]:
        return numpy.mean(sorted(stacked)[cut : len(values) - cut])
    found = numpy.zeros(stacked.shape[1:])
    for place in itertools.product(*map(range, stacked.shape[1:])):
        found[place] = numpy.mean(sorted(stacked[(slice(None), *place)])[cut : len(values) - cut])
    return found


# ---- the rules ----


@pytest.mark.numerical
@pytest.mark.parametrize(("rule", "count", "cut"), [("median", 5, 2), ("median", 4, 1), ("trimmed-mean", 5, 1)])
def test_trimmed_mean_and_median_number_by_number(rule: str, count: int, cut: int) -> None:
    clients = models(count)
    found = aggregated(RULES[rule], clients, [1, 1, 1, 1, 99][:count])
    for key in ("head/scale", "head/weight", f"net/{MEAN}"):
        expected = middle([client[key] for client in clients], cut)
        assert found[key].shape == expected.shape
        numpy.testing.assert_allclose(found[key], expected, rtol=1e-5, atol=1e-6, err_msg=key)
    mean = middle([client[f"net/{MEAN}"] for client in clients], cut)
    around = [client[f"net/{VARIANCE}"] + (client[f"net/{MEAN}"] - mean) ** 2 for client in clients]
    numpy.testing.assert_allclose(found[f"net/{VARIANCE}"], middle(around, cut), rtol=1e-5, atol=1e-6)


@pytest.mark.numerical
@pytest.mark.parametrize("count", [5, 6, 9])
def test_krum_and_multi_krum_take_whom_the_formula_takes(count: int) -> None:
    clients, examples = models(count, seed=count), list(range(1, count + 1))
    (one,) = brute_force(clients, 1, 1)
    numpy.testing.assert_array_equal(
        aggregated(RULES["krum"], clients, examples)["head/weight"], clients[one]["head/weight"]
    )
    several = brute_force(clients, 1, count - 3)
    weights = numpy.array(examples)[several] / numpy.array(examples)[several].sum()
    expected = sum(w * clients[k]["head/weight"].astype(float) for w, k in zip(weights, several, strict=True))
    found = aggregated(RULES["multi-krum"], clients, examples)
    numpy.testing.assert_allclose(found["head/weight"], expected, rtol=1e-5, atol=1e-6)
    for key in BUFFERS - {f"net/{VARIANCE}"}:  # of all clients, whoever is chosen
        numpy.testing.assert_allclose(found[key], middle([c[key] for c in clients], (count - 1) // 2), rtol=1e-5)


@pytest.mark.numerical
def test_krum_chooses_as_flower_does_where_its_distances_hold() -> None:
    parameters = [{key: value for key, value in model.items() if key not in BUFFERS} for model in models(7, seed=3)]
    replies = replies_of(parameters)
    double = [RecordDict({"arrays": ArrayRecord([v.astype(float) for v in model.values()])}) for model in parameters]
    flower = [double.index(each) for each in select_multikrum(double, 2, 3)]
    assert nearest(squared_distances(replies), 2, several=True) == sorted(flower)


@pytest.mark.numerical
def test_krum_tells_models_apart_that_differ_by_a_thousandth() -> None:
    """Flower's own distances, in float32 and of whole models, are noise there."""
    base = 100 * numpy.random.default_rng(0).normal(size=2000)
    far = [0.01, -0.01, 0.03, 0.0, 0.2]
    clients = [{"head/weight": (base + step).astype("float32")} for step in far]
    replies = replies_of(clients)
    assert nearest(squared_distances(replies), 1) == [3]
    scores = squared_distances(replies)[3] / 2000
    numpy.testing.assert_allclose(scores, [1e-4, 1e-4, 9e-4, 0, 4e-2], rtol=0.05, atol=1e-9)


@pytest.mark.numerical
@given(
    honest=some.lists(some.floats(-100, 100, width=32), min_size=2, max_size=8),
    lie=some.sampled_from([1e6, -1e6, 1e8]),
)
def test_the_median_stays_within_the_honest_range_whatever_one_client_sends(honest: list[float], lie: float) -> None:
    clients = [{"head/weight": numpy.array([value], "float32")} for value in [*honest, lie]]
    arrays, _ = make_strategy(RULES["median"]).aggregate_train(1, replies_of(clients))
    (found,) = from_record(arrays)["head/weight"].tolist()
    assert min(honest) <= found <= max(honest)


@pytest.mark.numerical
@pytest.mark.parametrize("rule", RULES)
def test_a_poisoned_client_of_five_is_out_of_reach_of_every_number(rule: str) -> None:
    clients = models(5)
    for key in clients[2]:
        clients[2][key] = numpy.full_like(clients[2][key], 1e6)
    found, honest = aggregated(RULES[rule], clients), clients[:2] + clients[3:]
    for key, values in found.items():
        highest = max(float(abs(client[key]).max()) for client in honest)
        assert abs(values).max() <= (10 * highest if key.endswith(VARIANCE) else highest), key
    assert (found[f"net/{VARIANCE}"] >= 0).all()


@pytest.mark.numerical
def test_a_variance_alone_neither_wins_krum_nor_gets_in() -> None:
    clients = models(5)
    (chosen,) = brute_force(clients, 1, 1)
    clients[chosen][f"net/{VARIANCE}"] = numpy.full(5, 1e6, "float32")
    found = aggregated(RULES["krum"], clients)
    numpy.testing.assert_array_equal(found["head/weight"], clients[chosen]["head/weight"])
    assert found[f"net/{VARIANCE}"].max() < 20


@pytest.mark.numerical
@pytest.mark.parametrize(("count", "attackers", "cut"), [(4, 1, 1), (3, 1, 1), (2, 1, 0), (1, 1, 0), (100, 29, 29)])
def test_the_trimmed_mean_cuts_its_number_in_a_round_with_clients_left_out(
    count: int, attackers: int, cut: int
) -> None:
    """Flower's share would cut int(.2 * 4) = 0 of four clients, and int(.29 * 100) = 28 of a hundred."""
    clients = [{"head/scale": numpy.array(float(k**2), "float32")} for k in range(count)]
    rule = ServerRule(rule="trimmed-mean", attackers=attackers)
    arrays, _ = make_strategy(rule).aggregate_train(1, replies_of(clients))
    expected = numpy.mean([k**2 for k in range(count)][cut : count - cut])
    assert from_record(arrays)["head/scale"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_no_reply_makes_no_model_and_no_state(rule: str) -> None:
    strategy = make_strategy(RULES[rule])
    assert strategy.aggregate_train(1, []) == (None, None) and state_of(strategy) == {}


# ---- runs ----


@pytest.fixture
def five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hospitals, without what makes a fake update wander by itself."""
    monkeypatch.setattr(FakeTask, "names", CLIENTS)


def configuration(rule: ServerRule | None = None, attack: Attack | None = None, **settings) -> RunConfiguration:
    made = fake_configuration(server=rule or ServerRule(), **settings)
    return made.model_copy(update={"profile": made.profile.model_copy(update={"attack": attack or Attack()})})


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return sum(float((one[key] - other[key]).square().sum()) for key in one) ** 0.5


@pytest.mark.numerical
@pytest.mark.parametrize(("kind", "rules"), [("sign", RULES), ("noise", ["median"]), ("scale", ["median"])])
def test_one_attacker_moves_the_average_and_not_the_robust_rules(five, kind, rules, tmp_path: pathlib.Path) -> None:
    attack, moved = Attack(kind=kind, clients=1), {}
    for name in ("fedavg", *rules):
        for label, planned in (("clean", None), ("attacked", attack)):
            given = configuration(RULES.get(name), planned, rounds=1)
            run_federation(tmp_path / name / label, given, progress=False)
        moved[name] = distance(*(last_shared(tmp_path / name / label) for label in ("clean", "attacked")))
    assert moved.pop("fedavg") > 3 * max(moved.values())
    table = pandas.read_csv(tmp_path / "fedavg" / "attacked" / "rounds.csv")
    assert (table.status == "ok").all()  # the check of lengths has let it in
    assert "kind: " + kind in (tmp_path / "fedavg" / "attacked" / "config.yaml").read_text()
    assert "attack" not in (tmp_path / "fedavg" / "clean" / "config.yaml").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_of_lengths_alone_stops_a_careless_attacker(five, kind: str, tmp_path: pathlib.Path) -> None:
    attack = Attack(kind=kind, clients=1, strength=10 * NORM_FACTOR)
    run_federation(tmp_path, configuration(attack=attack, rounds=1), progress=False)
    table = pandas.read_csv(tmp_path / "rounds.csv").set_index("client")
    (liar,) = attackers(CLIENTS, attack, 0)
    assert table.status.drop(liar).eq("ok").all() and table.reason[liar].startswith("norm: ")


@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_ends_with_the_same_bytes(five, rule: str, tmp_path: pathlib.Path) -> None:
    given = configuration(RULES[rule], Attack(kind="noise", clients=1), rounds=2)
    run_federation(tmp_path / "whole", given, progress=False)
    run_federation(tmp_path / "parts", given, stop_after_round=1, progress=False)
    run_federation(tmp_path / "parts", given, progress=False, workers=2 if rule == "krum" else 1)
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_what_attackers_send_is_as_long_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = {"head/weight": torch.randn(40, 50, generator=generator), "head/scale": torch.ones(())}
    update = {key: value + 0.1 for key, value in shared.items()}
    for kind in KINDS:
        sent = attacking.attacked(shared, update, Attack(kind=kind, clients=1, strength=7), generator)
        steps = {key: sent[key] - shared[key] for key in shared}
        assert steps["head/weight"].norm() == pytest.approx(0.7 * 2000**0.5, rel=0.05)
        if kind != "noise":
            factor = -0.7 if kind == "sign" else 0.7
            assert all(torch.allclose(step, torch.full_like(step, factor), atol=1e-5) for step in steps.values())


def test_attackers_are_the_first_of_an_order_of_the_seed() -> None:
    one, two = (attackers(CLIENTS, Attack(kind="sign", clients=count), 0) for count in (1, 2))
    assert two[:1] == one and len(set(two)) == 2 and attackers(reversed(CLIENTS), Attack(), 0) == []
    assert two == attackers(reversed(CLIENTS), Attack(kind="noise", clients=2), 0)
    assert len({attackers(CLIENTS, Attack(kind="sign", clients=1), seed)[0] for seed in range(20)}) > 2


# ---- who is left ----


def test_a_refused_update_is_an_attacker_found_and_an_absent_one_is_not(five, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_FAILURES", "b:nan:*")
    run_federation(tmp_path / "refused", configuration(RULES["krum"], rounds=1), progress=False)
    monkeypatch.setenv("FAKE_FAILURES", "b:raises:*")
    run_federation(tmp_path / "trimmed", configuration(RULES["trimmed-mean"], rounds=1), progress=False)
    with pytest.raises(TooFewClients, match="4 usable .* krum with server.attackers 1 needs 5; left out: b: error"):
        run_federation(tmp_path / "absent", configuration(RULES["krum"], rounds=1), progress=False)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (ServerRule(rule="krum", attackers=2), "attackers is 2, for which krum needs 7 clients in a round, and 5 take"),
        (ServerRule(rule="trimmed-mean", attackers=3), "for which trimmed-mean needs 7 clients"),
    ],
)
def test_too_many_attackers_for_the_clients(five, rule: ServerRule, sentence: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=sentence):
        run_federation(tmp_path, configuration(rule), progress=False)
    assert not (tmp_path / "rounds.csv").exists()


def test_too_few_clients_are_told_before_anything_is_prepared() -> None:
    check_run(RunSettings(method="krum"))
    with pytest.raises(InputError, match="krum needs 5 clients in a round, and 3 take part"):
        check_run(RunSettings(method="krum", partition="style", clients=3))
    with pytest.raises(InputError, match="krum needs 7 clients in a round, and 5 take part"):
        check_run(RunSettings(method="krum", variant="server.attackers=2"))


def test_clients_of_a_round_count_and_not_those_of_the_run(five, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="krum needs 5 clients in a round, and 2 take part"):
        run_federation(tmp_path, configuration(RULES["krum"], participation=0.4), progress=False)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"server": {"rule": "krum"}}, "krum needs attackers"),
        ({"server": {"rule": "krum", "attackers": -1}}, "server.attackers"),
        ({"server": {"rule": "median", "attackers": 1}}, "attackers is of another rule than median"),
        ({"server": {"attackers": 1}}, "attackers is of another rule than fedavg"),
        (
            {"server": {"rule": "median"}, "client": {"control_variates": True}},
            "client.control_variates need the mean of all clients",
        ),
        ({"server": {"rule": "median"}, "training": "centralised"}, "centralised has one client"),
    ],
)
def test_rows_that_do_not_fit(row: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        validated(Method, {"name": "mine", "description": "", "modules": {"head": "shared"}, **row}, "row")


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        ("attack.kind=sign", "kind is sign and clients is 0"),
        ("attack.clients=1", "kind is none and clients is 1"),
        ("attack.kind=bribe,attack.clients=1", "attack.kind"),
        ("attack.kind=sign,attack.clients=1,attack.strength=0", "attack.strength"),
    ],
)
def test_an_attack_that_is_none(variant: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        RunSettings(data="phantom_findings", method="krum", variant=variant).load()


def test_an_attack_runs_where_it_is_measured_and_nowhere_else(five, tmp_path: pathlib.Path) -> None:
    attack = Attack(kind="sign", clients=1)
    with pytest.raises(InputError, match="in-process engine alone"):
        run_federation(tmp_path / "run", configuration(attack=attack), engine="simulation", progress=False)
    with pytest.raises(InputError, match="leave some honest"):
        run_federation(tmp_path / "all", configuration(attack=Attack(kind="sign", clients=5)), progress=False)
    with pytest.raises(InputError, match="shares nothing"):
        run_federation(tmp_path / "alone", configuration(attack=attack, task="fake-alone"), progress=False)
    (tmp_path / "lying").mkdir()
    write_configuration(tmp_path / "lying", configuration(attack=attack))
    with pytest.raises(InputError, match="synthetic attack is for one machine"):
        init_federation(tmp_path / "ours", None, tmp_path / "lying")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("task", ["reports", "visual_prompts"])
@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_a_row_of_both_tasks(name: str, task: str) -> None:
    assert load_method(name, task).server == RULES[name]
