"""Images rebuilt from one client's update: by matching it, and in closed form where a ViT travels whole.

    min over x of  mean over tensors of 1 - cos(update(x), observed) + w TV(x)            [related: Geiping 2020]

    dL/dW = G^T X  for the patches' weights W, with G = dL/d(positions), (M, D): solved for X  [related: APRIL 2022]

The second needs one image, a ViT whose positions travel, and at least as many dimensions as patches.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.errors import InputError
from fedmrg_core.tasks.visual_prompts.attacks.updates import update_of
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel

NOISE = 0.02  # grey levels, on the picture that restarts begin from
EXACT = 1e-6  # of the largest singular value: below it is what float32 has rounded


@dataclasses.dataclass(frozen=True)
class Attack:
    """The attacker's budget, the same whatever travels.

    Attributes:
        iterations: of one restart.
        restarts: from other noise each; the one whose update is nearest counts, as the images are not known.
        rate: of a step, in grey levels from 0 to 1; it falls to zero along half a cosine.
        total_variation: w, weight of the prior that neighbours are alike.
        steps: local steps that the client made.
        pace: of each.
    """

    iterations: int = 300
    restarts: int = 2
    rate: float = 0.02
    total_variation: float = 0.1
    steps: int = 1
    pace: float = 0.01


@dataclasses.dataclass(frozen=True)
class Inverted:
    """Images (B, C, H, W) in [0, 1], and how far their update is from the one that was seen."""

    pixels: Tensor
    distance: float


def invert_update(
    model: PromptedModel,
    observed: dict[str, Tensor],
    truth: Tensor,
    start: Tensor,
    attack: Attack,
    generator: torch.Generator,
) -> Inverted:
    """Rebuild the batch of an update.

    Args:
        model: as the client received it.
        observed: see `update_of`.
        truth: of the batch of B images; the attacker is given it.
        start: (C, H, W), where the search begins, such as the mean of pictures that the attacker has.
        attack: the budget.
        generator: draws the noise that restarts begin from.

    Raises:
        InputError: the update is zero, so it holds nothing.
    """
    goal = {key: change for key, change in observed.items() if change.any()}  # a tensor at rest has no direction
    if not goal:
        raise InputError("attack: the update is zero, so it holds nothing of an image; attack a later round.")
    found = [_one_restart(model, goal, truth, start, attack, generator) for _ in range(attack.restarts)]
    return min(found, key=lambda each: each.distance)


def _one_restart(
    model: PromptedModel,
    goal: dict[str, Tensor],
    truth: Tensor,
    start: Tensor,
    attack: Attack,
    generator: torch.Generator,
) -> Inverted:
    noise = torch.randn(len(truth), *start.shape, generator=generator).to(truth.device)
    pixels = (start + NOISE * noise).clamp(0, 1).requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=attack.rate)
    for number in range(attack.iterations):
        optimiser.param_groups[0]["lr"] = attack.rate * (1 + math.cos(math.pi * number / attack.iterations)) / 2
        distance = _distance(model, pixels, truth, goal, attack) + attack.total_variation * total_variation(pixels)
        (pixels.grad,) = torch.autograd.grad(distance, [pixels])
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return Inverted(pixels.detach(), _distance(model, pixels, truth, goal, attack).item())


def _distance(model: PromptedModel, pixels: Tensor, truth: Tensor, goal: dict[str, Tensor], attack: Attack) -> Tensor:
    """Mean over tensors: together the largest would decide, and those of biases know least of an image [ours]."""
    own = update_of(model, pixels, truth, attack.steps, attack.pace, differentiable=True)
    parts = [functional.cosine_similarity(own[key].flatten(), goal[key].flatten(), dim=0, eps=1e-20) for key in goal]
    return 1 - torch.stack(parts).mean()


def total_variation(pixels: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, along both edges."""
    return pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()


def solve_patches(model: PromptedModel, gradient: dict[str, Tensor], error: float = 0.0) -> Tensor:
    """The one image of a gradient in closed form, (1, C, H, W) in [0, 1].

    Args:
        model: a ViT that travels whole.
        gradient: of one image, see `update_of`.
        error: standard deviation of what a defence has changed in each number. Directions of the system that are no
            longer than noise of this size would be are left out [ours].

    Raises:
        InputError: positions or patches do not travel, or there are more patches than dimensions.
    """
    ends = {"positions": "embeddings.position_embeddings", "patches": "embeddings.patch_embeddings.projection.weight"}
    found = {name: [value for key, value in gradient.items() if key.endswith(end)] for name, end in ends.items()}
    if not all(found.values()):
        raise InputError("attack: positions and patches do not both travel, so there is no closed form; match instead.")
    positions, weights = found["positions"][0][0, model.backbone.own :], found["patches"][0]
    if len(positions) > positions.shape[1]:
        raise InputError(
            f"attack: {len(positions)} patches are more than {positions.shape[1]} dimensions: no closed form."
        )
    system = positions.T.double()
    longest = error * sum(math.sqrt(side) for side in system.shape)  # singular value of a matrix of such noise
    cut = max(EXACT, longest / torch.linalg.matrix_norm(system, 2).item())
    patches = torch.linalg.lstsq(system, weights.flatten(1).double(), rcond=cut, driver="gelsd").solution  # (M, C p p)
    side, edge = math.isqrt(len(patches)), weights.shape[-1]
    grid = patches.unflatten(1, tuple(weights.shape[1:])).unflatten(0, (side, side))  # (h, w, C, p, p)
    image = grid.permute(2, 0, 3, 1, 4).reshape(1, weights.shape[1], side * edge, side * edge)
    pixels = model.backbone.pixels
    return (image * pixels.deviation + pixels.mean).clamp(0, 1).float()
