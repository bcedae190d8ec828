"""A client's studies as tensors: images decoded once when they are small, texts and states beside them [ours]."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import numpy
import torch
from torch import Tensor

from fedmrg_core.findings import FINDINGS

MEMORY_BUDGET = 2 * 1024**3  # bytes of decoded pixels kept per set of studies


class ClientTensors:
    """Studies (contract 1, images all of one size) ready for batches.

    Args:
        studies: one split of one client.
        memory_budget: bytes; images that take more than this together are decoded at each call instead of once.

    Attributes:
        texts: N findings sections, what is trained on and scored.
        states: (N, 14) int64, what the report says, in the order of FINDINGS.
        study_ids: N ids.
    """

    def __init__(self, studies: datasets.Dataset, memory_budget: int = MEMORY_BUDGET) -> None:
        self.texts: list[str] = list(studies["findings"])
        self.study_ids: list[str] = list(studies["study_id"])
        self.states: Tensor = torch.tensor(list(studies["states"]), dtype=torch.int64).reshape(-1, len(FINDINGS))
        self._pictures = studies.select_columns("image")
        self._pixels: Tensor | None = None
        if len(studies) and len(studies) * _decode(self._pictures, [0]).numel() <= memory_budget:
            self._pixels = _decode(self._pictures, range(len(studies)))

    def __len__(self) -> int:
        return len(self.study_ids)

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Images of some studies: (B, 1, H, W) float32 in [0, 1], black is 0."""
        chosen = indices.tolist() if isinstance(indices, Tensor) else [int(index) for index in indices]
        pixels = _decode(self._pictures, chosen) if self._pixels is None else self._pixels[chosen]
        return pixels.unsqueeze(1).float() / 255


def _decode(pictures: datasets.Dataset, indices: Sequence[int]) -> Tensor:
    """(B, H, W) uint8."""
    return torch.from_numpy(numpy.stack([numpy.asarray(pictures[int(index)]["image"]) for index in indices]))
