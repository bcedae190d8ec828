"""Processes that make the same folder take turns."""

from __future__ import annotations

import pathlib

import filelock


def alone(folder: pathlib.Path) -> filelock.FileLock:
    """A lock beside a folder, whose parent is made: who comes second finds what the first has made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(folder.parent / f".{folder.name}.lock")
