"""Adapters of past rounds, kept for the matrix by round: what each hospital had when it trained on, and nothing else.

A round's checkpoints are gone when the next ones are written, so a hospital puts aside what it starts round r + 1 with:
the shared adapters of round r as they came, and its own. One that paused had the same of its own in every round since
it last trained, and puts it aside for each of them. What it has at the end is on its disk. Which rounds are kept is in
the profile (`questions.kept_rounds`); a round takes the bytes of the adapters, once for what is shared and once a
hospital for what is its own.
"""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping

from torch import Tensor

from fedmrg_core.data.site_names import path_part
from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.files.tensor_files import read_tensors, write_tensors
from fedmrg_core.training.client_state import without_controls
from fedmrg_core.training.trained_model import TrainedModel

FOLDER = "adapters_by_round"
SHARED = "shared.safetensors"


def keep_adapters(
    run_folder: pathlib.Path,
    kept_rounds: Collection[int],
    round_number: int,
    client: str,
    shared: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> None:
    """Put aside what a hospital begins a round with, for each kept round that it is the result of.

    Args:
        run_folder: of the run; in a real federation the hospital's own.
        kept_rounds: see above.
        round_number: the round that begins.
        client: whose own tensors these are.
        shared: as the server sent them; on one machine the first hospital writes them for all.
        own: the hospital's personal tensors, by name; before its first round as they started.
    """
    for number in sorted(kept for kept in kept_rounds if kept < round_number):
        folder, before = _folder(run_folder, number), number == round_number - 1
        if shared and before and not (folder / SHARED).is_file():
            write_tensors(folder / SHARED, without_controls(dict(shared)))
        # Rounds before the one it last trained in have their file since then.
        if own and (before or not _own(folder, client).is_file()):
            write_tensors(_own(folder, client), own)


def load_kept(model: TrainedModel, run_folder: pathlib.Path, round_number: int, last: int, client: str | None) -> None:
    """Load the adapters of a round, those of one client if it is named.

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
    folder = _folder(run_folder, round_number)
    if round_number == last:
        shared = run_folder / "checkpoint" / f"round-{last:04d}" / SHARED
        tensors |= without_controls(read_tensors(shared))
    elif (folder / SHARED).is_file():
        tensors |= read_tensors(folder / SHARED)
    if client is not None:
        tensors |= _own_tensors(run_folder, round_number, client)
    model.load_state(tensors)


def _own_tensors(run_folder: pathlib.Path, round_number: int, client: str) -> dict[str, Tensor]:
    """What a client put aside of a round; if nothing, it has not trained since, and what it has lies on its disk.

    One that trained in no round up to this one has nothing of its own.
    """
    kept = _own(_folder(run_folder, round_number), client)
    if kept.is_file():
        return read_tensors(kept)
    disk = HospitalDisk(run_folder, client)
    trained = (int(path.stem[-4:]) for path in disk.folder.glob("round-????.safetensors"))
    state = disk.load(max((number for number in trained if number <= round_number), default=0))
    return state.part("personal") if state else {}


def _folder(run_folder: pathlib.Path, round_number: int) -> pathlib.Path:
    return run_folder / FOLDER / f"round-{round_number:04d}"


def _own(folder: pathlib.Path, client: str) -> pathlib.Path:
    return folder / "personal" / f"{path_part(client)}.safetensors"
