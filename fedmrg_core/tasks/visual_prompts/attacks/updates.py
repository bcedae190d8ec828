"""The update of a prompted model on a batch of pictures. The attacker is told the truth, in his favour."""

from __future__ import annotations

from torch import Tensor, nn

from fedmrg_core.federation.curious.recomputed import recomputed_update, sent_by
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
    """What shared parameters lose, see `recomputed_update`.

    Args:
        model: as the client received it.
        pixels: (B, C, H, W) in [0, 1].
        truth: of the batch, as `loss_terms` wants it.
        steps: plain gradient steps.
        pace: of each.
        differentiable: with respect to `pixels`.

    Returns:
        By key of `TrainedModel.trainable`.

    Raises:
        InputError: the row shares nothing.
    """
    return recomputed_update(_Loss(model), sent_by(model), (pixels, truth), steps, pace, differentiable)
