"""A second task, as small as one can be: hospitals tell two sorts of rows of numbers apart, with a linear classifier.

It brings a row type, a model, batches and a loss. Ownership, rules of client and server, optimiser, BatchNorm and the
hospital's state are those of every task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy
import pydantic
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.runs.methods import Losses, Method, MethodTable, Ownership
from fedmrg_core.seeds import torch_stream
from fedmrg_core.training.client_state import HospitalState, LocalUpdate
from fedmrg_core.training.client_update import Turn, first_state, receive, train_round
from fedmrg_core.training.trained_model import TrainedModel

WIDTH = 6
SHARED = Ownership.SHARED


class LinearLosses(Losses):
    cross_entropy: float = pydantic.Field(1.0, ge=0)


class LinearMethod(Method):
    modules: dict[Literal["norm", "classifier"], Ownership] = {"norm": SHARED, "classifier": SHARED}
    losses: LinearLosses = LinearLosses()
    smoothing: float = pydantic.Field(0.0, ge=0, lt=1)  # of the labels

    misfits = {"smoothing needs a classifier": lambda row, has: row.smoothing and "classifier" not in has} | {
        **Method.misfits
    }


TABLE = MethodTable(LinearMethod)


class LinearModel(TrainedModel):
    """BatchNorm, then one linear layer; its feature is what that layer reads."""

    feature_modules = ("norm",)

    def __init__(self, method: LinearMethod, seed: int = 0) -> None:
        super().__init__(method)
        self.norm, self.classifier = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 2)
        with torch.no_grad():
            self.classifier.weight.normal_(generator=torch_stream(seed, "initialisation"))
            self.classifier.bias.zero_()
        self.settle_ownership()

    def batch_features(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.norm(batch[0])

    def loss_terms(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        logits = self.classifier(self.batch_features(batch))
        return {"cross_entropy": functional.cross_entropy(logits, batch[1], label_smoothing=self.method.smoothing)}


class Rows:
    """Batches of four rows."""

    def __init__(self, numbers: Tensor, labels: Tensor) -> None:
        self.numbers, self.labels = numbers, labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int], generator: numpy.random.Generator | None = None) -> tuple[Tensor, Tensor]:
        return self.numbers[indices], self.labels[indices]

    def shuffled(self, generator: numpy.random.Generator) -> list[list[int]]:
        order = generator.permutation(len(self)).tolist()
        return [order[i : i + 4] for i in range(0, len(order), 4)]

    @torch.no_grad()
    def features(self, model: LinearModel) -> Tensor:
        model.eval()
        return model.batch_features(self.batch(range(len(self))))


def train(
    model: LinearModel, rows: Rows, shared: dict[str, Tensor], state: HospitalState | None, turn: Turn
) -> LocalUpdate:
    state = state or first_state(model)
    receive(model, shared, state)
    model.remember_shared()
    return train_round(model, rows, lambda batch, indices: model.loss_terms(batch), shared, state, turn)
