"""Partitions: every study in exactly one client, the same for the same seed, and clear refusals."""

from __future__ import annotations

import pytest
import torch
from data_fixtures import study_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmrg_core.data.partition import Partition, partition_clients
from fedmrg_core.data.study import SPLITS
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.errors import InputError

FULL = [(f"p{number}", "north" if number % 2 else "south", SPLITS[number // 2 % 3]) for number in range(12)]


def _held(partition: Partition) -> dict[str, set[str]]:
    return {
        name: {study for split in SPLITS for study in getattr(client, split)["study_id"]}
        for name, client in partition.clients.items()
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clients=st.integers(2, 4), per_split=st.integers(4, 9), seed=st.integers(0, 1000), images=st.integers(1, 2))
def test_random_partition_deals_every_study_once(clients: int, per_split: int, seed: int, images: int) -> None:
    rows = [(f"{split}{n}", "x", split) for split in SPLITS for n in range(per_split) for _ in range(images)]
    studies = study_rows(rows)
    partition = partition_clients(studies, "random", clients, seed)
    held = _held(partition)
    assert sorted(study for ids in held.values() for study in ids) == sorted(studies["study_id"])
    assert list(partition.clients) == sorted(partition.clients) and len(partition.clients) == clients
    patients = [set(c.train["patient_id"]) for c in partition.clients.values()]
    assert len(set.union(*patients)) == sum(map(len, patients)), "a patient is with two clients"
    assert max(map(len, patients)) - min(map(len, patients)) <= 1
    assert held == _held(partition_clients(studies, "random", clients, seed))
    for client in partition.clients.values():
        assert all(set(getattr(client, split)["split"]) == {split} for split in SPLITS)


def test_random_partition_depends_on_the_seed() -> None:
    studies = study_rows([(f"p{n}", "x", SPLITS[n % 3]) for n in range(60)])
    assert _held(partition_clients(studies, "random", 3, 0)) != _held(partition_clients(studies, "random", 3, 1))


def test_by_site_every_client_is_one_site() -> None:
    studies = study_rows(FULL)
    partition = partition_clients(studies)
    assert list(partition.clients) == ["north", "south"]
    for name, client in partition.clients.items():
        assert {site for split in SPLITS for site in getattr(client, split)["site"]} == {name}
    assert sorted(study for ids in _held(partition).values() for study in ids) == sorted(studies["study_id"])


def test_an_unseen_site_gives_its_test_studies_only() -> None:
    rows = [*FULL, ("u1", "far", "test"), ("u2", "far", "train")]
    partition = partition_clients(study_rows(rows), unseen_sites=["far"])
    assert list(partition.clients) == ["north", "south"]
    assert list(partition.unseen["far"]["patient_id"]) == ["u1"] and partition.unused == {"far": 1}


@pytest.mark.parametrize(
    ("rows", "arguments", "sentence"),
    [
        (FULL, {"partition": "style"}, "partition is 'style'; expected one of site, random"),
        (FULL, {"partition": "random", "clients": 1}, "clients is 1"),
        (FULL, {"partition": "random"}, "needs the parameter clients"),
        (FULL, {"partition": "random", "clients": 5}, "the train split has 4"),
        (FULL, {"clients": 3}, "there are 2 training sites"),
        (FULL, {"unseen_sites": ["west"]}, "names 'west'; the data set has the sites north, south"),
        (FULL, {"unseen_sites": ["north"]}, "finds 1 training site"),
        ([*FULL, ("u", "far", "test")], {}, "site 'far' has no train study; .*unseen_sites"),
        ([*FULL, ("u", "far", "train")], {}, "site 'far' has no validation study"),
        ([*FULL, ("u", "far", "train")], {"unseen_sites": ["far"]}, "unseen site 'far' has no test study"),
    ],
)
def test_refusals(rows: list[tuple[str, str, str]], arguments: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        partition_clients(study_rows(rows), **arguments)


@pytest.mark.parametrize("budget", [0, 2**30])
def test_client_tensors_give_the_studies_in_their_order(budget: int) -> None:
    studies = study_rows(FULL)
    tensors = ClientTensors(studies, memory_budget=budget)
    assert len(tensors) == 12 and tensors.texts[3] == "Text 3." and tensors.study_ids[3] == "s3"
    assert tensors.states.shape == (12, 14) and tensors.states.dtype == torch.int64 and tensors.states[3, 0] == 3
    images = tensors.images(torch.tensor([5, 0]))
    assert images.shape == (2, 1, 16, 16) and images.dtype == torch.float32
    expected = torch.arange(256).roll(5).reshape(16, 16) / 255
    torch.testing.assert_close(images[0, 0], expected)
    torch.testing.assert_close(tensors.images([5, 0]), images)


def test_client_tensors_of_nothing() -> None:
    empty = ClientTensors(study_rows(FULL).select([]))
    assert len(empty) == 0 and empty.texts == []
