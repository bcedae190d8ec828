"""What stays in a hospital between rounds, on its own disk.

One file a round, ``round-0003.safetensors``: personal modules, BatchNorm statistics, optimiser moments, disease
weights; beside it, where updates are compressed, ``round-0003-unsent.safetensors``: what they left out. A round only
reads the files that the server names (the last round in which this hospital's update was taken) and only writes its
own, so that a round can be run again after a crash and comes out the same.

The shared model as it came after round 3 is ``model-0003.safetensors``: the next round need not send it again.

``files.sha256`` beside them has the digest of each: a damaged file is named, and a hospital does not train from it.
"""

from __future__ import annotations

import pathlib
import traceback
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fedmrg_core.data.site_names import path_part
from fedmrg_core.errors import InputError
from fedmrg_core.files.digests import NotedFolder, check_file
from fedmrg_core.files.tensor_files import read_tensors, write_tensors
from fedmrg_core.training.client_state import HospitalState


def write_failure(run_folder: pathlib.Path, partition: str, error: Exception) -> pathlib.Path:
    """Add an error with its traceback to the log of a hospital, which never leaves its disk.

    Returns:
        The log.
    """
    path = run_folder / "hospitals" / f"errors-{partition}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        log.write("".join(traceback.format_exception(error)) + "\n")
    return path


REMEDY = "restore it from a copy, or delete the run folder and run again: this hospital cannot go on without it."


class HospitalDisk:
    """The folder of one hospital.

    Args:
        run_folder: the run folder (in a real federation: the one on the hospital's own machine).
        client: its name.
    """

    def __init__(self, run_folder: pathlib.Path, client: str) -> None:
        self.folder = run_folder / "hospitals" / path_part(client)
        self._noted = NotedFolder(self.folder)

    def _write(self, path: pathlib.Path, tensors: Mapping[str, Tensor]) -> None:
        write_tensors(path, tensors)
        self._noted.note(path)

    def _read(self, path: pathlib.Path) -> dict[str, Tensor]:
        check_file(path, self._noted.noted().get(path.name), REMEDY)
        return read_tensors(path)

    def _trained(self, round_number: int) -> pathlib.Path:
        return self.folder / f"round-{round_number:04d}.safetensors"

    def _validated(self, round_number: int) -> pathlib.Path:
        return self.folder / f"round-{round_number:04d}-validated.safetensors"

    def _unsent(self, round_number: int) -> pathlib.Path:
        return self.folder / f"round-{round_number:04d}-unsent.safetensors"

    def _model(self, round_number: int) -> pathlib.Path:
        return self.folder / f"model-{round_number:04d}.safetensors"

    def load(self, round_number: int) -> HospitalState | None:
        """The state after a round (as trained, then as validated), or None for round 0: before the first.

        Raises:
            InputError: the file is missing or damaged.
        """
        if round_number == 0:
            return None
        tensors = self._read(self._trained(round_number))
        if self._validated(round_number).exists():
            tensors |= self._read(self._validated(round_number))
        return HospitalState(tensors)

    def save_trained(self, round_number: int, state: HospitalState) -> None:
        """Keep the state after training."""
        self._validated(round_number).unlink(missing_ok=True)
        self._write(self._trained(round_number), state.tensors)

    def save_validated(self, round_number: int, trained: HospitalState, validated: HospitalState) -> None:
        """Keep what validation changed (the disease weights), and only that: the moments are large."""
        changed = {
            key: tensor
            for key, tensor in validated.tensors.items()
            if key not in trained.tensors or not torch.equal(tensor, trained.tensors[key])
        }
        if changed:
            self._write(self._validated(round_number), changed)

    def forget_validation(self, round_number: int) -> None:
        """Have the state of a round as it was after training: it is validated once more."""
        self._validated(round_number).unlink(missing_ok=True)

    def keep(self, round_numbers: Collection[int]) -> None:
        """Remove every other round's files."""
        kinds = (self._trained, self._validated, self._unsent)
        self._remove_others("round-*", {kind(number) for number in round_numbers for kind in kinds})

    def load_unsent(self, round_number: int) -> dict[str, Tensor]:
        """What this hospital's updates up to a round left out; nothing before its first.

        Raises:
            InputError: the file is missing or damaged.
        """
        return self._read(self._unsent(round_number)) if round_number else {}

    def save_unsent(self, round_number: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep what a round's update left out."""
        self._write(self._unsent(round_number), tensors)

    def load_model(self, round_number: int) -> dict[str, Tensor] | None:
        """The shared model as it came after a round, or None if this disk does not hold it whole."""
        try:
            return self._read(self._model(round_number))
        except InputError:  # the server sends it again
            return None

    def save_model(self, round_number: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep the shared model of a round, and the one before it, on which the round is run again after a crash.

        Also those of rounds whose state is kept: the best one so far is among them, and need not be sent at the end.
        """
        self._write(self._model(round_number), tensors)
        with_state = {int(path.stem[-4:]) for path in self.folder.glob("round-????.safetensors")}
        self._remove_others("model-*", {self._model(n) for n in {round_number, round_number - 1, *with_state}})

    def _remove_others(self, pattern: str, kept: Collection[pathlib.Path]) -> None:
        for path in self.folder.glob(pattern):
            if path not in kept:
                path.unlink()
