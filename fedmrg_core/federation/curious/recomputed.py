"""A client's update as an attacker computes it again: plain gradient steps on one batch, of what is shared.

The attacker knows the model before the round, the rule, the number of steps and the pace. Training itself goes by
AdamW, which sends less of a gradient than this: signs more than sizes [ours].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedmrg_core.errors import InputError
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.training.trained_model import TrainedModel


def sent_by(model: TrainedModel) -> dict[str, Tensor]:
    """The parameters that travel, by key of `TrainedModel.trainable`.

    Raises:
        InputError: there are none.
    """
    owners = model.ownership
    sent = {key: p for key, p in model.trainable().items() if owners[key.split("/")[0]] is Ownership.SHARED}
    if not sent:
        raise InputError(f"method {model.method.name!r} shares nothing, so no update gives anything away.")
    return sent


def recomputed_update(
    loss: nn.Module,
    sent: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    steps: int = 1,
    pace: float = 0.01,
    differentiable: bool = False,
) -> dict[str, Tensor]:
    """What shared parameters lose in some steps on one batch, in units of the pace: after one step the gradient.

    Args:
        loss: holds the model as the client received it, which is not changed; called with `inputs` it gives a scalar.
        sent: its parameters that travel, by key.
        inputs: of the batch.
        steps: plain gradient steps, each on the whole batch.
        pace: of each.
        differentiable: with respect to `inputs`.

    Returns:
        By key of `sent`.
    """
    names = {id(parameter): name for name, parameter in loss.named_parameters()}
    now = dict(sent)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        for _ in range(steps):
            value = functional_call(loss, {names[id(sent[key])]: now[key] for key in sent}, inputs)
            found = torch.autograd.grad(value, [*now.values()], create_graph=differentiable, materialize_grads=True)
            now = {key: tensor - pace * change for (key, tensor), change in zip(now.items(), found, strict=True)}
    gradient = dict(zip(sent, found, strict=True))  # of the last step, which is all of them where there is one
    changes = gradient if steps == 1 else {key: (sent[key].detach() - now[key]) / pace for key in sent}
    return changes if differentiable else {key: change.detach() for key, change in changes.items()}
