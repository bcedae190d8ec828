"""[ours] What disease does to the lungs and pleura of the phantom: changes of the path integral (H, W), in place."""

from __future__ import annotations

import dataclasses

import numpy

from fedmrg_core.data.phantom.anatomy import LUNG, SIGN, TISSUE, Anatomy, Fields
from fedmrg_core.data.phantom.projection import Ellipsoid, Grid, draw_segments, polyline
from fedmrg_core.data.phantom.truth import Detail, Truth
from fedmrg_core.data.phantom.vocabulary import AT, CO, ED, LL, LO, PE, PN, PO, PX

FILLING = TISSUE - LUNG  # what a centimetre of lung gains when fluid replaces its air
ZONE_CENTRES = (-7.5, -1.5, 4.8)  # heights of the upper, middle and lower zone in cm


@dataclasses.dataclass
class LungState:
    """The lungs while they are being drawn."""

    anatomy: Anatomy
    fields: Fields
    grid: Grid
    path: numpy.ndarray  # path integral so far (H, W)
    vessels: numpy.ndarray  # chord through vessels (H, W), drawn before and erased by a pneumothorax

    def zone_point(self, detail: Detail, rng: numpy.random.Generator) -> tuple[float, float]:
        """A place inside the finding's zone, off the mediastinum and above the diaphragm."""
        lung, dome = self.anatomy.lungs[detail.side], self.anatomy.domes[detail.side]
        y = min(ZONE_CENTRES[detail.zone] + float(rng.normal(0, 0.9)), dome.y - dome.b - 1.6)
        reach = lung.a * float(numpy.sqrt(max(1 - ((y - lung.y) / lung.b) ** 2, 0.05)))
        x = abs(lung.x) + float(rng.uniform(-0.15, 0.4)) * reach
        return SIGN[detail.side] * x, y


def draw_lung_findings(state: LungState, truth: Truth, rng: numpy.random.Generator) -> None:
    """Apply every finding of lung and pleura that the truth holds, in a fixed order; `rng` places them."""
    if ED in truth:
        _edema(state, truth[ED], rng)
    if LO in truth:
        _haze(state, truth[LO], rng)
    if CO in truth:
        _consolidation(state, truth[CO], PN in truth, rng)
    if LL in truth:
        _lesion(state, truth[LL], rng)
    if AT in truth:
        _plates(state, truth[AT], rng)
    if PO in truth:
        _thickening(state, truth[PO], rng)
    if PX in truth:
        _pneumothorax(state, truth[PX], rng)
    state.path += TISSUE * 1.1 * state.vessels
    if PE in truth:
        for side in SIGN if truth[PE].side == "both" else (truth[PE].side,):
            _effusion(state, truth[PE], side, rng)


def _air(state: LungState) -> numpy.ndarray:
    return state.fields.air["right"] + state.fields.air["left"]


def _edema(state: LungState, detail: Detail, rng: numpy.random.Generator) -> None:
    """Butterfly haze around both hila, and Kerley B lines: short horizontal septa near the flank."""
    grid, air = state.grid, _air(state)
    strength = (0.22, 0.32, 0.44)[detail.severity - 1]
    for sign in SIGN.values():
        haze = numpy.square((grid.x - sign * 5.0) / 4.2) + numpy.square((grid.y - 0.5) / 6.0)
        state.path += FILLING * strength * air * numpy.exp(-haze)
    lines = []
    for side, sign in SIGN.items():
        lung = state.anatomy.lungs[side]
        for y in numpy.arange(1.5, 6.6, 0.85):
            edge = abs(lung.x) + lung.a * float(numpy.sqrt(1 - ((y - lung.y) / lung.b) ** 2))
            y = float(y + rng.normal(0, 0.1))
            lines.append([sign * (edge - 2.0 - 0.5 * rng.random()), y, sign * (edge - 0.3), y, 0.16, 0.16])
    chord = numpy.zeros_like(grid.x)
    draw_segments(chord, grid, numpy.array(lines))
    state.path += (0.5 + 0.2 * detail.severity) * chord * (air > 0)


