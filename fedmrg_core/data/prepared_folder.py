"""Where a prepared data set lies: what a folder was made from, and its writing, whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import datasets

from fedmrg_core.data.images import png_bytes
from fedmrg_core.data.row_files import dataset_of_rows
from fedmrg_core.data.sources import DataSource, data_source
from fedmrg_core.data.study import LoadedStudies
from fedmrg_core.errors import InputError
from fedmrg_core.files.code_state import NAME, PACKAGE, imported_modules, read_sources, statements_hash

STUDIES, LEFT_OUT, SUMMARY = "studies", "left_out.csv", "summary.json"
OLD = "old"  # what is replaced, for the moment between two moves
FORMAT = 1  # raise it whenever the layout of a prepared folder changes
OTHER_CODE = ("data/sources.py",)  # says which data sets there are, not what is in one


def digest_of(pieces: Iterable[bytes]) -> str:
    """sha256 over pieces and their lengths."""
    total = hashlib.sha256()
    for piece in pieces:
        total.update(len(piece).to_bytes(8, "little"))
        total.update(piece)
    return total.hexdigest()


def key_of(request: dict[str, Any], source: DataSource, root: pathlib.Path | None) -> str:
    """Equal keys: same request, same files below root (by name, size and time), same version and code of the loader.

    Other data sets do not count: neither their modules nor their rows in `sources.DATA_SOURCES`.
    """
    asked = {**request, "format": FORMAT, "loader": source.loader, "version": source.version}
    pieces = [json.dumps(asked, sort_keys=True).encode()]
    if root is not None and root.is_dir():
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            state = path.stat()
            pieces.append(f"{path.relative_to(root).as_posix()} {state.st_size} {state.st_mtime_ns}".encode())
    return digest_of([*pieces, _loader_code(source.loader).encode()])


@functools.cache
def _loader_code(loader: str) -> str:
    """sha256 over the statements of a loader's module and of what it imports; "" for one outside this package."""
    texts = {name: text for name, text in read_sources(PACKAGE).items() if name not in OTHER_CODE}
    module = loader.partition(":")[0].removeprefix(f"{NAME}.")
    return statements_hash(texts[name] for name in imported_modules(texts, [module]))


def stored_summary(folder: pathlib.Path) -> dict[str, Any]:
    """The content of summary.json; nothing where there is none to read."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def check_place(folder: pathlib.Path, place: dict[str, str]) -> None:
    """Refuse a folder that holds something else, before anything is read.

    A data set is told by its name and, read from a folder of the user's, by where that lies; folders of earlier
    versions do not say where.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / SUMMARY).is_file())):
        raise InputError(f"{folder} holds something else than a prepared data set; give another folder or empty it.")
    there = {**place, **{name: value for name, value in stored_summary(folder).items() if name in place}}
    if there["data"] != place["data"]:
        raise InputError(
            f"{folder} holds the prepared data set {there['data']!r}, which {place['data']!r} does not replace; give "
            "another folder, or delete this one."
        )
    if there["root"] != place["root"]:
        name = place["data"]
        own = f"name yours {name}-NAME" if data_source(name).takes_a_name else "give another workspace"
        raise InputError(
            f"{folder} holds data set {name!r} as it was read from another folder; {own} to keep both, or delete "
            f"{folder.name}/ if it is the same data set in a new place."
        )


@contextlib.contextmanager
def scratch_beside(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `folder` for what is half made; it goes in any case, and parents that were made for it."""
    made = [parent for parent in (folder.parent, *folder.parent.parents) if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            yield pathlib.Path(scratch)
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # not empty
                parent.rmdir()


def restore_older(folder: pathlib.Path) -> None:
    """Put the older folder back where a process was killed between moving it away and the new one in."""
    if folder.exists() or not folder.parent.is_dir():
        return
    for old in sorted(folder.parent.glob(f".{glob.escape(folder.name)}-*/{OLD}")):
        if (old / SUMMARY).is_file():
            os.replace(old, folder)
            return


def write_prepared(folder: pathlib.Path, loaded: LoadedStudies, summary: dict[str, Any], scratch: pathlib.Path) -> None:
    """Build in `scratch`, then move into place; a kill leaves the old folder, there or in `scratch`, or the new one."""
    fresh = scratch / "fresh"
    fresh.mkdir()
    _embedded(loaded.studies).save_to_disk(str(fresh / STUDIES))
    loaded.write_left_out(fresh / LEFT_OUT)
    text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    (fresh / SUMMARY).write_text(text, encoding="utf-8")
    if folder.exists():
        os.replace(folder, scratch / OLD)
    os.replace(fresh, folder)


def _embedded(studies: datasets.Dataset) -> datasets.Dataset:
    """The studies with every image as PNG bytes inside, whatever path a loader left in the column."""
    raw = studies.select_columns("image").cast_column("image", datasets.Image(decode=False))
    if all(row["image"]["bytes"] is not None for row in raw):
        return studies

    def rows() -> Iterator[dict[str, Any]]:
        for row in studies:
            yield row | {"image": {"bytes": png_bytes(row["image"]), "path": None}}

    return dataset_of_rows(rows(), studies.features)
