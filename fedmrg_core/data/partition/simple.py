"""Partitions that look at no report: one client a site, or everything dealt evenly at random."""

from __future__ import annotations

import datasets
from flwr_datasets.partitioner import IidPartitioner

from fedmrg_core.data.partition.parts import ClientStudies, check_patients, clients_of_patients
from fedmrg_core.data.row_files import values_of
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream


def by_site(
    studies: datasets.Dataset, clients: int | None, seed: int, number: float | None
) -> dict[str, ClientStudies]:
    """One client a site, named after it; nothing is random.

    Raises:
        InputError: fewer than two sites, another number of clients than of sites, or a site that lacks a split.
    """
    rows: dict[str, dict[str, list[int]]] = {}
    for row, (site, split) in enumerate(values_of(studies, "site", "split")):
        rows.setdefault(site, {name: [] for name in SPLITS})[split].append(row)
    sites = sorted(rows)
    if len(sites) < 2:
        raise InputError(
            f"partition 'site' finds {len(sites)} training site(s) ({', '.join(sites) or 'none'}); "
            "it needs at least 2, give partition='random' and a number of clients instead."
        )
    if clients not in (None, len(sites)):
        raise InputError(
            f"clients is {clients} but there are {len(sites)} training sites; leave clients out for 'site'."
        )
    dealt = {}
    for site in sites:
        for split, own in rows[site].items():
            if not own:
                raise InputError(
                    f"site {site!r} has no {split} study; add some to its {split} split or name it in unseen."
                )
        dealt[site] = ClientStudies(**{split: studies.select(own) for split, own in rows[site].items()})
    return dealt


def at_random(studies: datasets.Dataset, clients: int, seed: int, number: float | None) -> dict[str, ClientStudies]:
    """Each split shuffled by patient and dealt into `clients` parts of equal size (to one patient).

    Raises:
        InputError: a split has fewer patients than there are clients.
    """
    patients_of = check_patients(studies, clients)
    owner: dict[str, int] = {}
    for split in SPLITS:
        patients = sorted(patients_of[split])
        numpy_stream(seed, "partition", "random", split).shuffle(patients)
        partitioner = IidPartitioner(num_partitions=clients)
        partitioner.dataset = datasets.Dataset.from_dict({"patient_id": patients})
        for client in range(clients):
            for (patient,) in values_of(partitioner.load_partition(client), "patient_id"):
                owner.setdefault(patient, client)  # a patient of two splits stays with one client
    return clients_of_patients(studies, owner, clients)
