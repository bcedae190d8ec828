"""The networks that the perceptual distance looks with: none of them is the one that an attack matches.

What an update is matched by, such as the feature that a head's gradient shows, comes near without any likeness to the
eye. So rebuilt images of a report model are looked at by the small ViT of the picture task, and rebuilt pictures of a
ViT by the small ResNet of the reports. The repository holds both [ours].
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable

import pandas
import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.encoder import load_encoder
from fedmrg_core.federation.curious.image_scores import likeness
from fedmrg_core.federation.curious.lpips import Lpips
from fedmrg_core.paths import STORED_BASE_MODELS

Scores = Callable[[Tensor, Tensor], pandas.DataFrame]  # of found and true images, see `likeness`
_STORED = STORED_BASE_MODELS / "smoke"
# What looks, by what is attacked.
NETWORKS = {"reports": _STORED / "phantom_findings" / "vit", "pictures": _STORED / "phantom" / "backbone"}


def scores_of(attacked: str, device: torch.device | str = "cpu", lpips: pathlib.Path | str = "") -> Scores:
    """`likeness` by the network that is not attacked.

    Args:
        attacked: a key of `NETWORKS`.
        device: where the images are.
        lpips: a file with LPIPS's weights, for a column more; empty: none.

    Raises:
        InputError: it holds no such weights.
    """
    distance = Lpips(lpips, device) if lpips else None
    return functools.partial(likeness, frozen=unattacked_network(attacked, device), lpips=distance)


def unattacked_network(attacked: str, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """A feature (B, D) of images (B, C, H, W) in [0, 1], colours averaged.

    Args:
        attacked: a key of `NETWORKS`.
        device: where the images are.
    """
    encoder = load_encoder(NETWORKS[attacked]).eval().to(device)
    size = encoder.native_size if attacked == "reports" else None

    def feature(images: Tensor) -> Tensor:
        grey = images.mean(dim=1, keepdim=True)
        if size is not None and grey.shape[-1] != size:  # a ViT has positions for one size
            grey = functional.interpolate(grey, (size, size), mode="bilinear", antialias=True)
        return encoder(grey).pooled

    return feature
