"""Overlap and distance of masks, MONAI's, with a rule for empty ones that stands in the measure's name.

dice_empty_1                  2 |A and B| / (|A| + |B|); both empty: 1
hausdorff95_empty_diagonal    95th percentile of the distances between outlines, in pixels; both empty: 0; one
                              empty: the diagonal of the picture, the farthest two pixels can be apart    [ours]
"""

from __future__ import annotations

import math
import warnings

import numpy
import torch
from torch import Tensor

DICE, HAUSDORFF = "dice_empty_1", "hausdorff95_empty_diagonal"
PERCENTILE = 95


def dice(found: Tensor, truth: Tensor) -> numpy.ndarray:
    """Dice of each region, (B, K), of masks (B, K, H, W) of zeros and ones."""
    from monai.metrics import compute_dice  # its import takes seconds

    return compute_dice(found.float(), truth.float(), ignore_empty=False).numpy().astype(float)


def hausdorff95(found: Tensor, truth: Tensor) -> numpy.ndarray:
    """Hausdorff distance at the 95th percentile of each region, (B, K), in pixels, of masks as for `dice`."""
    from monai.metrics import compute_hausdorff_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty masks, which have a rule here
        distances = compute_hausdorff_distance(
            found.float(), truth.float(), include_background=True, percentile=PERCENTILE
        )
    empty = torch.stack([masks.flatten(2).sum(dim=2) == 0 for masks in (found, truth)])
    diagonal = math.hypot(*(side - 1 for side in truth.shape[-2:]))
    distances = torch.where(empty.any(dim=0), torch.full_like(distances, diagonal), distances)
    return torch.where(empty.all(dim=0), torch.zeros_like(distances), distances).numpy().astype(float)
