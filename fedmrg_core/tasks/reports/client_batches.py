"""A client's studies as seeded batches for a report model, and their features under it as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy
import torch
from torch import Tensor

from fedmrg_core.runs.configuration import Profile
from fedmrg_core.tasks.reports.batch import Batch, encode_reports, pad_reports
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.training.augmentation import augmented
from fedmrg_core.training.length_batches import shuffled_by_length


class Studies(Protocol):
    """What training needs of a client's studies (`fedmrg_core.data.tensors.ClientTensors`)."""

    texts: Sequence[str]
    states: Tensor  # (N, 14)

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int]) -> Tensor:
        """(B, 1, H, W) in [0, 1]."""


class ClientBatches:
    """A client's studies as seeded batches of :class:`Batch`; see `training_steps.Batches`.

    Args:
        model: its tokenizer and its device are used.
        studies: the client's.
        profile: batch size, length of reports, augmentation.
        chosen: indices of the studies to use; all if None.
    """

    def __init__(
        self, model: ReportModel, studies: Studies, profile: Profile, chosen: Sequence[int] | None = None
    ) -> None:
        self.studies, self.settings = studies, profile.training
        self.padding = model.tokenizer.pad_token_id
        self.report_ids = encode_reports(model.tokenizer, studies.texts, profile.training)
        self.device = next(model.parameters()).device
        self.chosen = list(range(len(studies)) if chosen is None else chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, indices: Sequence[int], generator: numpy.random.Generator | None = None) -> Batch:
        """The studies at `indices`; with a generator, their images are changed at random."""
        images = self.studies.images(indices)
        if generator is not None:
            images = augmented(images, self.settings, generator)
        ids, mask = pad_reports([self.report_ids[i] for i in indices], self.padding)
        states = self.studies.states[torch.as_tensor(indices)]
        return Batch(*(tensor.to(self.device) for tensor in (images, states, ids, mask)))

    def shuffled(self, generator: numpy.random.Generator) -> list[list[int]]:
        """One epoch's batches of indices, see :func:`shuffled_by_length`."""
        lengths = [len(self.report_ids[index]) for index in self.chosen]
        batches = shuffled_by_length(lengths, self.settings.batch_size, generator)
        return [[self.chosen[place] for place in batch] for batch in batches]

    def in_order(self, by_length: bool = False) -> list[list[int]]:
        """All studies in order, theirs or that of their reports' lengths, in batches twice the training size."""
        size, order = 2 * self.settings.batch_size, list(range(len(self.studies)))
        if by_length:
            order.sort(key=lambda index: len(self.report_ids[index]))
        return [order[i : i + size] for i in range(0, len(order), size)]

    @torch.no_grad()
    def features(self, model: ReportModel) -> Tensor:
        """H (N, D) of all the studies' images, not augmented, under the model as it stands; leaves it in evaluation."""
        model.eval()
        return torch.cat([model.features(self.batch(indices).images) for indices in self.in_order()])
