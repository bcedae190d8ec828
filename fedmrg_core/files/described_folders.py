"""Folders that say what they were made from: `description.json`, with the SHA-256 of every other file."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from fedmrg_core.errors import InputError
from fedmrg_core.files.digests import digests_below
from fedmrg_core.files.whole_files import partial_folder, replace_folder

DESCRIPTION = "description.json"


def write_description(folder: pathlib.Path, description: Mapping[str, object]) -> None:
    """Say what a folder was made from, once all its files are there."""
    content = json.dumps({**description, "files": _digests(folder)}, indent=1, sort_keys=True)
    (folder / DESCRIPTION).write_text(content + "\n", encoding="utf-8")


def read_description(folder: pathlib.Path) -> dict[str, Any] | None:
    """What a folder was made from; None if it does not say."""
    path = folder / DESCRIPTION
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def copy_described(stored: pathlib.Path, folder: pathlib.Path) -> None:
    """Copy a folder that the repository holds, whole or not at all.

    Raises:
        InputError: a file of it is not the one that its description names.
    """
    named, there = read_description(stored)["files"], _digests(stored)
    if changed := sorted(named.items() ^ there.items()):
        raise InputError(
            f"{stored / changed[0][0]} is not the file that {DESCRIPTION} names; restore it from the repository, or "
            "build the model with base_models=fresh."
        )
    partial = partial_folder(folder)
    shutil.copytree(stored, partial, dirs_exist_ok=True)
    replace_folder(partial, folder)


def _digests(folder: pathlib.Path) -> dict[str, str]:
    return {name: digest for name, digest in digests_below(folder).items() if name != DESCRIPTION}
