"""What a partition is made of, and the steps that every way of dealing shares."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import datasets

from fedmrg_core.data.row_files import values_of
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError

SMALLEST_SHARE = 0.1  # of an even share: a client that clustering or chance makes smaller is not accepted [ours]


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
        unused: site name -> number of an unseen site's studies that are neither in `unseen` nor in `adaptation`.
        adaptation: site name -> train split of an unseen site, possibly empty. No client ever trains on it: it is what
            a trained model may be adapted with afterwards.
    """

    clients: dict[str, ClientStudies]
    unseen: dict[str, datasets.Dataset]
    unused: dict[str, int]
    adaptation: dict[str, datasets.Dataset] = dataclasses.field(default_factory=dict)


# (studies of the training sites, number of clients, root seed, number in the partition's name) -> name -> studies
Deal = Callable[[datasets.Dataset, int | None, int, float | None], dict[str, ClientStudies]]


def split_of(studies: datasets.Dataset, split: str) -> datasets.Dataset:
    """The studies of one split in their order."""
    return studies.select([row for row, (name,) in enumerate(values_of(studies, "split")) if name == split])


def client_name(number: int, clients: int) -> str:
    """Name of client `number` (from 0) of `clients`, such that names sort like numbers: client-01, ..., client-10."""
    return f"client-{number + 1:0{len(str(clients))}d}"


def clients_of_patients(studies: datasets.Dataset, owner: Mapping[str, int], clients: int) -> dict[str, ClientStudies]:
    """Every study to the client that owns its patient; `owner` maps patients to client numbers from 0."""
    rows: dict[tuple[int, str], list[int]] = {(number, split): [] for number in range(clients) for split in SPLITS}
    for row, (patient, split) in enumerate(values_of(studies, "patient_id", "split")):
        rows[owner[patient], split].append(row)
    return {
        client_name(number, clients): ClientStudies(**{split: studies.select(rows[number, split]) for split in SPLITS})
        for number in range(clients)
    }


def check_patients(studies: datasets.Dataset, clients: int) -> dict[str, set[str]]:
    """Split -> its patients, held against the number of clients.

    Raises:
        InputError: a split has fewer patients than there are clients.
    """
    patients: dict[str, set[str]] = {split: set() for split in SPLITS}
    for patient, split in values_of(studies, "patient_id", "split"):
        patients[split].add(patient)
    for split, own in patients.items():
        if len(own) < clients:
            raise InputError(f"clients is {clients} but the {split} split has {len(own)} patient(s); lower clients.")
    return patients


def smallest_counts(splits: Sequence[str], clients: int) -> dict[str, int]:
    """Split -> fewest studies a client may have: SMALLEST_SHARE of an even share, and at least one."""
    total = collections.Counter(splits)
    return {split: max(1, int(SMALLEST_SHARE * total[split] / clients)) for split in SPLITS}


Held = collections.Counter  # (client number, split) -> studies


def count_held(patients: Sequence[str], splits: Sequence[str], owner: Mapping[str, int]) -> Held:
    """How many studies of each split each client holds, from the patient and split of every study."""
    return collections.Counter((owner[patient], split) for patient, split in zip(patients, splits, strict=True))


def shortages(held: Held, clients: int, needed: Mapping[str, int]) -> list[tuple[int, str]]:
    """(client number, split) wherever a client holds fewer studies than needed; fewest training studies first."""
    by_size = sorted(range(clients), key=lambda number: (held[number, "train"], number))
    return [(number, split) for number in by_size for split in SPLITS if held[number, split] < needed[split]]


def describe_shortage(shortage: tuple[int, str], held: Held, clients: int, needed: Mapping[str, int]) -> str:
    """The middle of a sentence: "client-3 would have 0 test studies and needs 2"."""
    client, split = shortage
    return f"{client_name(client, clients)} would have {held[shortage]} {split} studies and needs {needed[split]}"
