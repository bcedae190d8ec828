"""Differential privacy of hospitals: what Flower's rule does with updates, what it spends, and when a run ends."""

from __future__ import annotations

import math
import pathlib

import numpy
import pandas
import pydantic
import pytest
import torch
from federation_fake import everything
from flwr.app import Message, MetricRecord, RecordDict
from linear_runs import PERSONAL_NORM, ROWS, configuration
from linear_task import LinearHospital
from scipy.stats import norm

from fedmrg_core.errors import InputError
from fedmrg_core.federation.grid import InProcessGrid
from fedmrg_core.federation.messages import ARRAYS, EXAMPLES, METRICS, to_record
from fedmrg_core.federation.privacy import Cohort, affordable_rounds, epsilon_after
from fedmrg_core.federation.rounds import TooFewClients
from fedmrg_core.federation.run import run_federation
from fedmrg_core.federation.server_rules import make_strategy
from fedmrg_core.federation.task import forget_tasks
from fedmrg_core.runs.methods import ServerRule
from fedmrg_core.seeds import numpy_stream

NUMBERS = {"clipping_norm": 0.5, "noise_multiplier": 4.0, "max_epsilon": 2.6, "delta": 1e-3}
RULE = ServerRule(rule="private", **NUMBERS)


@pytest.fixture(autouse=True)
def inside_a_run():
    with InProcessGrid(None, [], {}, None).identity():
        yield


@pytest.fixture
def row(monkeypatch):
    monkeypatch.setitem(ROWS, "private", {"modules": PERSONAL_NORM, "server": RULE})


def reply(arrays: dict[str, torch.Tensor], examples: int) -> Message:
    content = RecordDict({ARRAYS: to_record(arrays), METRICS: MetricRecord({EXAMPLES: float(examples)})})
    return Message(content, dst_node_id=1, message_type="train")


def test_updates_are_cut_averaged_alike_and_given_noise():
    start = {"m/b": torch.zeros(3), "m/w": torch.ones(2, 2)}
    updates = [{key: torch.full_like(value, scale) for key, value in start.items()} for scale in (0.01, -3.0)]
    strategy = make_strategy(RULE, cohort=Cohort(2, 2, seed=7))
    strategy.current_arrays = to_record(start)
    strategy._pending_events[1] = None
    later = [{key: start[key] + update[key] for key in reversed(list(start))} for update in updates]  # another order
    arrays, _ = strategy.aggregate_train(1, [reply(model, count) for model, count in zip(later, (1, 99), strict=True)])
    lengths = [math.sqrt(7) * abs(scale) for scale in (0.01, -3.0)]
    factors = [min(1.0, NUMBERS["clipping_norm"] / length) for length in lengths]
    noise = numpy.random.RandomState(numpy_stream(7, "privacy", 1).integers(0, 2**32, size=8, dtype=numpy.uint32))
    for key, value in start.items():
        mean = sum(factor * update[key] for factor, update in zip(factors, updates, strict=True)) / 2
        drawn = noise.normal(0, 4.0 * 0.5 / 2, value.shape)
        numpy.testing.assert_allclose(arrays[key].numpy(), (value + mean).numpy() + drawn, rtol=1e-5)


def test_noise_leaves_numpys_own_numbers_alone():
    strategy = make_strategy(RULE, cohort=Cohort(1, 1, seed=7))
    strategy.current_arrays = to_record({"m/w": torch.ones(2)})
    strategy._pending_events[1] = None
    before = numpy.random.get_state()[1].copy()
    unchanged = reply({"m/w": torch.ones(2)}, 1)  # of no length, by which Flower would divide
    arrays, _ = strategy.aggregate_train(1, [unchanged])
    assert (numpy.random.get_state()[1] == before).all()
    assert numpy.isfinite(arrays["m/w"].numpy()).all()


@pytest.mark.parametrize("releases", [1, 5, 20])
def test_the_accountant_never_says_less_than_the_exact_curve(releases):
    """Gaussian noise has an exact curve of epsilon and delta [related: Balle and Wang 2018]; Renyi's bound is above."""
    epsilon = epsilon_after(RULE, Cohort(5, 5, 0), releases)
    mu = math.sqrt(releases) / NUMBERS["noise_multiplier"]
    delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert NUMBERS["delta"] / 20 < delta <= NUMBERS["delta"]


def test_a_run_ends_before_the_round_that_would_pass_its_budget_and_keeps_what_was_spent(row, tmp_path):
    given = configuration("private", 0, 30)
    rounds = affordable_rounds(given, 3)
    assert 2 < rounds < 30
    run_federation(tmp_path / "whole", given, progress=False, test=True)
    spent = pandas.read_csv(tmp_path / "whole" / "privacy.csv")
    assert (
        list(spent["round"])
        == list(range(1, rounds + 1))
        == sorted(set(pandas.read_csv(tmp_path / "whole" / "rounds.csv")["round"]))
    )
    cohort = Cohort(3, 3, 0)
    assert spent.epsilon.is_monotonic_increasing and spent.epsilon.iloc[-1] <= RULE.max_epsilon
    assert epsilon_after(RULE, cohort, rounds + 1) > RULE.max_epsilon
    assert (tmp_path / "whole" / "manifest.json").is_file()

    run_federation(tmp_path / "stopped", given, progress=False, test=True, stop_after_round=2)
    assert len(pandas.read_csv(tmp_path / "stopped" / "privacy.csv")) == 2
    forget_tasks()
    run_federation(tmp_path / "stopped", given, progress=False, test=True)
    whole, stopped = everything(tmp_path / "whole"), everything(tmp_path / "stopped")
    assert [name for name in whole if whole[name] != stopped.get(name)] == []


def test_every_hospital_has_to_answer(row, tmp_path, monkeypatch):
    train = LinearHospital.train

    def away(hospital, *given):
        if hospital.client.name == "b":
            raise RuntimeError("away")
        return train(hospital, *given)

    monkeypatch.setattr(LinearHospital, "train", away)
    with pytest.raises(TooFewClients, match="2 usable clients are left and server.rule private needs 3"):
        run_federation(tmp_path, configuration("private", 0, 2), progress=False)


@pytest.mark.parametrize("missing", NUMBERS)
def test_each_number_is_needed(missing):
    with pytest.raises(pydantic.ValidationError, match=f"rule: private needs {missing}; give it a number"):
        ServerRule(rule="private", **{name: value for name, value in NUMBERS.items() if name != missing})


def test_a_budget_is_of_this_rule_alone():
    with pytest.raises(pydantic.ValidationError, match="max_epsilon is of another rule than fedavg"):
        ServerRule(max_epsilon=1.0)


def test_what_cannot_be_covered_is_refused_before_training(row, tmp_path, monkeypatch):
    monkeypatch.setitem(ROWS, "private", {"server": RULE})  # statistics of batches travel
    with pytest.raises(InputError, match="server.rule private does not cover statistics of batches"):
        run_federation(tmp_path / "statistics", configuration("private"), progress=False)
    small = RULE.model_copy(update={"max_epsilon": 0.1})
    monkeypatch.setitem(ROWS, "private", {"modules": PERSONAL_NORM, "server": small})
    with pytest.raises(InputError, match="max_epsilon is 0.1, and one round spends .*raise server.max_epsilon"):
        run_federation(tmp_path / "budget", configuration("private"), progress=False)
    assert not pathlib.Path(tmp_path / "budget" / "rounds.csv").exists()
