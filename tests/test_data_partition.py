"""Partitions: every study in exactly one client, the same for the same seed, and clear refusals."""

from __future__ import annotations

import re

import datasets
import numpy
import pandas
import pytest
import torch
from data_fixtures import study_rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmrg_core.data.findings import FINDINGS, POSITIVE
from fedmrg_core.data.heterogeneity import site_from_text
from fedmrg_core.data.partition import Partition, partition_clients, style
from fedmrg_core.data.partition.dirichlet import by_findings, deal_patients, main_findings
from fedmrg_core.data.partition.style import embed_reports
from fedmrg_core.data.study import SPLITS, STUDY_FEATURES
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream, stream_seed
from figures.client_distance import mean_distances

FULL = [(f"p{number}", "north" if number % 2 else "south", SPLITS[number // 2 % 3]) for number in range(12)]
THREE_SITES = [(f"p{number}", "abc"[number % 3], SPLITS[number // 3]) for number in range(9)]


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


def test_an_unseen_site_is_tested_on_and_adapted_to_but_never_trained_on() -> None:
    rows = [*FULL, ("u1", "far", "test"), ("u2", "far", "train"), ("u3", "far", "validation")]
    partition = partition_clients(study_rows(rows), unseen_sites=["far"])
    assert list(partition.clients) == ["north", "south"]
    assert list(partition.unseen["far"]["patient_id"]) == ["u1"]
    assert list(partition.adaptation["far"]["patient_id"]) == ["u2"] and partition.unused == {"far": 1}
    held = {patient for client in partition.clients.values() for patient in client.train["patient_id"]}
    assert not held & {"u1", "u2", "u3"}


@pytest.mark.parametrize(
    ("rows", "arguments", "sentence"),
    [
        (FULL, {"partition": "styles"}, "partition is 'styles'; expected one of site, random, style, dirichlet"),
        (
            FULL,
            {"partition": "dirichlet-"},
            "expected a number above 0 after 'dirichlet-', for example 'dirichlet-0.5'",
        ),
        (FULL, {"partition": "dirichlet-0"}, "a number above 0"),
        (FULL, {"partition": "dirichlet--1"}, "a number above 0"),
        (FULL, {"partition": "dirichlet-nan"}, "a number above 0"),
        (FULL, {"partition": "dirichlet-few"}, "a number above 0"),
        (FULL, {"partition": "style-3"}, "'style' takes no number; write partition='style'"),
        (FULL, {"partition": "dirichlet", "clients": 5}, "the train split has 4 patient"),
        (FULL, {"partition": "style", "clients": 5}, "the train split has 4 patient"),
        (FULL[:2], {"partition": "dirichlet", "clients": 2}, "the validation split has 0 patient"),
        (FULL, {"partition": "random", "clients": 1}, "clients is 1"),
        (FULL, {"partition": "random"}, "clients is 5 but the train split has 4"),
        (FULL, {"partition": "random", "clients": 5}, "the train split has 4"),
        (FULL, {"clients": 3}, "there are 2 training sites"),
        (THREE_SITES, {"clients": 2}, "clients is 2 but there are 3 training sites"),
        (FULL, {"unseen_sites": ["west"]}, "names 'west'; the data set has the sites north, south"),
        (FULL, {"unseen_sites": ["north"]}, "finds 1 training site"),
        ([*FULL, ("u", "far", "test")], {}, "site 'far' has no train study; .*name it in unseen"),
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


WORDS = {  # three ways of writing; the numbers make the reports of one style differ
    "north": "Heart size is within normal limits, level {n}. There is no pleural effusion.",
    "south": "Cor normal {n}. Pleura free.",
    "west": "The cardiac silhouette appears unremarkable in view {n} and the costophrenic angles are sharp.",
}


def _worded(styles: dict[str, int], worded: dict[str, str] = WORDS) -> datasets.Dataset:
    """Studies of two sites in `styles[name]` patients of each style and split; the patient's name tells the style."""
    rows = [
        (f"{name}-{split}{n}", "xy"[n % 2], split, worded[name].format(n=n))
        for name, count in styles.items()
        for split in SPLITS
        for n in range(count)
    ]
    studies = study_rows([row[:3] for row in rows]).remove_columns("findings")
    return studies.add_column("findings", [row[3] for row in rows]).cast(STUDY_FEATURES)


def _styles(partition: Partition) -> dict[str, list[str]]:
    return {
        name: sorted({study.split("-")[0] for split in SPLITS for study in getattr(client, split)["patient_id"]})
        for name, client in partition.clients.items()
    }


@pytest.mark.numerical
def test_style_clients_hold_one_wording_each_whatever_the_site() -> None:
    studies = _worded({"north": 6, "south": 9, "west": 7})
    for seed in range(3):
        partition = partition_clients(studies, "style", 3, seed)
        assert _styles(partition) == {"client-1": ["south"], "client-2": ["west"], "client-3": ["north"]}
        assert [len(client.train) for client in partition.clients.values()] == [9, 7, 6]
        assert set(partition.clients["client-1"].train["site"]) == {"x", "y"}
    assert sorted(study for ids in _held(partition).values() for study in ids) == sorted(studies["study_id"])


def test_an_outlier_in_wording_is_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two clusters one is a lone patient without test study; of three, less that one, two styles are left."""
    studies = _worded({"north": 8, "south": 8, "odd": 1}, {**WORDS, "odd": "Xxxx {n}."})
    studies = studies.select([row for row, name in enumerate(studies["patient_id"]) if not name.startswith("odd-te")])
    places = {"north": 0.0, "south": 1.0, "odd": 100.0}
    points = [[places[name.split("-")[0]] + row / 1000, 0.0] for row, name in enumerate(studies["patient_id"])]
    monkeypatch.setattr(style, "embed_reports", lambda *_: numpy.array(points))
    partition = partition_clients(studies, "style", 2, 0)
    assert _styles(partition) == {"client-1": ["odd", "south"], "client-2": ["north"]}
    monkeypatch.setattr(style, "MOST_CLUSTERS", 1)
    with pytest.raises(InputError, match="2 clients: client-2 would have 0 test studies and needs 1; lower clients"):
        partition_clients(studies, "style", 2, 0)


@pytest.mark.numerical
def test_style_is_fitted_on_training_reports_and_keeps_patients_together() -> None:
    studies = _worded({"north": 6, "south": 6})
    texts, patients = list(studies["findings"]), list(studies["patient_id"])
    splits = list(studies["split"])
    before = embed_reports(texts, splits, 0)
    others = ["unheard of" if split != "train" else text for text, split in zip(texts, splits, strict=True)]
    train = numpy.array(splits) == "train"
    numpy.testing.assert_allclose(embed_reports(others, splits, 0)[train], before[train], rtol=0, atol=1e-12)
    # Three studies of a patient, two in the first style: all three go with the majority.
    patients[0] = patients[1] = patients[splits.index("train", 18)] = "torn"
    torn = studies.remove_columns("patient_id").add_column("patient_id", patients).cast(STUDY_FEATURES)
    partition = partition_clients(torn, "style", 2, 0)
    owners = {name for name, client in partition.clients.items() if "torn" in client.train["patient_id"]}
    assert len(owners) == 1
    (owner,) = owners
    assert (
        "north" in _styles(partition)[owner] and list(partition.clients[owner].train["patient_id"]).count("torn") == 3
    )


@pytest.mark.numerical
def test_clients_by_style_are_further_apart_in_wording_than_clients_at_random() -> None:
    """The probe and the distance that sites are measured with take any partition's clients."""
    studies, accuracy, distance = _worded({"north": 12, "south": 12, "west": 12}), {}, {}
    for partition in ("style", "random"):
        dealt = partition_clients(studies, partition, 3, 0).clients
        train, test = (
            [(text, name) for name, client in dealt.items() for text in getattr(client, split)["findings"]]
            for split in ("train", "test")
        )
        accuracy[partition] = site_from_text(*zip(*train, strict=True), *zip(*test, strict=True))
        vectors = embed_reports([text for text, _ in train], ["train"] * len(train), 0)
        table = mean_distances(vectors, pandas.Series([name for _, name in train]))
        distance[partition] = table.to_numpy().sum() / 6
    assert accuracy["style"] == 1.0 and accuracy["random"] < 0.7
    assert distance["style"] > 5 * distance["random"]


def _labelled(seed: int, per_split: int) -> datasets.Dataset:
    """Studies with none, one or two positive findings, two images a patient."""
    rng = numpy.random.default_rng(seed)
    rows = [(f"{split}{n // 2}", "xy"[n // per_split], split) for split in SPLITS for n in range(2 * per_split)]
    chances = numpy.where(numpy.arange(len(FINDINGS)) < 6, numpy.linspace(0.3, 0.02, len(FINDINGS)), 0)
    states = [[POSITIVE if hit else 0 for hit in rng.random(len(FINDINGS)) < chances] for _ in rows]
    return study_rows(rows).remove_columns("states").add_column("states", states).cast(STUDY_FEATURES)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    partition=st.sampled_from(["dirichlet", "dirichlet-0.1", "dirichlet-100"]),
    clients=st.integers(2, 4),
    per_split=st.integers(8, 40),
    seed=st.integers(0, 1000),
)
def test_dirichlet_deals_every_patient_once(partition: str, clients: int, per_split: int, seed: int) -> None:
    studies = _labelled(seed, per_split)
    try:
        dealt = partition_clients(studies, partition, clients, seed)
    except InputError as error:
        assert re.search(r"client-\d would have \d+ (train|validation|test) studies and needs", str(error))
        return
    held = _held(dealt)
    assert sorted(study for ids in held.values() for study in ids) == sorted(studies["study_id"])
    patients = [set(getattr(c, split)["patient_id"]) for c in dealt.clients.values() for split in SPLITS]
    assert len(set.union(*patients)) == sum(map(len, patients)), "a patient is with two clients"
    assert min(map(len, patients)) >= 1
    assert held == _held(partition_clients(studies, partition, clients, seed))


@pytest.mark.parametrize("concentration", [0.001, 0.3, 100.0])
def test_dirichlet_deals_as_flwr_datasets_does(concentration: float) -> None:
    from flwr_datasets.partitioner import DirichletPartitioner

    labels = main_findings(_labelled(5, 60))
    train = dict(sorted(labels["train"].items()))
    for draw in range(3):
        partitioner = DirichletPartitioner(
            num_partitions=6, partition_by="finding", alpha=concentration, min_partition_size=0,
            seed=stream_seed(1, "partition", "dirichlet", draw),
        )  # fmt: skip
        order = numpy_stream(1, "partition", "dirichlet", draw, "train").permutation(len(train))
        rows = datasets.Dataset.from_dict({"patient": list(train), "finding": list(train.values())})
        partitioner.dataset = rows.select(order)
        owner = deal_patients(labels, 6, 1, draw, concentration)
        for client in range(6):
            own = {patient for patient in train if owner[patient] == client}
            assert own == set(partitioner.load_partition(client)["patient"])


def test_dirichlet_builds_no_data_set_before_a_draw_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of draws that fail have to be cheap: what is built for each of them took minutes."""
    studies, built = _labelled(0, 40), []
    monkeypatch.setattr(datasets.Dataset, "from_dict", lambda *_, **__: built.append("from_dict"))
    monkeypatch.setattr(datasets.Dataset, "select", lambda *_, **__: built.append("select"))
    with pytest.raises(InputError, match="client-01 would have 0 train studies and needs 1, and 300 draws"):
        by_findings(studies, 25, 0, 0.001)
    assert built == []


def _case_mix(partition: Partition, split: str) -> numpy.ndarray:
    """Share of each main finding at each client (K, 14)."""
    every = datasets.concatenate_datasets(
        [getattr(client, part) for client in partition.clients.values() for part in SPLITS]
    )
    label = {patient: name for of_split in main_findings(every).values() for patient, name in of_split.items()}
    counts = [
        [sum(label[patient] == name for patient in set(getattr(client, split)["patient_id"])) for name in FINDINGS]
        for client in partition.clients.values()
    ]
    return numpy.array(counts) / numpy.sum(counts, axis=1, keepdims=True)


def test_dirichlet_concentration_sets_how_unlike_the_clients_are_and_the_splits_follow() -> None:
    studies = _labelled(0, 150)
    spread = {}
    for partition in ("dirichlet-0.1", "dirichlet", "dirichlet-1000"):
        dealt = partition_clients(studies, partition, 4, 1)
        mixes = {split: _case_mix(dealt, split) for split in SPLITS}
        spread[partition] = numpy.abs(mixes["train"] - mixes["train"].mean(axis=0)).sum(axis=1).mean()
        for split in ("validation", "test"):
            assert numpy.abs(mixes[split] - mixes["train"]).sum(axis=1).mean() < 0.5 * max(spread[partition], 0.4)
        if partition == "dirichlet-1000":  # alike in sites, too, by which the rows are sorted
            for client in dealt.clients.values():
                assert 0.35 < numpy.mean(numpy.array(client.train["site"]) == "x") < 0.65
    assert spread["dirichlet-0.1"] > spread["dirichlet"] > 2 * spread["dirichlet-1000"]


def test_the_main_finding_is_the_rarest_in_training() -> None:
    studies = study_rows([("p0", "x", "train"), ("p1", "x", "train"), ("p2", "x", "train"), ("p3", "x", "test")])
    positive = [{0, 5}, {0}, set(), {0, 5, 13}]
    states = [[POSITIVE if number in own else 0 for number in range(len(FINDINGS))] for own in positive]
    labels = main_findings(studies.remove_columns("states").add_column("states", states).cast(STUDY_FEATURES))
    assert labels["train"] == {"p0": FINDINGS[5], "p1": FINDINGS[0], "p2": "no finding"}
    assert labels["test"] == {"p3": FINDINGS[5]} and labels["validation"] == {}
