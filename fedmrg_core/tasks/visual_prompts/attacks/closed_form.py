"""The one image of an update in closed form, where a ViT travels whole.

    dL/dW = G^T X  for the patches' weights W, with G = dL/d(positions), (M, D): solved for X  [related: APRIL 2022]

It needs one image, a ViT whose positions travel, and at least as many dimensions as patches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel

EXACT = 1e-6  # of the largest singular value: below it is what float32 has rounded


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
