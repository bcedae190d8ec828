"""The networks that the perceptual distance looks with: none of them is the one that an attack matches.

What an update is matched by, such as the feature that a head's gradient shows, comes near without any likeness to the
eye. So rebuilt images of a report model are looked at by the small ViT of the picture task, and rebuilt pictures of a
ViT by the small ResNet of the reports. The repository holds both [ours].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.encoder import load_encoder
from fedmrg_core.paths import STORED_BASE_MODELS

_STORED = STORED_BASE_MODELS / "smoke"
# What looks, by what is attacked.
NETWORKS = {"reports": _STORED / "phantom_findings" / "vit", "pictures": _STORED / "phantom" / "backbone"}


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
