"""Adapters of past rounds, kept for the matrix by round: what each hospital had when it trained on, and nothing else.

A round's checkpoints are gone when the next ones are written, so a hospital puts aside what it starts round r + 1 with:
the shared adapters of round r as they came, and its own. Of the last round the checkpoints themselves are there. Which
rounds are kept is in the profile (`questions.kept_rounds`); a round takes the bytes of the adapters, once for what is
shared and once a hospital for what is its own.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from torch import Tensor

from fedmrg_core.data.site_names import path_part
from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.files.tensor_files import read_tensors, write_tensors
from fedmrg_core.training.client_state import without_controls
from fedmrg_core.training.trained_model import TrainedModel

FOLDER = "adapters_by_round"
SHARED = "shared.safetensors"


def keep_adapters(
    run_folder: pathlib.Path, round_number: int, client: str, shared: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> None:
    """Put the adapters of a round aside.

    Args:
        run_folder: of the run; in a real federation the hospital's own.
        round_number: the round that they were the result of.
        client: whose own tensors these are.
        shared: as the server sent them; on one machine the first hospital writes them for all.
        own: the hospital's personal tensors, by name.
    """
    folder = run_folder / FOLDER / f"round-{round_number:04d}"
    if shared and not (folder / SHARED).is_file():
        write_tensors(folder / SHARED, without_controls(dict(shared)))
    if own:
        write_tensors(_own(folder, client), own)


def load_kept(model: TrainedModel, run_folder: pathlib.Path, round_number: int, last: int, client: str | None) -> None:
    """Load the adapters of a round, those of one client if it is named.

    A client that paused has the adapter that it put aside next; it had not changed in between.

    Args:
        model: loads them.
        run_folder: of a finished run.
        round_number: a kept round, or the last.
        last: the run's last round.
        client: whose own tensors go with the shared ones; None: nobody's.

    Raises:
        InputError: a file is missing or damaged.
    """
    tensors = dict(model.initial_personal)
    folder = run_folder / FOLDER / f"round-{round_number:04d}"
    if round_number == last:
        shared = run_folder / "checkpoint" / f"round-{last:04d}" / SHARED
        tensors |= without_controls(read_tensors(shared))
    elif (folder / SHARED).is_file():
        tensors |= read_tensors(folder / SHARED)
    if client is not None:
        tensors |= _own_tensors(run_folder, round_number, last, client)
    model.load_state(tensors)


def _own_tensors(run_folder: pathlib.Path, round_number: int, last: int, client: str) -> dict[str, Tensor]:
    names = sorted((run_folder / FOLDER).glob("round-????"))
    later = [_own(folder, client) for folder in names if int(folder.name[-4:]) >= round_number]
    kept = next((path for path in later if path.is_file()), None)
    if round_number < last and kept is not None:
        return read_tensors(kept)
    disk = HospitalDisk(run_folder, client)
    trained = [int(path.stem[-4:]) for path in disk.folder.glob("round-????.safetensors")]
    state = disk.load(max(trained, default=0))
    return state.part("personal") if state else {}


def _own(folder: pathlib.Path, client: str) -> pathlib.Path:
    return folder / "personal" / f"{path_part(client)}.safetensors"
