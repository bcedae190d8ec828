"""Prepared folders: a data set read once, checked, resized and stored, for every run that follows.

A prepared folder holds `studies/` (a `datasets` folder, images as 8-bit PNG of one size), `left_out.csv` (what was
not used and why) and `summary.json` (counts, prevalence, options, fingerprint). It is written beside its place and
moved there whole. Images are written one by one and read from disk, so a set of any size takes the memory of a small
one. One folder is for one data set: another never takes its place.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy
import torch
from torch import Tensor

from fedmrg_core.data.findings import FINDINGS, STATES
from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.partition import Partition, partition_clients
from fedmrg_core.data.phantom.studies import TEXTS_PER_IMAGE, public_texts
from fedmrg_core.data.prepared_folder import (
    LEFT_OUT,
    STUDIES,
    SUMMARY,
    check_place,
    digest_of,
    key_of,
    restore_older,
    scratch_beside,
    stored_summary,
    write_prepared,
)
from fedmrg_core.data.row_files import rows_written_below, values_of
from fedmrg_core.data.site_names import find_sites
from fedmrg_core.data.sources import DATA_SOURCES, call_loader, call_public_corpus, data_source
from fedmrg_core.data.study import STUDY_FEATURES, LeftOut, LoadedStudies, check_studies
from fedmrg_core.errors import InputError
from fedmrg_core.files.stored_tables import text_of_cell


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        studies: every study in use (contract 1).
        left_out: what was not used, and why.
        summary: the content of summary.json: data, image_size, seed, options, key, studies (site -> split -> count),
            states (site -> finding -> state -> count), vocabulary, left_out (reason -> count), warnings (sentences),
            unseen_sites, version (of the data source), root (digest of the folder it was read from; "" for none),
            fingerprint. What may be published is said in `sources.DATA_SOURCES` alone.
    """

    studies: datasets.Dataset
    left_out: list[LeftOut]
    summary: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """sha256 over study ids, sites, splits, texts, pixels and states: equal fingerprint, equal data."""
        return self.summary["fingerprint"]

    @property
    def unseen_sites(self) -> tuple[str, ...]:
        """Sites that never train."""
        return tuple(self.summary["unseen_sites"])

    def deal(
        self, partition: str, clients: int | None, seed: int, unseen_sites: Sequence[str] | None = None
    ) -> Partition:
        """Deal the studies to clients, see `partition_clients`; without `unseen_sites` its own are held out.

        Raises:
            InputError: see `partition_clients`.
        """
        held_out = self.unseen_sites if unseen_sites is None else unseen_sites
        return partition_clients(self.studies, partition, clients=clients, seed=seed, unseen_sites=held_out)


@dataclasses.dataclass(frozen=True)
class PublicStudies:
    """A public corpus for pretraining base models; texts and images need not be of the same studies."""

    texts: list[str]
    text_states: Tensor  # (N, 14) int64
    images: Tensor  # (M, 1, H, W) uint8
    image_states: Tensor  # (M, 14) int64
    fingerprint: str  # sha256 over texts, pixels and states


def prepare(
    data: str,
    root: pathlib.Path | str | None,
    folder: pathlib.Path,
    image_size: int,
    seed: int,
    unseen_sites: Sequence[str] | None = None,
    **options: Any,
) -> Prepared:
    """Prepare a data set, or reuse the folder if it was made from the same arguments, files and code.

    What the loader warns of is printed on standard error when the folder is made, and kept in its summary.

    Args:
        data: name in `fedmrg_core.data.sources.DATA_SOURCES`, with options behind it where the row takes some.
        root: the folder with the data; None or "" for data sets that make their own.
        folder: where the prepared data go; an older state of the same data set there is replaced, another data set
            never is.
        image_size: height and width of the images in pixels.
        seed: root seed.
        unseen_sites: sites that never train; None: the data set's own (the phantom's "centre-f").
        options: the loader's own parameters, e.g. train=100 for the phantom or layout="openi" for IU X-ray.

    Raises:
        InputError: bad arguments or bad data, or `folder` holds another prepared data set or something else.
    """
    source = data_source(data)
    unseen = sorted(source.unseen_sites if unseen_sites is None else unseen_sites)
    request = {"data": data, "image_size": image_size, "seed": seed, "unseen_sites": unseen, "options": _plain(options)}
    read_from = pathlib.Path(root) if root and source.needs_root else None
    key = key_of(request, source, read_from)
    folder = pathlib.Path(folder)
    restore_older(folder)
    place = {"data": data, "root": digest_of([str(read_from.resolve()).encode()]) if read_from else ""}
    check_place(folder, place)
    if stored_summary(folder).get("key") == key:
        return load_prepared(folder)
    with scratch_beside(folder) as scratch, rows_written_below(scratch):
        loaded = call_loader(data, root, image_size, seed, **options)
        check_studies(loaded.studies, data)
        find_sites(unseen, (site for (site,) in values_of(loaded.studies, "site")), "unseen_sites")
        summary = {**request, "key": key, "version": source.version, "root": place["root"]} | summarise(loaded)
        write_prepared(folder, loaded, summary, scratch)
    for sentence in loaded.warnings:
        print(f"Warning: {sentence}", file=sys.stderr)
    return load_prepared(folder)


