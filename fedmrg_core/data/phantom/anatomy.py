"""[ours] One phantom patient: the solids of the chest with normal variation, and what cardiomegaly and the like do to
their shapes.
"""

from __future__ import annotations

import dataclasses

import numpy

from fedmrg_core.data.phantom.projection import Ellipsoid, Grid
from fedmrg_core.data.phantom.truth import Truth
from fedmrg_core.data.phantom.vocabulary import AT, CM, EC

TISSUE = 0.19  # attenuation in 1/cm at diagnostic energies, soft tissue
LUNG = 0.055  # aerated lung
BONE_EXTRA = 0.30  # cortical bone above soft tissue
METAL = 2.2
SIGN = {"right": -1.0, "left": 1.0}  # the patient's right is on the image's left

# Cardiothoracic ratio on a postero-anterior film without and with cardiomegaly (severity 1, 2, 3); 0.5 is the usual
# limit.
NORMAL_RATIO = (0.39, 0.47)
ENLARGED_RATIO = ((0.53, 0.56), (0.56, 0.61), (0.61, 0.67))
AP_MAGNIFICATION = 1.06  # of the heart and mediastinum, which lie in front, on a bedside film


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """The solids of one patient; lengths in cm."""

    view: str  # "PA" or "AP"
    lungs: dict[str, Ellipsoid]
    domes: dict[str, Ellipsoid]  # what lies below each half of the diaphragm
    heart: Ellipsoid
    aortic_knob: Ellipsoid
    mediastinum: float  # half width of the upper mediastinum
    body: tuple[float, float]  # half width and half depth of the trunk
    rib_shift: float
    rib_spacing: float
    build: float  # relative amount of soft tissue in front and behind


def sample_anatomy(rng: numpy.random.Generator, truth: Truth, view: str) -> Anatomy:
    """A patient of random build whose heart, mediastinum and diaphragm follow the truth."""
    size = float(rng.normal(1.0, 0.035))
    lungs = {
        side: Ellipsoid(SIGN[side] * 6.7 * size, 2.0 + rng.normal(0, 0.3), 6.1 * size, 16.0 * size, 9.0 * size)
        for side in SIGN
    }
    inspiration = float(rng.normal(0.0, 0.6)) - (0.8 if view == "AP" else 0.0)
    domes = {side: _dome(side, size, inspiration, rng, truth) for side in SIGN}
    return Anatomy(
        view=view,
        lungs=lungs,
        domes=domes,
        heart=_heart(rng, truth, view, lungs, inspiration),
        aortic_knob=Ellipsoid(2.3 + 0.3 * rng.normal(), -6.3 + 0.3 * rng.normal(), 1.9, 1.9, 4.5),
        mediastinum=_mediastinum(rng, truth, view),
        body=(15.8 * size + abs(rng.normal(0, 0.8)), 11.0),
        rib_shift=float(rng.normal(0, 0.5)),
        rib_spacing=2.45 * size,
        build=float(numpy.clip(rng.normal(1.0, 0.12), 0.7, 1.4)),
    )


def _dome(side: str, size: float, inspiration: float, rng: numpy.random.Generator, truth: Truth) -> Ellipsoid:
    top = (6.9 if side == "right" else 8.0) + inspiration + float(rng.normal(0, 0.25))
    if AT in truth and truth[AT].side == side:
        top -= 0.8 + 0.6 * truth[AT].severity  # loss of volume lifts the diaphragm
    return Ellipsoid(SIGN[side] * 6.7 * size, top + 11.0, 9.2 * size, 11.0, 26.0)


def _heart(
    rng: numpy.random.Generator, truth: Truth, view: str, lungs: dict[str, Ellipsoid], inspiration: float
) -> Ellipsoid:
    low, high = ENLARGED_RATIO[truth[CM].severity - 1] if CM in truth else NORMAL_RATIO
    ratio = float(rng.uniform(low, high)) * (AP_MAGNIFICATION if view == "AP" else 1.0)
    thorax = lungs["left"].x + lungs["left"].a - lungs["right"].x + lungs["right"].a
    width = ratio * thorax
    angle = 0.55 + 0.08 * float(rng.normal())
    unit = Ellipsoid(0, 0, 1.22, 0.88, 1.0, angle)
    scale = width / (2 * unit.half_width())
    # A growing heart widens more than it lengthens, and mostly towards the patient's left.
    return Ellipsoid(0.155 * width, 4.0 + 0.8 * inspiration, 1.22 * scale, 0.88 * scale, 0.62 * width**0.8, angle)


def _mediastinum(rng: numpy.random.Generator, truth: Truth, view: str) -> float:
    width = float(rng.uniform(2.2, 2.9))
    if EC in truth:
        width = float(rng.uniform(3.6, 4.0)) + 0.5 * truth[EC].severity
    return width * (AP_MAGNIFICATION if view == "AP" else 1.0)


@dataclasses.dataclass(frozen=True)
class Fields:
    """The half depths of the solids on the detector, (H, W) each, in cm."""

    lungs: dict[str, numpy.ndarray]
    covered: numpy.ndarray  # the deepest of heart, mediastinum and diaphragm domes, which displace lung
    heart: numpy.ndarray
    mediastinum: numpy.ndarray
    air: dict[str, numpy.ndarray]  # full chord through aerated lung before any lung disease


def project_fields(anatomy: Anatomy, grid: Grid) -> Fields:
    """Half depths of all soft-tissue solids. All are centred at depth 0, so one displaces another by the smaller
    half depth.
    """
    heart = anatomy.heart.half_depth(grid)
    mediastinum = _mediastinum_depth(anatomy, grid)
    covered = numpy.maximum(numpy.maximum(heart, mediastinum), anatomy.aortic_knob.half_depth(grid))
    for dome in anatomy.domes.values():
        numpy.maximum(covered, _below_dome(dome, grid), out=covered)
    lungs = {side: lung.half_depth(grid) for side, lung in anatomy.lungs.items()}
    air = {side: 2 * numpy.maximum(depth - covered, 0) for side, depth in lungs.items()}
    return Fields(lungs, covered, heart, mediastinum, air)


def _mediastinum_depth(anatomy: Anatomy, grid: Grid) -> numpy.ndarray:
    """An upright elliptical column that narrows towards the neck and below the heart."""
    narrowing = 1 - 0.25 * numpy.exp(-numpy.square((grid.y + 14) / 4)) - 0.2 / (1 + numpy.exp(-(grid.y - 3) / 1.5))
    inside = 1 - numpy.square((grid.x - 0.3) / (anatomy.mediastinum * narrowing))
    return 7.0 * numpy.sqrt(numpy.maximum(inside, 0))


def _below_dome(dome: Ellipsoid, grid: Grid) -> numpy.ndarray:
    depth = dome.half_depth(grid)
    where = grid.box(dome.x - dome.a, dome.x + dome.a, dome.y, dome.y + 30)
    inside = numpy.abs(grid.x[where] - dome.x) < dome.a
    depth[where] = numpy.where(inside & (grid.y[where] > dome.y), dome.c, depth[where])
    return depth


def masks(fields: Fields) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Lung fields (where any lung is visible beside heart, mediastinum and diaphragm, diseased or not) and the
    heart's outline.
    """
    heart = fields.heart > 0
    return ((fields.air["right"] + fields.air["left"]) > 0.5) & ~heart, heart
