"""Dirichlet over findings: clients that differ in what their patients have [related: label skew by a Dirichlet draw].

The label of a study is its main finding: the positive finding that is rarest in training, or "no finding". Patients of
the train split are dealt as flwr-datasets' `DirichletPartitioner` deals them (a test holds the two together), in plain
arrays: building a data set a client for each of hundreds of draws would take minutes. Validation and test follow the
shares that came out, finding by finding, so that a client is measured on the case mix it was trained on.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping

import datasets
import numpy

from fedmrg_core.data.findings import FINDINGS, POSITIVE
from fedmrg_core.data.partition.parts import (
    ClientStudies,
    check_patients,
    clients_of_patients,
    count_held,
    describe_shortage,
    shortages,
    smallest_counts,
)
from fedmrg_core.data.row_files import column_of, values_of
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream, stream_seed

MOST_DRAWS = 300  # before a concentration counts as impossible for these data
NO_FINDING = FINDINGS[-1]


def by_findings(studies: datasets.Dataset, clients: int, seed: int, concentration: float) -> dict[str, ClientStudies]:
    """Deal patients by main finding with shares from Dirichlet(concentration); small values make clients unlike.

    The draw is repeated until every client has `parts.smallest_counts` of each split.

    Raises:
        InputError: a split has fewer patients than there are clients, or no draw gave every client enough studies.
    """
    check_patients(studies, clients)
    patients, splits = column_of(studies, "patient_id"), column_of(studies, "split")
    needed = smallest_counts(splits, clients)
    labels = main_findings(studies)
    refusal = ""
    for draw in range(MOST_DRAWS):
        owner = deal_patients(labels, clients, seed, draw, concentration)
        held = count_held(patients, splits, owner)
        short = shortages(held, clients, needed)
        if not short:
            return clients_of_patients(studies, owner, clients)
        refusal = refusal or describe_shortage(short[0], held, clients, needed)
    raise InputError(
        f"partition 'dirichlet-{concentration:g}' with {clients} clients: {refusal}, and {MOST_DRAWS} draws did not "
        "mend it; raise the concentration or lower clients."
    )


def main_findings(studies: datasets.Dataset) -> dict[str, dict[str, str]]:
    """Split -> patient -> main finding over all studies of the patient in that split.

    Rarity is counted in studies of the train split; a finding that no training study has counts as rarest, and equally
    rare ones rank as in FINDINGS.
    """
    counts: collections.Counter[str] = collections.Counter()
    seen: dict[str, dict[str, set[str]]] = {split: {} for split in SPLITS}
    for patient, split, states in values_of(studies, "patient_id", "split", "states"):
        found = {name for name, state in zip(FINDINGS, states, strict=True) if state == POSITIVE} - {NO_FINDING}
        seen[split].setdefault(patient, set()).update(found)
        counts.update(found if split == "train" else ())
    rank = {name: (counts[name], FINDINGS.index(name)) for name in FINDINGS}
    return {
        split: {patient: min(found, key=rank.__getitem__, default=NO_FINDING) for patient, found in of_split.items()}
        for split, of_split in seen.items()
    }


def deal_patients(
    labels: Mapping[str, Mapping[str, str]], clients: int, seed: int, draw: int, concentration: float
) -> dict[str, int]:
    """Patient -> client number, for one draw of the shares."""
    train = dict(sorted(labels["train"].items()))
    # Each label's patients are cut as they stand; unshuffled, a client would get whole sites of them.
    order = numpy_stream(seed, "partition", "dirichlet", draw, "train").permutation(len(train))
    patients = numpy.array(list(train), dtype=object)[order]
    findings = numpy.array(list(train.values()))[order]
    owner: dict[str, int] = {}
    rng = numpy.random.default_rng(stream_seed(seed, "partition", "dirichlet", draw))
    for finding in numpy.unique(findings):
        own = patients[findings == finding]
        ends = numpy.cumsum(rng.dirichlet(numpy.full(clients, concentration))) * len(own)
        for client, part in enumerate(numpy.split(own, ends.astype(int)[:-1])):
            owner |= dict.fromkeys(part.tolist(), client)
    shares = _shares(train, owner, clients)
    for split in SPLITS[1:]:
        rng = numpy_stream(seed, "partition", "dirichlet", draw, split)
        for finding, patients in _by_label(labels[split]).items():
            rng.shuffle(patients)
            share = shares[finding] if shares[finding].any() else sum(shares.values())
            ends = numpy.cumsum(share) / share.sum() * len(patients) + rng.random()  # rounds up as often as down
            for client, part in enumerate(numpy.split(patients, numpy.floor(ends[:-1]).astype(int))):
                for patient in part.tolist():
                    owner.setdefault(patient, client)  # a patient of training studies stays with their client
    return owner


def _shares(train: Mapping[str, str], owner: Mapping[str, int], clients: int) -> dict[str, numpy.ndarray]:
    """Finding -> number of training patients at each client (K,)."""
    shares = {name: numpy.zeros(clients) for name in FINDINGS}
    for patient, finding in train.items():
        shares[finding][owner[patient]] += 1
    return shares


def _by_label(labels: Mapping[str, str]) -> dict[str, list[str]]:
    """Finding -> patients, both sorted."""
    patients: dict[str, list[str]] = {}
    for patient, finding in sorted(labels.items(), key=lambda item: (item[1], item[0])):
        patients.setdefault(finding, []).append(patient)
    return patients
