"""A client's studies as tensors: images decoded once when they are small, texts and states beside them [ours]."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import datasets
import numpy
import torch
from torch import Tensor

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.row_files import column_of, values_of

MEMORY_BUDGET = 512 * 1024**2  # bytes of decoded pixels kept per set of studies; what is more is read at each call


class ClientTensors:
    """Studies (contract 1, images all of one size) ready for batches.

    Args:
        studies: one split of one client.
        memory_budget: bytes; images that take more than this together stay on disk and are decoded at each call. Others
            are decoded when the first one is asked for, and kept.

    Attributes:
        texts: N findings sections, what is trained on and scored.
        states: (N, 14) int64, what the report says, in the order of FINDINGS.
        study_ids: N ids.
    """

    def __init__(self, studies: datasets.Dataset, memory_budget: int = MEMORY_BUDGET) -> None:
        self.texts: list[str] = column_of(studies, "findings")
        self.study_ids: list[str] = column_of(studies, "study_id")
        self.states: Tensor = torch.empty(len(studies), len(FINDINGS), dtype=torch.int64)
        for row, (states,) in enumerate(values_of(studies, "states")):
            self.states[row] = torch.tensor(states)
        self._pictures = studies.select_columns("image")
        self._memory_budget = memory_budget

    def __len__(self) -> int:
        return len(self.study_ids)

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Images of some studies: (B, 1, H, W) float32 in [0, 1], black is 0."""
        chosen = indices.tolist() if isinstance(indices, Tensor) else [int(index) for index in indices]
        pixels = _decode(self._pictures, chosen) if self._pixels is None else self._pixels[chosen]
        return pixels.unsqueeze(1).float() / 255

    @functools.cached_property
    def _pixels(self) -> Tensor | None:
        """All images (N, H, W) uint8; None where they are more than the budget."""
        count = len(self._pictures)
        if not count or count * _decode(self._pictures, [0]).numel() > self._memory_budget:
            return None
        return _decode(self._pictures, range(count))


def _decode(pictures: datasets.Dataset, indices: Sequence[int]) -> Tensor:
    """(B, H, W) uint8."""
    first = numpy.asarray(pictures[int(indices[0])]["image"])
    pixels = numpy.empty((len(indices), *first.shape), dtype=first.dtype)
    for place, index in enumerate(indices):
        pixels[place] = numpy.asarray(pictures[int(index)]["image"])
    return torch.from_numpy(pixels)
