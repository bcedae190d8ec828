"""Closed-form projections of simple solids and Beer-Lambert's law, in NumPy only.

A radiograph measures I = I0 exp(-integral of mu ds) along each ray (Beer-Lambert); parallel rays run along the depth
z. For an ellipsoid the integral is mu times a chord, 2 c sqrt(1 - q(x, y)) with q the in-plane quadratic form; for a
thin tube it is 2 sqrt(r^2 - d^2), d the distance from its centre line. Lengths in centimetres, attenuations in 1/cm.
Everything is double precision until the picture is rounded to 8 bits: processors differ in the last bits of sums and
exponentials, and only in single precision do these last bits reach a grey level. [ours]
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy

FIELD = 35.0  # width and height of the detector in cm
Slices = tuple[slice, slice]


@dataclasses.dataclass(frozen=True)
class Grid:
    """The patient's coordinates of every pixel: `x` to the image's right (the patient's left), `y` downwards, both
    (H, W), in cm.
    """

    x: numpy.ndarray
    y: numpy.ndarray
    zoom: float = 1.0
    tilt: float = 0.0  # radians

    @classmethod
    def square(cls, size: int, zoom: float = 1.0, tilt: float = 0.0) -> Grid:
        """A detector of `size` x `size` pixels; the patient is magnified by `zoom` and turned in the plane by
        `tilt`.
        """
        u, v = _detector(size)
        cos, sin = math.cos(tilt) / zoom, math.sin(tilt) / zoom
        return cls(cos * u + sin * v, cos * v - sin * u, zoom, tilt)

    def box(self, x0: float, x1: float, y0: float, y1: float) -> Slices:
        """The rows and columns that can hold the patient's rectangle [x0, x1] x [y0, y1]."""
        size = self.x.shape[0]
        cos, sin = self.zoom * math.cos(self.tilt), self.zoom * math.sin(self.tilt)
        u = [cos * x - sin * y for x in (x0, x1) for y in (y0, y1)]
        v = [sin * x + cos * y for x in (x0, x1) for y in (y0, y1)]
        columns = slice(_pixel(min(u), size), _pixel(max(u), size) + 1)
        return slice(_pixel(min(v), size), _pixel(max(v), size) + 1), columns


def _pixel(position: float, size: int) -> int:
    return int(min(max((position / FIELD + 0.5) * size, 0), size))


@functools.lru_cache(maxsize=4)
def _detector(size: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    centres = ((numpy.arange(size) + 0.5) / size - 0.5) * FIELD
    u, v = numpy.meshgrid(centres, centres)
    return u, v


@dataclasses.dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with semi-axes (a, b) in the plane, turned by `angle`, and semi-axis c in depth, centred at
    depth 0.
    """

    x: float
    y: float
    a: float
    b: float
    c: float
    angle: float = 0.0

    def quadratic(self, grid: Grid, where: Slices = (slice(None), slice(None))) -> numpy.ndarray:
        """q(x, y), below 1 inside the outline."""
        dx, dy = grid.x[where] - self.x, grid.y[where] - self.y
        if self.angle:
            cos, sin = math.cos(self.angle), math.sin(self.angle)
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        return numpy.square(dx / self.a) + numpy.square(dy / self.b)

    def half_width(self) -> float:
        """Half the horizontal extent of the outline."""
        return float(numpy.hypot(self.a * numpy.cos(self.angle), self.b * numpy.sin(self.angle)))

    def bounding_box(self, grid: Grid) -> Slices:
        """Rows and columns of the outline."""
        width = self.half_width()
        height = float(numpy.hypot(self.a * numpy.sin(self.angle), self.b * numpy.cos(self.angle)))
        return grid.box(self.x - width, self.x + width, self.y - height, self.y + height)

    def half_depth(self, grid: Grid) -> numpy.ndarray:
        """Half the chord of every ray, (H, W)."""
        depth = numpy.zeros_like(grid.x)
        where = self.bounding_box(grid)
        depth[where] = self.c * numpy.sqrt(numpy.maximum(1 - self.quadratic(grid, where), 0))
        return depth


def tube_chord(distance: numpy.ndarray, radius: float | numpy.ndarray, wall: float = 1.0) -> numpy.ndarray:
    """Chord of a ray that passes a tube's centre line at `distance`; `wall` < 1 leaves a hollow of radius (1 -
    wall) r.
    """
    square = numpy.square(distance)
    chord = 2 * numpy.sqrt(numpy.maximum(radius * radius - square, 0))
    if wall < 1:
        inner = (1 - wall) * radius
        chord -= 2 * numpy.sqrt(numpy.maximum(inner * inner - square, 0))
    return chord


def draw_segments(target: numpy.ndarray, grid: Grid, segments: numpy.ndarray) -> None:
    """Draw straight tubes (N, 6: x0, y0, x1, y1, r0, r1) into `target` (H, W) as chords; where tubes cross the
    longer chord counts.
    """
    for x0, y0, x1, y1, r0, r1 in segments.tolist():
        margin = max(r0, r1)
        where = grid.box(min(x0, x1) - margin, max(x0, x1) + margin, min(y0, y1) - margin, max(y0, y1) + margin)
        x, y = grid.x[where], grid.y[where]
        dx, dy = x1 - x0, y1 - y0
        along = numpy.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        square = numpy.square(x - x0 - along * dx) + numpy.square(y - y0 - along * dy)
        chord = 2 * numpy.sqrt(numpy.maximum(numpy.square(r0 + along * (r1 - r0)) - square, 0))
        numpy.maximum(target[where], chord, out=target[where])


def polyline(points: list[tuple[float, float]], radius: float) -> numpy.ndarray:
    """The tubes (N, 6) along a chain of points."""
    return numpy.array([[*p, *q, radius, radius] for p, q in zip(points[:-1], points[1:], strict=True)])


def transmission(path_integral: numpy.ndarray) -> numpy.ndarray:
    """Beer-Lambert: the share of the photons that come through, exp(-integral of mu ds)."""
    return numpy.exp(-path_integral)


@functools.lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma: float) -> numpy.ndarray:
    offsets = (numpy.arange(size)[:, None] - numpy.arange(size)[None, :]) * (FIELD / size)
    weights = numpy.exp(-0.5 * numpy.square(offsets / sigma))
    weights[weights < 1e-6] = 0  # denormal numbers make matrix products many times slower
    return weights / weights.sum(axis=1, keepdims=True)


def blur(image: numpy.ndarray, sigma: float) -> numpy.ndarray:
    """Gaussian blur of a square image (H, H), standard deviation in cm; the border is normalised, not padded."""
    if sigma <= 0.05 * FIELD / image.shape[0]:
        return image
    matrix = _blur_matrix(image.shape[0], round(float(sigma), 3))
    return matrix @ image @ matrix.T