def _haze(state: LungState, detail: Detail, rng: numpy.random.Generator) -> None:
    """Ground glass: partly filled air spaces with a soft border, through which vessels stay visible."""
    x, y = state.zone_point(detail, rng)
    spread = 1.9 + 0.35 * detail.severity
    distance = numpy.square((state.grid.x - x) / spread) + numpy.square((state.grid.y - y) / (1.25 * spread))
    amount = (0.40, 0.48, 0.56)[detail.severity - 1]
    state.path += FILLING * amount * state.fields.air[detail.side] * numpy.exp(-0.5 * distance)


def _consolidation(state: LungState, detail: Detail, infected: bool, rng: numpy.random.Generator) -> None:
    """Air spaces filled completely. An infection is patchy with air bronchograms, the others are one homogeneous
    block.
    """
    x, y = state.zone_point(detail, rng)
    size = 1.5 + 0.45 * detail.severity
    grid, filled = state.grid, numpy.zeros_like(state.grid.x)
    spread, softness = (1.25, 2.0) if infected else (0.6, 3.5)
    for angle in numpy.arange(5) * 1.257 + rng.uniform(0, 1.257) + rng.normal(0, 0.25, 5):
        radius = size * float(rng.uniform(0.6, 0.95) if infected else rng.uniform(0.85, 1.15))
        dx, dy = spread * size * float(numpy.cos(angle)), spread * size * float(numpy.sin(angle))
        square = numpy.square((grid.x - x - dx) / radius) + numpy.square((grid.y - y - dy) / radius)
        numpy.maximum(filled, 1 / (1 + numpy.exp(numpy.minimum(softness * (square - 1), 30))), out=filled)
    if infected:
        tree = numpy.zeros_like(grid.x)
        reach, sign = 1.8 * size, SIGN[detail.side]
        for angle in (-0.5, 0.1, 0.7):
            end = [x + sign * reach * float(numpy.cos(angle)), y + reach * float(numpy.sin(angle))]
            draw_segments(tree, grid, numpy.array([[x - sign * size, y - 0.4 * size, *end, 0.3, 0.18]]))
        filled *= 1 - numpy.clip(tree / 0.4, 0, 0.7)
    state.path += FILLING * 0.72 * state.fields.air[detail.side] * filled


def _lesion(state: LungState, detail: Detail, rng: numpy.random.Generator) -> None:
    """A sphere of tissue, sharply bounded: nodule up to 3 cm across, mass above."""
    x, y = state.zone_point(detail, rng)
    radius = (1.2, 1.6, 2.1)[detail.severity - 1] * float(rng.uniform(0.95, 1.1))
    sphere = Ellipsoid(x, y, radius, radius * float(rng.uniform(0.9, 1.1)), radius)
    state.path += 2.6 * TISSUE * 2 * sphere.half_depth(state.grid)  # denser than tissue: lesions calcify


def _plates(state: LungState, detail: Detail, rng: numpy.random.Generator) -> None:
    """One to three collapsed plates, seen edge-on as horizontal bands; the lifted diaphragm is part of the anatomy."""
    lung, sign = state.anatomy.lungs[detail.side], SIGN[detail.side]
    dome = state.anatomy.domes[detail.side]
    y = dome.y - dome.b - 1.4 if detail.zone == 2 else ZONE_CENTRES[1] + 0.6
    chord = numpy.zeros_like(state.grid.x)
    for _ in range(detail.severity + 1):
        half = float(rng.uniform(2.4, 3.6))
        middle, slope = sign * (abs(lung.x) + float(rng.normal(0.3, 0.5))), float(rng.normal(0, 0.12))
        points = [
            (middle - half, y - slope * half),
            (middle, y + float(rng.normal(0, 0.1))),
            (middle + half, y + slope * half),
        ]
        numpy.maximum(chord, _chord_of(points, float(rng.uniform(0.3, 0.38)), state.grid), out=chord)
        y -= float(rng.uniform(0.9, 1.4))
    state.path += 1.15 * chord * (_air(state) > 0)


