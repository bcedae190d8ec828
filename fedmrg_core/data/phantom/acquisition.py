"""[ours] From a path integral to the 8-bit picture a centre would send: photons, detector, processing, marker,
collimation.
"""

from __future__ import annotations

import numpy

from fedmrg_core.data.phantom.centres import ImageStyle
from fedmrg_core.data.phantom.projection import FIELD, blur, transmission


def acquire(path: numpy.ndarray, style: ImageStyle, rng: numpy.random.Generator) -> numpy.ndarray:
    """Take the picture.

    Args:
        path: integral of mu along each ray, (H, H).
        style: the centre's acquisition.
        rng: exposure and quantum noise.

    Returns:
        The radiograph, uint8 (H, H), bright where much was absorbed.
    """
    size = path.shape[0]
    intensity = transmission(path) + style.scatter * 0.06
    intensity = _coarsen(blur(intensity, style.blur), style.pixel)
    # The number of photons in a pixel is Poisson; at these counts a Gaussian of the same variance.
    photons = style.photons * (FIELD / size) ** 2 / 0.1 * float(numpy.exp(rng.normal(0, 0.15)))
    noise = rng.standard_normal(path.shape, dtype=numpy.float32)  # fewer random bits; the sums are double precision
    intensity = numpy.maximum(intensity + noise * numpy.sqrt(intensity / photons), 1e-4)
    return _finish(_process(-numpy.log(intensity), style), style)


def _coarsen(image: numpy.ndarray, pixel: float) -> numpy.ndarray:
    """Detail below the detector's own pixel is lost: a blur by its aperture (standard deviation width / sqrt(12))
    and a bit more.
    """
    own = FIELD / image.shape[0]
    return image if pixel <= own else blur(image, 0.6 * float(numpy.sqrt(pixel**2 - own**2)))


def _process(density: numpy.ndarray, style: ImageStyle) -> numpy.ndarray:
    """Automatic window on the central field, local equalisation, unsharp masking, characteristic curve; values in
    0..1.
    """
    margin = density.shape[0] // 6
    inner = density[margin:-margin, margin:-margin]
    low, high = numpy.percentile(inner, (5, 95))
    value = (density - low) / (high - low + 1e-6)
    if style.equalise:
        value = value - style.equalise * (blur(numpy.clip(value, -0.5, 1.5), 5.0) - 0.5)
    if style.edge:
        value = value + style.edge * (value - blur(value, 0.6))
    curve = 1 / (1 + numpy.exp(-(4 * style.contrast * (value - 0.5) * 0.9 + style.brightness)))
    return curve**style.gamma


def _finish(value: numpy.ndarray, style: ImageStyle) -> numpy.ndarray:
    size = value.shape[0]
    if style.marker_size and style.marker != (0.0, 0.0):
        _stamp(value, style)
    border = round(style.collimation / FIELD * size)
    if border:
        value[:border], value[-border:], value[:, :border], value[:, -border:] = 0, 0, 0, 0
    return numpy.round(numpy.clip(value, 0, 1) * 255).astype(numpy.uint8)


def _stamp(value: numpy.ndarray, style: ImageStyle) -> None:
    """A lead letter: an L for the patient's left on the image's right, an R's stem and bow on the other side, a bar
    in the middle.
    """
    size = value.shape[0]
    unit = max(round(style.marker_size / FIELD * size / 3), 1)
    column, row = (round((place / FIELD + 0.5) * size) for place in style.marker)
    value[row - 2 * unit : row + 2 * unit, column - unit : column - unit + max(unit // 2, 1)] = 1
    if style.marker[0] >= 0:
        value[row + 2 * unit - max(unit // 2, 1) : row + 2 * unit, column - unit : column + unit] = 1
    else:
        value[row - 2 * unit : row, column - unit : column + unit] = 1
