"""Which fingerprints of prepared data mean the same data: figures/reference/equal_data.csv, made from evidence.

Two things changed after references were stored, and each is held against today's data study by study:

- PhantomCXR was drawn in single precision up to version 4, so that a few pixels in a million depended on the processor:
  most by one grey level, and where a hard edge runs through the middle of a pixel by more. Version 5 draws in double
  precision and is the same everywhere.
- The labeller reads more ways to word a finding than it did, so that a few reports of a real set have another state.

Two data sets count as one if they differ by no more than rounding does, and in few states. Tables that mix labels say
so, see `label_note`.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy
import pandas

from fedmrg_core.data.prepared import Prepared
from fedmrg_core.data.study import STUDY_FEATURES
from fedmrg_core.errors import InputError
from fedmrg_core.files.stored_tables import read_table, table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.paths import REPOSITORY

FILE = REPOSITORY / "figures" / "reference" / "equal_data.csv"
_COUNTS = (
    *("studies", "pixels", "different_pixels", "jumping_pixels", "worst_study"),
    *("relabelled", "test_studies", "relabelled_test"),
)
COLUMNS = ("fingerprint", "same_as", "data", "version", *_COUNTS)
# What rounding does at most. Seen between versions 4 and 5: 2e-5, 2e-7 and 3e-3. A study exchanged, another noise or
# style moves nearly every pixel of a study.
LARGEST_SHARE = 1e-4  # of all pixels that differ
LARGEST_JUMPS = 1e-6  # of all pixels that differ by more than one grey level: at an edge
LARGEST_SHARE_OF_STUDY = 1e-2  # of one study's pixels that differ
# How many studies may have another state. F1 by example is a mean over test studies, so it moves by less than their
# share. Seen on IU X-ray: .012 of all studies, .007 of the test studies.
LARGEST_RELABELLED = 2e-2
LARGEST_RELABELLED_TEST = 1e-2


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far pixels and states of two prepared data sets of the same studies differ.

    Attributes:
        studies: number of studies.
        pixels: number of pixels of all studies.
        different_pixels: how many of them differ.
        jumping_pixels: how many differ by more than one grey level.
        worst_study: the largest share of one study's pixels that differ.
        relabelled: in how many studies the state of a finding differs.
        test_studies: number of test studies.
        relabelled_test: in how many of these the state of a finding differs.
    """

    studies: int
    pixels: int
    different_pixels: int
    jumping_pixels: int
    worst_study: float
    relabelled: int = 0
    test_studies: int = 0
    relabelled_test: int = 0

    @property
    def is_rounding(self) -> bool:
        """Whether this is no more than the last bit of the sums that a pixel is rounded from."""
        few = self.different_pixels <= LARGEST_SHARE * self.pixels
        at_edges = self.jumping_pixels <= LARGEST_JUMPS * self.pixels
        return few and at_edges and self.worst_study <= LARGEST_SHARE_OF_STUDY

    @property
    def has_few_new_labels(self) -> bool:
        """Whether so few states differ that measures may stand in one table, with a note."""
        in_test = self.relabelled_test <= LARGEST_RELABELLED_TEST * self.test_studies
        return in_test and self.relabelled <= LARGEST_RELABELLED * self.studies

    @property
    def counts_as_same(self) -> bool:
        """Whether the two count as one."""
        return self.is_rounding and self.has_few_new_labels

    def __str__(self) -> str:
        pixels = (
            f"{self.different_pixels} of {self.pixels} pixels differ, {self.jumping_pixels} by more than one grey "
            f"level, at most {self.worst_study:.2%} of a study's"
        )
        if not self.relabelled:
            return pixels
        return (
            f"{pixels}; {self.relabelled} of {self.studies} studies have another state, {self.relabelled_test} of "
            f"{self.test_studies} test studies among them"
        )


