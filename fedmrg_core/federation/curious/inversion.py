"""Images rebuilt from one client's update, by matching it.

min over x of  mean over tensors of 1 - cos(update(x), observed) + w TV(x) + prior(x)      [related: Geiping 2020]
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.errors import InputError
from fedmrg_core.seeds import stream_seed

NOISE = 0.02  # grey levels, on the picture that restarts begin from
Update = Callable[[Tensor], dict[str, Tensor]]  # of pictures (B, C, H, W) in [0, 1], differentiable in them
Prior = Callable[[Tensor], Tensor]  # what else the attacker knows of them, a scalar to be small


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


def attack_draws(seed: int, *stream: str) -> torch.Generator:
    """The random numbers of one part of an attack.

    Args:
        seed: of the attack.
        stream: names the part, such as "floors" and the number of images.
    """
    return torch.Generator().manual_seed(stream_seed(seed, "attack", *stream))


def invert_update(
    update: Update,
    observed: dict[str, Tensor],
    count: int,
    start: Tensor,
    attack: Attack,
    generator: torch.Generator,
    prior: Prior | None = None,
) -> Inverted:
    """Rebuild the batch of an update.

    Args:
        update: as the attacker computes it again.
        observed: as it came.
        count: B, number of images; the attacker is told it.
        start: (C, H, W), where the search begins, such as the mean of pictures that the attacker has.
        attack: the budget.
        generator: draws the noise that restarts begin from.
        prior: see `Prior`.

    Raises:
        InputError: the update is zero, so it holds nothing.
    """
    goal = moving(observed)
    return min(
        (_one_restart(update, goal, count, start, attack, generator, prior) for _ in range(attack.restarts)),
        key=lambda each: each.distance,
    )


def moving(observed: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an update that are not at rest: those have no direction.

    Raises:
        InputError: all are.
    """
    goal = {key: change for key, change in observed.items() if change.any()}
    if not goal:
        raise InputError("attack: the update is zero, so it holds nothing of a study; attack a later round.")
    return goal


def _one_restart(
    update: Update,
    goal: dict[str, Tensor],
    count: int,
    start: Tensor,
    attack: Attack,
    generator: torch.Generator,
    prior: Prior | None,
) -> Inverted:
    noise = torch.randn(count, *start.shape, generator=generator).to(start.device)
    pixels = (start + NOISE * noise).clamp(0, 1).requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=attack.rate)
    for number in range(attack.iterations):
        optimiser.param_groups[0]["lr"] = attack.rate * (1 + math.cos(math.pi * number / attack.iterations)) / 2
        aim = mean_distance(update(pixels), goal) + attack.total_variation * total_variation(pixels)
        aim = aim + prior(pixels) if prior else aim
        (pixels.grad,) = torch.autograd.grad(aim, [pixels])
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return Inverted(pixels.detach(), mean_distance(update(pixels), goal).item())


def mean_distance(own: dict[str, Tensor], goal: dict[str, Tensor]) -> Tensor:
    """1 - cosine, a mean over tensors: together the largest would decide, and biases know least of an image [ours]."""
    parts = [functional.cosine_similarity(own[key].flatten(), goal[key].flatten(), dim=0, eps=1e-20) for key in goal]
    return 1 - torch.stack(parts).mean()


def total_variation(pixels: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, along both edges."""
    return pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()
