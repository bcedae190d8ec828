"""The files of a finished run's model, and the digests that manifest.json has of them."""

from __future__ import annotations

import pathlib

from fedmrg_core.errors import InputError
from fedmrg_core.files.digests import check_files, digests_below
from fedmrg_core.files.whole_files import read_json

MANIFEST, NOTED = "manifest.json", "model_files"
REMEDY = "go on with the run by its notebook: it writes its model again from the last checkpoint."


def model_digests(run_folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file of the model, by path relative to it."""
    return digests_below(run_folder / "model")


def check_model(run_folder: pathlib.Path) -> None:
    """Hold the model's files against the digests of manifest.json; one of an older format has none.

    Raises:
        InputError: a file is missing or another than the run wrote, or the run did not come to its end.
    """
    if not (run_folder / MANIFEST).is_file():
        raise InputError(f"{run_folder}: {MANIFEST} is missing, so the run is not finished; {REMEDY}")
    check_files(run_folder / "model", read_json(run_folder / MANIFEST).get(NOTED, {}), REMEDY)


def is_whole(run_folder: pathlib.Path) -> bool:
    """Whether a run has its manifest and every file of its model."""
    try:
        check_model(run_folder)
    except InputError:
        return False
    return (run_folder / "model").is_dir()
