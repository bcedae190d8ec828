"""Client folders of tasks whose examples are rows of tensors: one safetensors file a split, and ``client.json``."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy
import torch
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.files.tensor_files import read_tensors, write_tensors
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.training.trained_model import TrainedModel


class TensorBatches:
    """Rows of tensors as batches, see `training_steps.Batches`. A batch is a dictionary of the rows' tensors.

    Args:
        tensors: by name, each with N rows.
        size: rows of a batch.
    """

    def __init__(self, tensors: Mapping[str, Tensor], size: int) -> None:
        self.tensors, self.size = dict(tensors), size

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def batch(self, indices: Sequence[int], generator: numpy.random.Generator | None = None) -> dict[str, Tensor]:
        """The rows at `indices`, unchanged."""
        return {name: tensor[list(indices)] for name, tensor in self.tensors.items()}

    def shuffled(self, generator: numpy.random.Generator) -> list[list[int]]:
        """One epoch's batches of indices."""
        order = generator.permutation(len(self)).tolist()
        return [order[i : i + self.size] for i in range(0, len(order), self.size)]

    @torch.no_grad()
    def features(self, model: TrainedModel) -> Tensor:
        """(N, D) `batch_features` of all rows under the model as it stands."""
        model.eval()
        return model.batch_features(self.tensors)


def write_tensor_folder(folder: pathlib.Path, splits: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write a client's folder, which is called as the client: ``<split>.safetensors`` and ``client.json``.

    Args:
        folder: made if it does not exist.
        splits: ``train``, ``validation`` and ``test``, each tensors with a row an example.
    """
    digest = hashlib.sha256()
    for split, tensors in splits.items():
        path = folder / f"{split}.safetensors"
        write_tensors(path, tensors)
        digest.update(path.read_bytes())
    counts = {split: len(TensorBatches(tensors, 1)) for split, tensors in splits.items()}
    content = {"name": folder.name, "studies": counts, "fingerprint": digest.hexdigest()}
    write_text(folder / "client.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def open_split(folder: pathlib.Path, split: str, size: int) -> TensorBatches:
    """One split of a client's folder.

    Raises:
        InputError: it is missing or damaged, or holds no row.
    """
    batches = TensorBatches(read_tensors(folder / f"{split}.safetensors"), size)
    if not batches.tensors or not len(batches):
        raise InputError(f"{folder}: there is no {split} example; put some into that split.")
    return batches
