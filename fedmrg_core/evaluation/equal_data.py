"""Which fingerprints of prepared data mean the same data: figures/reference/equal_data.csv, made from evidence.

PhantomCXR was drawn in single precision up to version 4, so that a few pixels in a million depended on the processor:
most by one grey level, and where a hard edge runs through the middle of a pixel by more. Version 5 draws in double
precision and is the same everywhere. What the references were made with is held against it study by study, and the two
count as one if they differ by no more than rounding does.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
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
_COUNTS = ("studies", "pixels", "different_pixels", "jumping_pixels", "worst_study")
COLUMNS = ("fingerprint", "same_as", "data", "version", *_COUNTS)
# What rounding does at most. Seen between versions 4 and 5: 2e-5, 2e-7 and 3e-3. A study exchanged, another noise or
# style moves nearly every pixel of a study.
LARGEST_SHARE = 1e-4  # of all pixels that differ
LARGEST_JUMPS = 1e-6  # of all pixels that differ by more than one grey level: at an edge
LARGEST_SHARE_OF_STUDY = 1e-2  # of one study's pixels that differ


@dataclasses.dataclass(frozen=True)
class PixelDifference:
    """How far the pixels of two prepared data sets of the same studies differ.

    Attributes:
        studies: number of studies.
        pixels: number of pixels of all studies.
        different_pixels: how many of them differ.
        jumping_pixels: how many differ by more than one grey level.
        worst_study: the largest share of one study's pixels that differ.
    """

    studies: int
    pixels: int
    different_pixels: int
    jumping_pixels: int
    worst_study: float

    @property
    def is_rounding(self) -> bool:
        """Whether this is no more than the last bit of the sums that a pixel is rounded from."""
        few = self.different_pixels <= LARGEST_SHARE * self.pixels
        at_edges = self.jumping_pixels <= LARGEST_JUMPS * self.pixels
        return few and at_edges and self.worst_study <= LARGEST_SHARE_OF_STUDY

    def __str__(self) -> str:
        return (
            f"{self.different_pixels} of {self.pixels} pixels differ, {self.jumping_pixels} by more than one grey "
            f"level, at most {self.worst_study:.2%} of a study's"
        )


def pixel_difference(first: Prepared, second: Prepared) -> PixelDifference:
    """Compare two prepared data sets, study by study.

    Raises:
        InputError: they are not the same studies: an id, site, split, view, text or state differs, or an image's size.
    """
    names = [name for name in STUDY_FEATURES if name != "image"]
    if len(first.studies) != len(second.studies):
        raise InputError(f"the data sets hold {len(first.studies)} and {len(second.studies)} studies: other data.")
    pixels, different, jumping, worst = 0, 0, 0, 0.0
    for one, other in zip(first.studies, second.studies, strict=True):
        if changed := [name for name in names if one[name] != other[name]]:
            raise InputError(f"study {one['study_id']!r} differs in {', '.join(changed)}: other data.")
        if one["image"].size != other["image"].size:
            raise InputError(f"study {one['study_id']!r}: images of another size: other data.")
        change = numpy.abs(numpy.asarray(one["image"], dtype=int) - numpy.asarray(other["image"], dtype=int))
        here = int((change > 0).sum())
        pixels, different, jumping = pixels + change.size, different + here, jumping + int((change > 1).sum())
        worst = max(worst, here / change.size)
    return PixelDifference(len(first.studies), pixels, different, jumping, round(worst, 6))


def record_equal_data(older: Prepared, current: Prepared, file: pathlib.Path = FILE) -> PixelDifference:
    """Note in the table that two prepared data sets are the same up to rounding.

    Args:
        older: as an earlier version or another processor made it.
        current: as this version makes it.
        file: the table.

    Raises:
        InputError: they are other data, see `pixel_difference`, or differ by more than rounding.
    """
    found = pixel_difference(older, current)
    if not found.is_rounding:
        raise InputError(
            f"{found}; rounding explains at most {LARGEST_SHARE:.2%}, {LARGEST_JUMPS:.4%} and "
            f"{LARGEST_SHARE_OF_STUDY:.0%} of them: other data."
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
def _table() -> dict[str, str]:
    table = read_equal_data()
    return dict(zip(table["fingerprint"], table["same_as"], strict=True))


def current_fingerprint(fingerprint: str) -> str:
    """The fingerprint that the same data have today; itself where the table knows no other."""
    return _table().get(fingerprint, fingerprint)


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
