"""[ours] Bones of the phantom: spine, clavicles, scapulae and ribs with their fractures, as attenuation added to the
soft tissue.
"""

from __future__ import annotations

import numpy

from fedmrg_core.data.phantom.anatomy import BONE_EXTRA, SIGN, Anatomy
from fedmrg_core.data.phantom.projection import Grid, Slices, tube_chord
from fedmrg_core.data.phantom.truth import Truth
from fedmrg_core.data.phantom.vocabulary import FX

RIBS = 9
RIB_RADIUS = 0.6


def draw_skeleton(
    target: numpy.ndarray, anatomy: Anatomy, truth: Truth, grid: Grid, rng: numpy.random.Generator
) -> None:
    """Add the path integral of all bones to `target` (H, W)."""
    _draw_spine(target, anatomy, grid)
    breaks = _sample_breaks(truth, rng)
    for side in SIGN:
        _draw_clavicle(target, anatomy, side, grid)
        if anatomy.view == "AP":
            _draw_scapula(target, side, grid)
        for rib in range(RIBS):
            _draw_rib(target, anatomy, side, rib, breaks.get((side, rib)), grid)


def _draw_spine(target: numpy.ndarray, anatomy: Anatomy, grid: Grid) -> None:
    where = grid.box(-2.2, 2.2, -20, 20)
    x, y = grid.x[where], grid.y[where]
    column = numpy.sqrt(numpy.maximum(1 - numpy.square(x / 1.8), 0))
    # Vertebral bodies every 2.4 cm with paler discs between them.
    discs = 0.72 + 0.28 * numpy.tanh(3 * numpy.cos((y + anatomy.rib_shift) * (2 * numpy.pi / 2.4)) + 2)
    target[where] += 0.09 * 3.4 * column * discs


def _draw_clavicle(target: numpy.ndarray, anatomy: Anatomy, side: str, grid: Grid) -> None:
    lift = 1.3 if anatomy.view == "AP" else 0.0
    where = grid.box(min(SIGN[side] * 1.6, SIGN[side] * 15), max(SIGN[side] * 1.6, SIGN[side] * 15), -17.5, -9)
    along = (SIGN[side] * grid.x[where] - 1.6) / 13.4
    centre = -11.3 - lift - 2.6 * along - 0.7 * numpy.sin(2 * numpy.pi * along)
    inside = (along > 0) & (along < 1)
    target[where] += BONE_EXTRA * inside * tube_chord(grid.y[where] - centre, 0.7, wall=0.45)


def _draw_scapula(target: numpy.ndarray, side: str, grid: Grid) -> None:
    """A blade over the outer lung: on a bedside film the arms are not rotated away."""
    where = grid.box(min(SIGN[side] * 8.5, SIGN[side] * 16), max(SIGN[side] * 8.5, SIGN[side] * 16), -12, 1)
    x, y = SIGN[side] * grid.x[where], grid.y[where]
    medial = 9.4 + 0.18 * (y + 12)
    inside = numpy.minimum(numpy.minimum(x - medial, -0.5 - 1.1 * (x - medial) - y), numpy.minimum(y + 11.0, 13.2 - x))
    blade = 1 / (1 + numpy.exp(numpy.clip(-inside / 0.2, -30, 30)))
    target[where] += 0.12 * blade + 0.1 * blade * numpy.exp(-numpy.square((x - medial) / 0.5))


def _sample_breaks(truth: Truth, rng: numpy.random.Generator) -> dict[tuple[str, int], float]:
    """Broken ribs: (side, rib) -> place of the break as a share of the way from spine to flank; two to four
    neighbours.
    """
    if FX not in truth:
        return {}
    detail = truth[FX]
    first = int(rng.integers(2, RIBS - 2 - detail.severity))
    place = float(rng.uniform(0.55, 0.8))
    return {(detail.side, first + i): place + float(rng.normal(0, 0.02)) for i in range(1 + detail.severity)}


def _draw_rib(target: numpy.ndarray, anatomy: Anatomy, side: str, rib: int, place: float | None, grid: Grid) -> None:
    lung = anatomy.lungs[side]
    level = -13.6 + anatomy.rib_shift + anatomy.rib_spacing * rib
    # The chest wall at the height where the rib reaches the flank.
    reach = 1 - ((level + 2.5 - lung.y) / (lung.b + 1.0)) ** 2
    if reach <= 0.03:
        return
    lateral = abs(lung.x) + (lung.a + 0.6) * float(numpy.sqrt(reach))
    for front in (False, True):
        _draw_arc(target, grid, side, level, lateral, front, None if front else place)


def _draw_arc(
    target: numpy.ndarray, grid: Grid, side: str, level: float, lateral: float, front: bool, place: float | None
) -> None:
    """One arc of a rib: behind, from the spine outwards and down; in front, from the flank inwards and further down."""
    sign = SIGN[side]
    inner = 5.2 if front else 1.6
    where = _columns(grid, sign, inner, lateral, level)
    x, y = sign * grid.x[where], grid.y[where]
    along = numpy.clip((x - inner) / (lateral - inner), 0, 1)
    if front:
        rise = 1 - along
        centre, slope = level + 4.0 + 4.6 * rise, -4.6 / (lateral - inner)
        weight = 0.45 * numpy.clip(along * 3, 0, 1)  # the front ends are cartilage
    else:
        centre = level - 2.6 * along * (1 - along) + 4.0 * along**2
        slope = (-2.6 + 5.2 * along + 8.0 * along) / (lateral - inner)
        weight = 1.0
    if place is not None:
        weight = weight * (numpy.abs(along - place) > 0.05)
        centre = centre + numpy.where(along > place, 1.3, 0.0)  # the outer fragment is displaced downwards
    inside = (x > inner) & (x < lateral)
    distance = (y - centre) / numpy.sqrt(1 + slope * slope)
    target[where] += BONE_EXTRA * inside * weight * tube_chord(distance, RIB_RADIUS, wall=0.4)
    if place is not None:
        _draw_callus(target, grid, sign, inner + place * (lateral - inner), level, place)


def _draw_callus(target: numpy.ndarray, grid: Grid, sign: float, x: float, level: float, place: float) -> None:
    """Overlapping ends and early callus: a dense knot at the break."""
    y = level - 2.6 * place * (1 - place) + 4.0 * place**2 + 0.55
    where = grid.box(sign * x - 1.2, sign * x + 1.2, y - 1.5, y + 1.5)
    distance = numpy.square((grid.x[where] - sign * x) / 0.75) + numpy.square((grid.y[where] - y) / 1.05)
    target[where] += BONE_EXTRA * 3.2 * numpy.sqrt(numpy.maximum(1 - distance, 0))


def _columns(grid: Grid, sign: float, inner: float, lateral: float, level: float) -> Slices:
    return grid.box(min(sign * inner, sign * lateral), max(sign * inner, sign * lateral), level - 1.8, level + 9.4)
