"""Style clusters: clients whose reports are worded alike, whatever site they come from [paper: clusters of reports].

Reports are embedded by TF-IDF of words and word pairs, reduced by a truncated SVD, and clustered by k-means [ours; by
[secondary] the paper clusters embeddings of reports with k-means]. Everything is fitted on the train split;
validation and test studies go to the nearest centroid.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import datasets
import numpy
import threadpoolctl
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import pairwise_distances_argmin
from sklearn.preprocessing import normalize

from fedmrg_core.data.partition.parts import (
    ClientStudies,
    Held,
    check_patients,
    clients_of_patients,
    count_held,
    describe_shortage,
    shortages,
    smallest_counts,
)
from fedmrg_core.data.row_files import column_of
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import stream_seed

DIMENSIONS = 32  # of a report's embedding
RESTARTS = 10  # of k-means; the tightest clustering is kept
MOST_CLUSTERS = 4  # times the clients: how fine a clustering is tried before giving up


def by_style(studies: datasets.Dataset, clients: int, seed: int, number: float | None) -> dict[str, ClientStudies]:
    """Clients named client-1, client-2, ... from the cluster with the most training studies to the one with the fewest.

    All studies of a patient go to the client of most of them. K-means makes `clients` clusters; where one of them is
    an outlier (a split of it is missing or below `parts.smallest_counts`), a finer clustering is made and its smallest
    clusters are given up, their studies going to the nearest that is left, until `clients` sufficient ones remain.

    Raises:
        InputError: a split has fewer patients than there are clients, too few different training
            reports, or no clustering gives every client enough studies.
    """
    check_patients(studies, clients)
    patients, splits = column_of(studies, "patient_id"), column_of(studies, "split")
    needed = smallest_counts(splits, clients)
    vectors = embed_reports(column_of(studies, "findings"), splits, seed)
    train = vectors[[split == "train" for split in splits]]
    different = len(numpy.unique(train, axis=0))
    if different < clients:
        raise InputError(
            f"partition 'style': clients is {clients} but the training reports have {different} different wording(s); "
            "lower clients or add studies."
        )
    refusal = ""
    for clusters in range(clients, min(MOST_CLUSTERS * clients, different) + 1):
        centroids = _k_means(train, clusters, seed)
        owner, held = _settle(vectors, centroids, patients, splits, clients, needed)
        short = shortages(held, clients, needed)
        if not short:
            order = sorted(range(clients), key=lambda client: (-held[client, "train"], client))
            ranked = {patient: order.index(client) for patient, client in owner.items()}
            return clients_of_patients(studies, ranked, clients)
        refusal = refusal or describe_shortage(short[0], held, clients, needed)
    raise InputError(f"partition 'style' with {clients} clients: {refusal}; lower clients or add studies.")


def embed_reports(texts: Sequence[str], splits: Sequence[str], seed: int) -> numpy.ndarray:
    """Embeddings (N, D) of unit length, fitted on the training reports among `texts`.

    Raises:
        InputError: the training reports hold no word.
    """
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    try:
        words.fit([text for text, split in zip(texts, splits, strict=True) if split == "train"])
    except ValueError:
        raise InputError("partition 'style': the train split has no report with words in it; add studies.") from None
    counted = words.transform(texts)
    train = counted[numpy.flatnonzero([split == "train" for split in splits])]
    size = min(DIMENSIONS, *train.shape)
    reduction = TruncatedSVD(size, random_state=_random_state(seed, "embedding"))
    with threadpoolctl.threadpool_limits(1):  # threads add up in any order, and the last bits could decide
        return normalize(reduction.fit(train).transform(counted))


def _k_means(train: numpy.ndarray, clusters: int, seed: int) -> numpy.ndarray:
    """Centroids (C, D)."""
    with threadpoolctl.threadpool_limits(1):
        fitted = KMeans(clusters, n_init=RESTARTS, random_state=_random_state(seed, "k-means", clusters)).fit(train)
    return fitted.cluster_centers_


def _settle(
    vectors: numpy.ndarray,
    centroids: numpy.ndarray,
    patients: Sequence[str],
    splits: Sequence[str],
    clients: int,
    needed: Mapping[str, int],
) -> tuple[dict[str, int], Held]:
    """Give up the smallest clusters, insufficient ones first, until `clients` are left: the owners and what they hold.

    Args:
        vectors: embedding of every study (N, D).
        centroids: (C, D), C at least `clients`.
        patients: patient of every study.
        splits: split of every study.
        clients: number of clusters wanted.
        needed: split -> fewest studies of a client.
    """
    while True:
        owner = _majority(patients, pairwise_distances_argmin(vectors, centroids))
        held = count_held(patients, splits, owner)
        if len(centroids) == clients:
            return owner, held
        short = shortages(held, len(centroids), needed)
        smallest = min(range(len(centroids)), key=lambda number: held[number, "train"])
        centroids = numpy.delete(centroids, short[0][0] if short else smallest, axis=0)


def _majority(patients: Sequence[str], clusters: numpy.ndarray) -> dict[str, int]:
    """Patient -> cluster of most of the patient's studies; a tie goes to the cluster with the lower number."""
    votes: dict[str, collections.Counter] = {}
    for patient, cluster in zip(patients, clusters.tolist(), strict=True):
        votes.setdefault(patient, collections.Counter())[cluster] += 1
    return {patient: min(count, key=lambda cluster: (-count[cluster], cluster)) for patient, count in votes.items()}


def _random_state(seed: int, *names: str | int) -> int:
    """scikit-learn takes 32 bits."""
    return stream_seed(seed, "partition", "style", *names) % 2**32
