"""The server's checkpoint: one new folder a round, then one pointer moved on to it.

A crash at any moment leaves the pointer on a whole checkpoint. ``checkpoint/current`` names the folder to go on from;
the folder of the best round stays beside it until the run's model is written. Beside the name stands the digest of the
folder's index, and in the index those of its files: a changed byte is found before anything is computed with it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.files.digests import INDEX, NotedFolder, check_file, check_files, file_digest
from fedmrg_core.files.tensor_files import read_tensors, write_tensors
from fedmrg_core.files.whole_files import partial_folder, read_json, replace_folder, write_text


@dataclasses.dataclass(frozen=True)
class BestRound:
    """The round that validation chose so far; where nothing is shared, each hospital's own."""

    round_number: int  # of the shared model
    losses: dict[str, float]  # validation_loss of each client that validated it
    state_rounds: dict[str, int]  # each hospital's state that goes with it

    @property
    def loss(self) -> float:
        """Unweighted mean over the clients."""
        return sum(self.losses.values()) / len(self.losses)


@dataclasses.dataclass
class ServerState:
    """Everything the server knows after a round; enough to go on from."""

    round_number: int
    shared: dict[str, Tensor]  # ``module/name``, as the hospitals have it
    prototypes: dict[str, Tensor]  # (D,) a client
    state_rounds: dict[str, int]  # last round in which each client's update was taken
    model_rounds: dict[str, int]  # the round after which each hospital is known to have got the shared model
    rule: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # what the server's rule remembers
    unsent: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # what compression has left out downwards
    best: BestRound | None = None
    rounds: list[dict] = dataclasses.field(default_factory=list)  # rows of rounds.csv
    ledger: list[dict] = dataclasses.field(default_factory=list)  # rows of ledger.csv


_TENSORS = ("shared", "prototypes", "rule", "unsent")
REMEDY = "restore it from a copy, or delete the run folder and run again."


def _name(round_number: int) -> str:
    return f"round-{round_number:04d}"


def save_checkpoint(folder: pathlib.Path, state: ServerState, fingerprint: str) -> None:
    """Write the checkpoint of ``state.round_number`` and make it the current one."""
    name = _name(state.round_number)
    partial = partial_folder(folder / name)
    for part in _TENSORS:
        write_tensors(partial / f"{part}.safetensors", getattr(state, part))
    rest = {
        "fingerprint": fingerprint,
        "round_number": state.round_number,
        "state_rounds": state.state_rounds,
        "model_rounds": state.model_rounds,
        "best": dataclasses.asdict(state.best) if state.best else None,
        "rounds": state.rounds,
        "ledger": state.ledger,
    }
    write_text(partial / "server.json", json.dumps(rest))
    NotedFolder(partial).note(*partial.iterdir())
    index = file_digest(partial / INDEX)
    replace_folder(partial, folder / name)
    write_text(folder / "current", f"{name} {index}\n")
    kept = {"current", name} | ({_name(state.best.round_number)} if state.best else set())
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def load_checkpoint(folder: pathlib.Path, fingerprint: str) -> ServerState | None:
    """The current checkpoint, or None if there is none yet.

    Raises:
        InputError: it belongs to another configuration, other data or other code, or is damaged.
    """
    pointer = folder / "current"
    if not pointer.exists():
        return None
    name, _, index = pointer.read_text(encoding="utf-8", errors="replace").strip().partition(" ")
    source = folder / name
    check_file(source / INDEX, index, REMEDY)
    check_files(source, NotedFolder(source).noted(), REMEDY)
    rest = read_json(source / "server.json")
    if rest.pop("fingerprint") != fingerprint:
        raise InputError(
            f"{folder}: this checkpoint is of another configuration, base model, data or training code; "
            "choose another run folder or delete this one."
        )
    best = BestRound(**rest.pop("best")) if rest["best"] else rest.pop("best")
    tensors = {part: read_tensors(source / f"{part}.safetensors") for part in _TENSORS}
    return ServerState(**tensors, best=best, **rest)


def load_shared(folder: pathlib.Path, round_number: int) -> dict[str, Tensor]:
    """The shared tensors of the current or the best round.

    Raises:
        InputError: that checkpoint is missing or damaged.
    """
    source = folder / _name(round_number)
    path = source / "shared.safetensors"
    check_file(path, NotedFolder(source).noted().get(path.name), REMEDY)
    return read_tensors(path)
