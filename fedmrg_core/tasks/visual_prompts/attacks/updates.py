"""A client's update as an attacker computes it again: plain gradient steps on one batch, of what is shared.

The attacker knows the model before the round, the rule, the number of steps, the pace and, in his favour, the truth.
Training itself goes by AdamW, which sends less of a gradient than this: signs more than sizes [ours].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedmrg_core.errors import InputError
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel


class _Loss(nn.Module):
    """The weighted loss of a batch, as a module, so that it can be called with other parameters."""

    def __init__(self, model: PromptedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, truth: Tensor) -> Tensor:
        weights, terms = self.model.method.losses, self.model.loss_terms({"pixels": pixels, "truth": truth})
        return sum(getattr(weights, name) * term for name, term in terms.items())


def update_of(
    model: PromptedModel,
    pixels: Tensor,
    truth: Tensor,
    steps: int = 1,
    pace: float = 0.01,
    differentiable: bool = False,
) -> dict[str, Tensor]:
    """What shared parameters lose in some steps on one batch, in units of the pace: after one step the gradient.

    Args:
        model: as the client received it; it is not changed.
        pixels: (B, C, H, W) in [0, 1].
        truth: of the batch, as `loss_terms` wants it.
        steps: plain gradient steps, each on the whole batch.
        pace: of each.
        differentiable: with respect to `pixels`.

    Returns:
        By key of `TrainedModel.trainable`.

    Raises:
        InputError: the row shares nothing.
    """
    loss = _Loss(model)
    names = {id(parameter): name for name, parameter in loss.named_parameters()}
    sent = {key: p for key, p in model.trainable().items() if model.ownership[key.split("/")[0]] is Ownership.SHARED}
    if not sent:
        raise InputError(f"method {model.method.name!r} shares nothing, so no update gives anything away.")
    now = dict(sent)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        for _ in range(steps):
            value = functional_call(loss, {names[id(sent[key])]: now[key] for key in sent}, (pixels, truth))
            found = torch.autograd.grad(value, [*now.values()], create_graph=differentiable, materialize_grads=True)
            now = {key: tensor - pace * change for (key, tensor), change in zip(now.items(), found, strict=True)}
    gradient = dict(zip(sent, found, strict=True))  # of the last step, which is all of them where there is one
    changes = gradient if steps == 1 else {key: (sent[key].detach() - now[key]) / pace for key in sent}
    return changes if differentiable else {key: change.detach() for key, change in changes.items()}
