"""Clients from studies, by flwr-datasets partitioners: one row of `PARTITIONS` for each way of dealing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import datasets
from flwr_datasets.partitioner import IidPartitioner, NaturalIdPartitioner, Partitioner

from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream


@dataclasses.dataclass(frozen=True)
class ClientStudies:
    """The three parts of one client, each by the Study schema and none of them empty."""

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset


@dataclasses.dataclass(frozen=True)
class Partition:
    """Who holds what.

    Attributes:
        clients: client name -> studies, in the order of the names.
        unseen: site name -> test studies of a site that never trains, in the order of the names.
        unused: site name -> number of train and validation studies of an unseen site, which nobody uses.
    """

    clients: dict[str, ClientStudies]
    unseen: dict[str, datasets.Dataset]
    unused: dict[str, int]


Deal = Callable[[datasets.Dataset, int | None, int], dict[str, ClientStudies]]


def partition_clients(
    studies: datasets.Dataset,
    partition: str = "site",
    clients: int | None = None,
    seed: int = 0,
    unseen_sites: Sequence[str] = (),
) -> Partition:
    """Deal studies to clients.

    Args:
        studies: all studies of a data set (contract 1).
        partition: "site": one client a site, named after it; "random": every split dealt evenly at random, all
            studies of one patient to one client.
        clients: number of clients; needed by "random", and for "site" None or the number of sites.
        seed: root seed; the stream "partition" is drawn from.
        unseen_sites: sites held out of training. Only their test split is used, so that a site is measured on the same
            studies whether it took part in training or not.

    Raises:
        InputError: an unknown partition or site, fewer than two clients, or a client or unseen site that lacks a split.
    """
    if partition not in PARTITIONS:
        raise InputError(f"partition is {partition!r}; expected one of {', '.join(PARTITIONS)}.")
    if clients is not None and clients < 2:
        raise InputError(f"clients is {clients}; a federation needs at least 2.")
    sites = list(studies["site"])
    for site in unseen_sites:
        if site not in sites:
            raise InputError(
                f"unseen_sites names {site!r}; the data set has the sites {', '.join(sorted(set(sites)))}."
            )
    held_out = set(unseen_sites)
    home = studies.select([index for index, site in enumerate(sites) if site not in held_out])
    dealt = PARTITIONS[partition](home, clients, seed)
    unseen, unused = {}, {}
    for site in sorted(held_out):
        own = studies.select([index for index, name in enumerate(sites) if name == site])
        unseen[site] = _split_of(own, "test")
        unused[site] = len(own) - len(unseen[site])
        if not len(unseen[site]):
            raise InputError(f"unseen site {site!r} has no test study; put studies into its test split or take it out.")
    return Partition({name: dealt[name] for name in sorted(dealt)}, unseen, unused)


def _by_site(studies: datasets.Dataset, clients: int | None, seed: int) -> dict[str, ClientStudies]:
    """One client a site; nothing is random."""
    sites = sorted(set(studies["site"]))
    if len(sites) < 2:
        raise InputError(
            f"partition 'site' finds {len(sites)} training site(s) ({', '.join(sites) or 'none'}); "
            "it needs at least 2, give partition='random' and a number of clients instead."
        )
    if clients not in (None, len(sites)):
        raise InputError(
            f"clients is {clients} but there are {len(sites)} training sites; leave clients out for 'site'."
        )
    partitioner = NaturalIdPartitioner(partition_by="site")
    partitioner.dataset = studies
    parts = _load_all(partitioner)
    dealt = {}
    for number, site in partitioner.partition_id_to_natural_id.items():
        splits = {split: _split_of(parts[number], split) for split in SPLITS}
        for split, part in splits.items():
            if not len(part):
                raise InputError(
                    f"site {site!r} has no {split} study; add some to its {split} split or name it in unseen_sites."
                )
        dealt[site] = ClientStudies(**splits)
    return dealt


def _at_random(studies: datasets.Dataset, clients: int | None, seed: int) -> dict[str, ClientStudies]:
    """Each split shuffled by patient and dealt into `clients` parts of equal size (to one patient)."""
    if clients is None:
        raise InputError("partition 'random' needs the parameter clients; give a number of at least 2.")
    parts: dict[str, list[datasets.Dataset]] = {}
    for split in SPLITS:
        own = _split_of(studies, split)
        patients = sorted(set(own["patient_id"]))
        if len(patients) < clients:
            raise InputError(
                f"clients is {clients} but the {split} split has {len(patients)} patient(s); lower clients."
            )
        numpy_stream(seed, "partition", "random", split).shuffle(patients)
        partitioner = IidPartitioner(num_partitions=clients)
        partitioner.dataset = datasets.Dataset.from_dict({"patient_id": patients})
        owners = [set(part["patient_id"]) for part in _load_all(partitioner)]
        patient_of_row = list(own["patient_id"])
        parts[split] = [
            own.select([row for row, patient in enumerate(patient_of_row) if patient in owner]) for owner in owners
        ]
    digits = len(str(clients))
    return {
        f"client-{number + 1:0{digits}d}": ClientStudies(**{split: parts[split][number] for split in SPLITS})
        for number in range(clients)
    }


def _load_all(partitioner: Partitioner) -> list[datasets.Dataset]:
    return [partitioner.load_partition(number) for number in range(partitioner.num_partitions)]


def _split_of(studies: datasets.Dataset, split: str) -> datasets.Dataset:
    return studies.select([index for index, name in enumerate(studies["split"]) if name == split])


PARTITIONS: dict[str, Deal] = {"site": _by_site, "random": _at_random}
