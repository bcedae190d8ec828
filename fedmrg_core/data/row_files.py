"""Rows between disk and code: written one by one and read in batches, so that no whole set of images is in memory."""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import itertools
import pathlib
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import datasets
from datasets.arrow_writer import ArrowWriter

BATCH = 1000  # rows in memory at a time where images stay out
SMALL = 64 * 1024**2  # bytes of encoded images that are not worth a file

# Beside the prepared folder while one is made: a folder for temporary files may lie in memory.
_place: contextvars.ContextVar[pathlib.Path | None] = contextvars.ContextVar("_place", default=None)


@contextlib.contextmanager
def rows_written_below(folder: pathlib.Path) -> Iterator[None]:
    """Within it, `dataset_of_rows` writes to a folder below this one and not to the system's temporary one."""
    token = _place.set(folder)
    try:
        yield
    finally:
        _place.reset(token)


def dataset_of_rows(rows: Iterable[Mapping[str, Any]], features: datasets.Features) -> datasets.Dataset:
    """The rows as a dataset: in memory while their images are few, else in a temporary file that goes with the dataset.

    Args:
        rows: taken one by one; images are given as {"bytes": encoded image, "path": None}.
        features: of the dataset.
    """
    waiting, first, size = iter(rows), [], 0
    for row in waiting:
        first.append(row)
        size += len(row["image"]["bytes"])
        if size > SMALL:
            return _in_a_file(itertools.chain(first, waiting), features)
    if not first:
        return datasets.Dataset.from_dict({name: [] for name in features}, features=features)
    return datasets.Dataset.from_list(first, features=features)


def _in_a_file(rows: Iterable[Mapping[str, Any]], features: datasets.Features) -> datasets.Dataset:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="rows-", dir=_place.get()))
    path, digest = folder / "rows.arrow", hashlib.sha256()
    try:
        with ArrowWriter(features=features, path=str(path)) as writer:
            for row in rows:
                writer.write(features.encode_example(dict(row)))
            writer.finalize()
        with path.open("rb") as handle:
            while part := handle.read(2**20):
                digest.update(part)
        written = datasets.Dataset.from_file(str(path), in_memory=False)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # What `datasets` would take has the file's time in it, and every preparation would leave other bytes.
    written._fingerprint = digest.hexdigest()[:16]
    weakref.finalize(written, shutil.rmtree, folder, ignore_errors=True)
    return written


def values_of(studies: datasets.Dataset, *names: str) -> Iterator[tuple[Any, ...]]:
    """The values of some columns, row by row, read in batches; no other column is touched."""
    for table in studies.select_columns(list(names)).with_format("arrow").iter(BATCH):
        yield from zip(*(table[name].to_pylist() for name in names), strict=True)


def column_of(studies: datasets.Dataset, name: str) -> list[Any]:
    """One column of short texts as a list in which equal values are one object: a site's name takes its room once."""
    seen: dict[Any, Any] = {}
    return [seen.setdefault(value, value) for (value,) in values_of(studies, name)]
