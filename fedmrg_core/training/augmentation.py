"""Random changes of training images: what a patient's position and a machine's exposure do to a radiograph [ours]."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.runs.configuration import ImageChanges

if TYPE_CHECKING:
    from monai.transforms import Compose


def augmented(images: Tensor, settings: ImageChanges, generator: numpy.random.Generator) -> Tensor:
    """Images moved by whole pixels, then turned, stretched and exposed at random, as far as the settings say.

    Args:
        images: (B, 1, H, W) in [0, 1].
        settings: how far.
        generator: of this batch.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    if settings.image_shift:
        images = shifted(images, settings.image_shift, generator)
    ranges = settings.image_rotation, settings.image_stretch, settings.image_gamma
    if any(ranges):
        change = _position_and_exposure(*ranges)
        change.set_random_state(seed=int(generator.integers(2**32)))
        images = torch.stack([change(image).as_tensor() for image in images])
    return images


def shifted(images: Tensor, largest: int, generator: numpy.random.Generator) -> Tensor:
    """Each image of (B, 1, H, W) moved by up to `largest` pixels either way, edges repeated."""
    height, width = images.shape[-2:]
    padded = functional.pad(images, (largest,) * 4, mode="replicate")
    offsets = generator.integers(0, 2 * largest + 1, size=(len(images), 2)).tolist()
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, offsets, strict=True)])


@functools.cache
def _position_and_exposure(rotation: float, stretch: float, gamma: float) -> Compose:
    """The three changes in a row, each image by its own draw."""
    from monai.transforms import Compose, RandAdjustContrast, RandAffine  # its import takes seconds

    changes = []
    if rotation or stretch:
        turn = {"rotate_range": math.radians(rotation), "scale_range": (stretch, stretch)}
        changes.append(RandAffine(prob=1, **turn, padding_mode="border"))
    if gamma:
        changes.append(RandAdjustContrast(prob=1, gamma=(1 / (1 + gamma), 1 + gamma)))
    return Compose(changes)
