"""The loop that all training shares: batches, loss, the client's rules, clipping, one step of the optimiser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import numpy
import torch
from torch import Tensor

from fedmrg_core.runs.methods import Losses
from fedmrg_core.seeds import stream_seed
from fedmrg_core.training.client_rules import UpdateRule
from fedmrg_core.training.trained_model import TrainedModel

# The unweighted loss terms of the batch of the examples at some indices, under the model as it stands.
Loss = Callable[[Any, Sequence[int]], dict[str, Tensor]]


class Batches(Protocol):
    """A client's examples as batches. What a batch holds is between a task's batches, its loss and its model."""

    def __len__(self) -> int:
        """N, how many examples there are."""

    def batch(self, indices: Sequence[int], generator: numpy.random.Generator | None = None) -> Any:
        """The examples at `indices`; with a generator, changed at random as the task changes them in training."""

    def shuffled(self, generator: numpy.random.Generator) -> list[list[int]]:
        """One epoch's batches of indices."""

    def features(self, model: TrainedModel) -> Tensor:
        """(N, D) `batch_features` of all examples, unchanged, under the model as it stands; only for MOON."""


class TrainingSteps:
    """Steps on one client's batches, and the mean of every loss term over them.

    Args:
        model: with everything loaded.
        batches: the client's.
        optimiser: over the parameters that are to change.
        loss: the task's loss terms.
        weights: of the loss terms, by name.
        clip: largest norm of the gradient.
        rules: what the method's client rule adds to each step.
    """

    def __init__(
        self,
        model: TrainedModel,
        batches: Batches,
        optimiser: torch.optim.Optimizer,
        loss: Loss,
        weights: Losses,
        clip: float,
        rules: Sequence[UpdateRule] = (),
    ) -> None:
        self.model, self.batches, self.optimiser = model, batches, optimiser
        self.loss, self.weights, self.clip, self.rules = loss, weights, clip, rules
        self.parameters = list(model.trainable().values())
        self.count, self._sums = 0, {}

    def step(self, indices: Sequence[int], stream: numpy.random.Generator) -> float:
        """One step on the examples at `indices`, changed by `stream`; returns the loss."""
        batch = self.batches.batch(indices, stream)
        with self.model.computed_once() if self.rules else contextlib.nullcontext():
            terms = self.loss(batch, indices)
            loss = total_loss(terms, self.weights)
            for rule in self.rules:
                added = rule.terms(batch, indices)
                loss = loss + sum(rule.weight * value for value in added.values())
                terms = {**terms, **added}
        self.model.zero_grad(set_to_none=True)  # also what another optimiser left: clipping counts it
        loss.backward()
        for rule in self.rules:
            rule.correct_gradients()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimiser.step()
        self.count += 1
        for name, value in {**terms, "loss": loss}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.item()
        return loss.item()

    def means(self) -> dict[str, float]:
        """Each term's mean over the steps so far as ``train_<term>``, and ``train_loss``."""
        return {f"train_{name}": value / self.count for name, value in self._sums.items()}


def total_loss(terms: dict[str, Tensor], weights: Losses) -> Tensor:
    """L: the weighted sum of the terms."""
    return sum(getattr(weights, name) * value for name, value in terms.items())


@contextlib.contextmanager
def learning(model: TrainedModel, modules: Collection[str]) -> Iterator[None]:
    """The model in training, where only these modules learn; the others are frozen and trainable again afterwards.

    What does not learn keeps its BatchNorm statistics too.
    """
    trainable = model.trainable()
    model.train_only(modules)
    for key, parameter in trainable.items():
        parameter.requires_grad_(key.partition("/")[0] in modules)
    try:
        yield
    finally:
        for parameter in trainable.values():
            parameter.requires_grad_(True)


@contextlib.contextmanager
def torch_seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Torch's own random numbers (dropout) from a named stream, so that an update depends on nothing before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, *names))
        yield
