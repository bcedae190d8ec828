"""Reading pictures and masks of a folder: squares of one size, or refused in one sentence."""

from __future__ import annotations

import pathlib

import numpy
from PIL import Image

from fedmrg_core.data.images import open_upright, read_grey_image, read_picture, squared
from fedmrg_core.errors import InputError

CLEAN = (0, 1, 255)  # values of a mask that needs no threshold


def read_pixels(path: pathlib.Path, image_size: int, colours: bool) -> numpy.ndarray:
    """A picture as uint8 (C, H, W), padded to a square and resized, see `read_grey_image`.

    Raises:
        InputError: as `read_grey_image`.
    """
    if not colours:
        return numpy.asarray(read_grey_image(path, image_size))[None]
    return numpy.asarray(read_picture(path, image_size)).transpose(2, 0, 1).copy()


def read_mask(path: pathlib.Path, picture: pathlib.Path, image_size: int, threshold: int | None) -> numpy.ndarray:
    """A mask as uint8 (H, W) of zeros and ones, padded and resized as its picture is.

    Args:
        path: of the mask.
        picture: the picture that it outlines, for its size.
        image_size: pixels along an edge of the result.
        threshold: grey levels above it belong to the region; None: there may be only two levels, black and white.

    Raises:
        InputError: it cannot be read, has another size than its picture, or has grey levels without a threshold.
    """
    mask, size = open_upright(path).convert("L"), open_upright(picture).size
    if mask.size != size:
        raise InputError(
            f"{path}: the mask is {mask.width} x {mask.height} pixels and its picture {picture.name} {size[0]} x "
            f"{size[1]}; give both in one size."
        )
    values = numpy.asarray(mask)
    if threshold is None:
        grey = sorted(set(numpy.unique(values).tolist()) - set(CLEAN))
        if grey:
            raise InputError(
                f"{path}: the mask has {len(grey)} grey levels between black and white, such as {grey[0]}, as a JPEG "
                "has; give threshold, for example 127: what is above it belongs to the region."
            )
        threshold = 0
    region = Image.fromarray((values > threshold).astype(numpy.uint8) * 255)
    return (numpy.asarray(squared(region, image_size, Image.Resampling.NEAREST)) > 0).astype(numpy.uint8)