def load_prepared(folder: pathlib.Path) -> Prepared:
    """Open a prepared folder; its images stay on disk until they are asked for.

    Raises:
        InputError: it is missing or incomplete.
    """
    folder = pathlib.Path(folder)
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        with (folder / LEFT_OUT).open(newline="", encoding="utf-8") as handle:
            left_out = [
                LeftOut(**{name: text_of_cell(cell) for name, cell in row.items()}) for row in csv.DictReader(handle)
            ]
        studies = datasets.load_from_disk(str(folder / STUDIES), keep_in_memory=False)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder} is not a complete prepared folder ({error}); prepare the data first (notebook 01)."
        ) from None
    return Prepared(studies, left_out, summary)


def load_public_studies(
    data: str, root: pathlib.Path | str | None, count: int, image_size: int, seed: int, **options: Any
) -> PublicStudies:
    """The public corpus of a data set as tensors.

    Args:
        data: name of the data set.
        root: the folder with the data; None or "" for data sets that make their own.
        count: number of studies to make; data sets that are read from files return all they have.
        image_size: height and width of the images in pixels.
        seed: root seed.
        options: the corpus's own parameters.

    Raises:
        InputError: the data set has none, or bad arguments or data.
    """
    part = call_public_corpus(data, root, count, image_size, seed, **options)
    pixels = numpy.stack([numpy.asarray(image) for image in part.studies["image"]])
    text_states = torch.tensor([label_report(text) for text in part.texts], dtype=torch.int64)
    image_states = torch.tensor(list(part.studies["states"]), dtype=torch.int64)
    pieces = [*(text.encode() for text in part.texts), pixels.tobytes(), image_states.numpy().tobytes()]
    return PublicStudies(
        part.texts, text_states, torch.from_numpy(pixels).unsqueeze(1), image_states, digest_of(pieces)
    )


def load_public_texts(data: str, count: int, seed: int) -> tuple[list[str], Tensor]:
    """The tenth of the phantom's public texts that base models do not learn from, without drawing an image.

    Args:
        data: name of a data set whose public corpus is the phantom's.
        count: number of images of the corpus, as in :func:`load_public_studies`.
        seed: root seed.

    Returns:
        N texts, and their states (N, 14).

    Raises:
        InputError: the data set's public corpus is another, which has to be read whole.
    """
    if data_source(data).public_corpus != DATA_SOURCES["phantom"].public_corpus:
        raise InputError(f"data is {data!r}: only the phantom's public texts are made without its images.")
    texts = public_texts(count * TEXTS_PER_IMAGE // 10, seed)
    return texts, torch.tensor([label_report(text) for text in texts], dtype=torch.int64)


def summarise(loaded: LoadedStudies) -> dict[str, Any]:
    """Counts of studies, states, words and of what was left out, warnings, fingerprint (see `Prepared.summary`)."""
    studies = loaded.studies
    counts: dict[str, dict[str, int]] = {}
    prevalence: dict[str, dict[str, dict[str, int]]] = {}
    words: set[str] = set()
    for site, split, text, states in values_of(studies, "site", "split", "findings", "states"):
        counts.setdefault(site, {}).setdefault(split, 0)
        counts[site][split] += 1
        for finding, state in zip(FINDINGS, states, strict=True):
            by_state = prevalence.setdefault(site, {}).setdefault(finding, dict.fromkeys(STATES, 0))
            by_state[STATES[state]] += 1
        if split == "train":
            words.update(re.findall(r"[\w'-]+", text.lower()))
    return {
        "studies": {site: counts[site] for site in sorted(counts)},
        "states": {site: prevalence[site] for site in sorted(prevalence)},
        "vocabulary": len(words),  # distinct lower-case words of the training findings
        "left_out": dict(sorted(collections.Counter(row.reason for row in loaded.left_out).items())),
        "warnings": loaded.warnings,
        "fingerprint": fingerprint(studies),
    }


def fingerprint(studies: datasets.Dataset) -> str:
    """sha256 over ids, sites, splits, views, texts, states and decoded pixels of all studies in their order."""
    names = [name for name in STUDY_FEATURES if name != "image"]

    def pieces() -> Iterator[bytes]:  # one study at a time: all pixels of a large set need not fit into memory
        for row in studies:
            yield json.dumps([row[name] for name in names]).encode()
            yield numpy.ascontiguousarray(row["image"]).tobytes()

    return digest_of(pieces())


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON holds them; folders (a cache) say nothing about the data and stay out."""
    kept = {name: value for name, value in sorted(options.items()) if not isinstance(value, pathlib.Path)}
    kept = {name: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for name, v in kept.items()}
    try:
        return json.loads(json.dumps(kept))
    except TypeError as error:
        raise InputError(f"the options of a data set have to be numbers, texts or lists; {error}.") from None