def _chord_of(points: list[tuple[float, float]], radius: float, grid: Grid) -> numpy.ndarray:
    chord = numpy.zeros_like(grid.x)
    draw_segments(chord, grid, polyline(points, radius))
    return chord


def _thickening(state: LungState, detail: Detail, rng: numpy.random.Generator) -> None:
    """A dense rind along the flank, from the armpit to the lower zone, uneven in width."""
    lung, sign, grid = state.anatomy.lungs[detail.side], SIGN[detail.side], state.grid
    edge = abs(lung.x) + lung.a * numpy.sqrt(numpy.maximum(1 - numpy.square((grid.y - lung.y) / lung.b), 0))
    width = (0.75, 1.05, 1.4)[detail.severity - 1] * (
        1 + 0.3 * numpy.sin(grid.y * float(rng.uniform(0.6, 0.9)) + float(rng.uniform(0, 6)))
    )
    depth = edge - sign * grid.x  # distance from the chest wall, inwards
    rind = 1 / (1 + numpy.exp(numpy.clip((depth - width) / 0.15, -30, 30))) * (depth > -0.2)
    extent = 1 / (1 + numpy.exp(-(grid.y + 9) / 0.6)) / (1 + numpy.exp((grid.y - 5.5) / 0.6))
    state.path += 0.75 * rind * extent * (state.fields.lungs[detail.side] > 0)


def _pneumothorax(state: LungState, detail: Detail, rng: numpy.random.Generator) -> None:
    """Free air outside a retracted lung: darker than lung, without vessels, bounded by the thin line of the pleura."""
    lung, sign, grid = state.anatomy.lungs[detail.side], SIGN[detail.side], state.grid
    gap = (1.3, 2.1, 3.2)[detail.severity - 1] * float(rng.uniform(0.9, 1.1))
    retracted = dataclasses.replace(
        lung, x=lung.x - sign * 0.55 * gap, y=lung.y + 0.7 * gap, a=lung.a - 0.5 * gap, b=lung.b - 0.35 * gap
    )
    radius = numpy.sqrt(retracted.quadratic(grid))
    air = state.fields.air[detail.side]
    lateral = (sign * (grid.x - retracted.x) > -0.7 * retracted.a) | (grid.y < lung.y - 0.8 * lung.b)
    outside = (radius > 1) & (air > 0) & lateral
    state.vessels[outside] = 0
    state.path -= LUNG * 1.35 * air * outside
    line = numpy.exp(-0.5 * numpy.square((radius - 1) * retracted.a / 0.17))
    state.path += 0.55 * line * (air > 0) * lateral * (grid.y < 7.0)
    state.path += LUNG * 0.35 * air * (radius <= 1)  # the collapsing lung is a little denser


def _effusion(state: LungState, detail: Detail, side: str, rng: numpy.random.Generator) -> None:
    """Water in the pleural space: a level that climbs to the flank (meniscus) and hides the diaphragm."""
    lung, dome, sign, grid = state.anatomy.lungs[side], state.anatomy.domes[side], SIGN[side], state.grid
    height = (2.3, 4.2, 7.0)[detail.severity - 1] * float(rng.uniform(0.9, 1.1))
    flank = abs(lung.x) + 0.9 * lung.a
    level = dome.y - dome.b + 3.2 - height
    surface = level + 1.5 - (1.8 + 0.35 * height) * numpy.exp(-numpy.maximum(flank - sign * grid.x, 0) / 1.9)
    wet = 1 / (1 + numpy.exp(numpy.clip((surface - grid.y) / 0.22, -30, 30)))
    state.path += FILLING * 0.9 * state.fields.air[side] * wet