def difference(first: Prepared, second: Prepared) -> Difference:
    """Compare two prepared data sets, study by study.

    Raises:
        InputError: they are not the same studies: an id, site, split, view or text differs, or an image's size.
    """
    names = [name for name in STUDY_FEATURES if name not in ("image", "states")]
    if len(first.studies) != len(second.studies):
        raise InputError(f"the data sets hold {len(first.studies)} and {len(second.studies)} studies: other data.")
    pixels, different, jumping, worst = 0, 0, 0, 0.0
    relabelled = collections.Counter[str]()
    for one, other in zip(first.studies, second.studies, strict=True):
        if changed := [name for name in names if one[name] != other[name]]:
            raise InputError(f"study {one['study_id']!r} differs in {', '.join(changed)}: other data.")
        if one["image"].size != other["image"].size:
            raise InputError(f"study {one['study_id']!r}: images of another size: other data.")
        change = numpy.abs(numpy.asarray(one["image"], dtype=int) - numpy.asarray(other["image"], dtype=int))
        here = int((change > 0).sum())
        pixels, different, jumping = pixels + change.size, different + here, jumping + int((change > 1).sum())
        worst = max(worst, here / change.size)
        relabelled[one["split"]] += one["states"] != other["states"]
    tested = first.studies["split"].count("test")
    labels = relabelled.total(), tested, relabelled["test"]
    return Difference(len(first.studies), pixels, different, jumping, round(worst, 6), *labels)


def record_equal_data(older: Prepared, current: Prepared, file: pathlib.Path = FILE) -> Difference:
    """Note in the table that two prepared data sets are the same up to rounding and a few states.

    Args:
        older: as an earlier version or another processor made it.
        current: as this version makes it.
        file: the table.

    Raises:
        InputError: they are other data, see `difference`, or differ by more than rounding and a few states.
    """
    found = difference(older, current)
    if not found.counts_as_same:
        raise InputError(
            f"{found}; rounding explains at most {LARGEST_SHARE:.2%}, {LARGEST_JUMPS:.4%} and "
            f"{LARGEST_SHARE_OF_STUDY:.0%} of the pixels, a newer labeller {LARGEST_RELABELLED:.0%} of the studies and "
            f"{LARGEST_RELABELLED_TEST:.0%} of the test studies: other data."
        )
    row = {
        "fingerprint": older.fingerprint,
        "same_as": current.fingerprint,
        "data": older.summary["data"],
        "version": older.summary.get("version", ""),
        **dataclasses.asdict(found),
    }
    table = read_equal_data(file) if file.is_file() else pandas.DataFrame(columns=list(COLUMNS))
    kept = table[table["fingerprint"] != older.fingerprint]
    table = pandas.concat([kept, pandas.DataFrame([row])], ignore_index=True).sort_values(["data", "fingerprint"])
    write_text(file, table_text(table[list(COLUMNS)]))
    _table.cache_clear()
    return found


def read_equal_data(file: pathlib.Path = FILE) -> pandas.DataFrame:
    """Read the table.

    Raises:
        InputError: the file is missing, unreadable or lacks a column.
    """
    return read_table(file, COLUMNS, "restore it from the repository", dtype={"version": str}, na_values=[])


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    return {row["fingerprint"]: row for row in read_equal_data().to_dict("records")}


def current_fingerprint(fingerprint: str) -> str:
    """The fingerprint that the same data have today; itself where the table knows no other."""
    known = _table().get(fingerprint)
    return known["same_as"] if known else fingerprint


def label_note(fingerprints: Iterable[str]) -> str | None:
    """What a table says whose runs of one data set were labelled by the labeller of today and by an earlier one.

    Args:
        fingerprints: of each run's data, as its manifest has it.
    """
    found = list(fingerprints)
    older = [row for fingerprint in found if (row := _table().get(fingerprint)) and row["relabelled_test"]]
    if not older or len(set(found)) == 1:
        return None
    changed, tested = older[0]["relabelled_test"], older[0]["test_studies"]
    return (
        f"{len(older)} of {len(found)} runs on {older[0]['data']} were labelled by an earlier labeller: {changed} of "
        f"{tested} test studies have another state in the others, which clinical measures count."
    )


def other_data(reference: Mapping[str, Any], rerun: Mapping[str, Any]) -> str:
    """Why two manifests' data are not the same, in one sentence."""
    versions = [manifest.get("fingerprints", {}).get("data_version") for manifest in (reference, rerun)]
    if versions[0] != versions[1]:
        return (
            f"made with data of version {versions[0] or 'unknown'}, the run with version {versions[1] or 'unknown'}, "
            f"which {FILE.name} does not hold as equal; make the reference again, or hold the prepared folders against "
            "each other with `fedmrg same-data`"
        )
    return "made with other data"
