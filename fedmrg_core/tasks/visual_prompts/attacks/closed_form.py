"""The one image of an update in closed form, where a ViT travels whole.

    dL/dW = G^T X  for the patches' weights W, with G = dL/d(positions), (M, D): solved for X  [related: APRIL 2022]

Where a defence has drowned a part of the system, that part of the image is the attacker's prior [ours]. It needs one
image, a ViT whose positions travel, and at least as many dimensions as patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.errors import InputError
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.visual_prompts.backbones import TokenBackbone
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel

EXACT = 1e-6  # of the largest singular value: below it is what float32 has rounded
ENDS = {"positions": "embeddings.position_embeddings", "patches": "embeddings.patch_embeddings.projection.weight"}


def has_closed_form(model: PromptedModel, image_size: int) -> bool:
    """Whether one picture's update gives it away so: a ViT travels whole, as wide as it has patches, at its own size.

    Args:
        model: of a row.
        image_size: pixels of the pictures; at another size than the ViT's its positions are interpolated.
    """
    backbone = model.backbone
    if not isinstance(backbone, TokenBackbone) or backbone.positions > backbone.width:
        return False
    travelling = [key for key in model.state(Ownership.SHARED) if key.endswith(tuple(ENDS.values()))]
    return len(travelling) == len(ENDS) and backbone.model.config.image_size == image_size


def solve_patches(
    model: PromptedModel,
    gradient: Mapping[str, Tensor],
    start: Tensor | None = None,
    errors: Mapping[str, float] = MappingProxyType({}),
) -> Tensor:
    """The one image of a gradient in closed form, (1, C, H, W) in [0, 1].

    Args:
        model: a ViT that travels whole.
        gradient: of one image, see `update_of`.
        start: (C, H, W) in [0, 1], which fills what the system does not tell, such as the mean of pictures that the
            attacker has; None: grey.
        errors: of a tensor's numbers after a defence, by key, see `defences.errors`. Directions of the system that
            noise of this size has drowned are left out [ours].

    Returns:
        In the channels of the model.

    Raises:
        InputError: positions or patches do not travel, or there are more patches than dimensions.
    """
    keys = {name: next((key for key in gradient if key.endswith(end)), None) for name, end in ENDS.items()}
    if None in keys.values():
        raise InputError("attack: positions and patches do not both travel, so there is no closed form; match instead.")
    positions, weights = gradient[keys["positions"]][0, model.backbone.own :], gradient[keys["patches"]]
    if len(positions) > positions.shape[1]:
        raise InputError(
            f"attack: {len(positions)} patches are more than {positions.shape[1]} dimensions: no closed form."
        )
    system, pixels, edge = positions.T.double(), model.backbone.pixels, weights.shape[-1]
    side = math.isqrt(len(positions))
    grey = weights.new_full((1, side * edge, side * edge), pixels.mean)
    known = _patches(pixels((grey if start is None else start)[None]), edge).double()  # (M, C p p)
    longest = errors.get(keys["positions"], 0.0) * sum(math.sqrt(length) for length in system.shape)
    cut = max(EXACT, longest / torch.linalg.matrix_norm(system, 2).item())
    untold = weights.flatten(1).double() - system @ known
    told = torch.linalg.lstsq(system, untold, rcond=cut, driver="gelsd").solution if cut < 1 else 0 * known
    patches = known + told
    grid = patches.unflatten(1, tuple(weights.shape[1:])).unflatten(0, (side, side))  # (h, w, C, p, p)
    image = grid.permute(2, 0, 3, 1, 4).reshape(1, weights.shape[1], side * edge, side * edge)
    return (image * pixels.deviation + pixels.mean).clamp(0, 1).float()


def _patches(image: Tensor, edge: int) -> Tensor:
    """(M, C p p) of an image (1, C, H, W), row by row."""
    return functional.unfold(image, edge, stride=edge)[0].T
