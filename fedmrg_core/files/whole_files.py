"""Files and folders that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

from fedmrg_core.errors import InputError

PARTIAL = ".partial"  # ends the name of what is still being written
# What a disk may say of itself: no room, a quota, a limit; not to be written to.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def writable(folder: pathlib.Path, then: str) -> Iterator[None]:
    """While this is open, a disk that takes nothing more ends in one sentence.

    Args:
        folder: named where the error names no file.
        then: how it goes on, to end the sentence.

    Raises:
        InputError: the disk is full, or a file or folder must not be written.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        if error.errno in _FULL:
            raise InputError(f"{place}: there is no room left to write it; make some, and {then}") from error
        if error.errno in _CLOSED:
            raise InputError(f"{place}: it must not be written here; make its folder writable, and {then}") from error
        raise


@contextlib.contextmanager
def atomic_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Hand out a temporary path beside `path`; move it there when the block ends well, delete it when it does not.

    A crash at any moment leaves the old file or the new one, never a part of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
        _flush_to_disk(path.parent)  # the folder holds the name
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: pathlib.Path) -> dict:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file; delete the run folder and run again.") from error


def partial_folder(folder: pathlib.Path) -> pathlib.Path:
    """An empty folder beside `folder`, to be filled and handed to :func:`replace_folder`."""
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def replace_folder(partial: pathlib.Path, folder: pathlib.Path) -> None:
    """Move a finished folder into place, away with any that is there."""
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)


def remove_partial(run_folder: pathlib.Path) -> None:
    """Remove what a crash left half written anywhere in a run folder."""
    for path in sorted(run_folder.rglob("*" + PARTIAL)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _flush_to_disk(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
