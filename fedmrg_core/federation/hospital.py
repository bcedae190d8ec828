"""What stays in a hospital between rounds, on its own disk.

One file a round, ``round-0003.safetensors``: personal modules, optimiser moments, disease weights. A round only reads
the file that the server names (the last round in which this hospital's update was taken) and only writes its own, so
that a round can be run again after a crash and comes out the same.
"""

from __future__ import annotations

import pathlib
import urllib.parse
from collections.abc import Collection

import torch

from fedmrg_core.federation.files import read_tensors, write_tensors
from fedmrg_core.local_training import HospitalState


def folder_name(client: str) -> str:
    """A client's name as that of one folder or file: whoever made the data may have called a site "St. Mary / West"."""
    return urllib.parse.quote(client, safe=" ")


class HospitalDisk:
    """The folder of one hospital.

    Args:
        run_folder: the run folder (in a real federation: the one on the hospital's own machine).
        client: its name.
    """

    def __init__(self, run_folder: pathlib.Path, client: str) -> None:
        self.folder = run_folder / "hospitals" / folder_name(client)

    def _trained(self, round_number: int) -> pathlib.Path:
        return self.folder / f"round-{round_number:04d}.safetensors"

    def _validated(self, round_number: int) -> pathlib.Path:
        return self.folder / f"round-{round_number:04d}-validated.safetensors"

    def load(self, round_number: int) -> HospitalState | None:
        """The state after a round (as trained, then as validated), or None for round 0: before the first.

        Raises:
            InputError: the file is missing or damaged.
        """
        if round_number == 0:
            return None
        tensors = read_tensors(self._trained(round_number))
        if self._validated(round_number).exists():
            tensors |= read_tensors(self._validated(round_number))
        return HospitalState(tensors)

    def save_trained(self, round_number: int, state: HospitalState) -> None:
        """Keep the state after training."""
        self._validated(round_number).unlink(missing_ok=True)
        write_tensors(self._trained(round_number), state.tensors)

    def save_validated(self, round_number: int, trained: HospitalState, validated: HospitalState) -> None:
        """Keep what validation changed (the disease weights), and only that: the moments are large."""
        changed = {
            key: tensor
            for key, tensor in validated.tensors.items()
            if key not in trained.tensors or not torch.equal(tensor, trained.tensors[key])
        }
        if changed:
            write_tensors(self._validated(round_number), changed)

    def keep(self, round_numbers: Collection[int]) -> None:
        """Remove every other round's files."""
        kept = {path.name for number in round_numbers for path in (self._trained(number), self._validated(number))}
        for path in self.folder.glob("round-*"):
            if path.name not in kept:
                path.unlink()
