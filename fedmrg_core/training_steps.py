"""The loop that all training shares: batches, loss, the client's rules, clipping, one step of the optimiser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy
import torch
from torch import Tensor

from fedmrg_core.batch import Contrast, total_loss
from fedmrg_core.client_batches import ClientBatches
from fedmrg_core.client_rules import UpdateRule, encoded_once
from fedmrg_core.configuration import Profile
from fedmrg_core.methods import Method
from fedmrg_core.seeds import stream_seed
from fedmrg_core.trained_model import TrainedModel


class TrainingSteps:
    """Steps on one client's batches, and the mean of every loss term over them.

    Args:
        model: with everything loaded.
        batches: the client's.
        optimiser: over the parameters that are to change.
        method: its losses.
        profile: gradient clip.
        disease_weights: (14,) p_d of the client.
        rules: what the method's client rule adds to each step.
        contrast: what a batch of study indices is compared with; None for a method without contrast.
    """

    def __init__(
        self,
        model: TrainedModel,
        batches: ClientBatches,
        optimiser: torch.optim.Optimizer,
        method: Method,
        profile: Profile,
        disease_weights: Tensor,
        rules: Sequence[UpdateRule] = (),
        contrast: Callable[[Sequence[int]], Contrast] | None = None,
    ) -> None:
        self.model, self.batches, self.optimiser = model, batches, optimiser
        self.losses, self.clip = method.losses, profile.training.gradient_clip
        self.disease_weights = disease_weights.to(batches.device)
        self.rules, self.contrast = rules, contrast
        self.parameters = list(model.trainable().values())
        self.count, self._sums = 0, {}

    def step(self, indices: Sequence[int], stream: numpy.random.Generator) -> float:
        """One step on the studies at `indices`, images augmented by `stream`; returns the loss."""
        batch = self.batches.batch(indices, stream)
        contrast = self.contrast(indices) if self.contrast else None
        with encoded_once(self.model.encoder) if self.rules else contextlib.nullcontext():
            terms = self.model.loss_terms(batch, self.losses, self.disease_weights, contrast)
            loss = total_loss(terms, self.losses)
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


@contextlib.contextmanager
def learning(model: TrainedModel, modules: Collection[str]) -> Iterator[None]:
    """The model in training, where only these modules learn; the others are frozen and trainable again afterwards.

    An encoder that does not learn keeps its BatchNorm statistics too.
    """
    trainable = model.trainable()
    model.train()
    if "encoder" not in modules:
        model.encoder.eval()
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
