"""[ours] Puts one phantom patient together: soft tissue, vessels, bones, findings and devices in one path integral."""

from __future__ import annotations

import numpy

from fedmrg_core.data.phantom.anatomy import LUNG, METAL, SIGN, TISSUE, Anatomy, Fields, project_fields
from fedmrg_core.data.phantom.lung_findings import LungState, draw_lung_findings
from fedmrg_core.data.phantom.projection import Ellipsoid, Grid, draw_segments, polyline
from fedmrg_core.data.phantom.skeleton import draw_skeleton
from fedmrg_core.data.phantom.truth import Detail, Truth
from fedmrg_core.data.phantom.vocabulary import ED, SD


def draw_patient(
    anatomy: Anatomy, truth: Truth, grid: Grid, rng: numpy.random.Generator
) -> tuple[numpy.ndarray, Fields]:
    """The path integral of mu along every ray, (H, W), and the fields it was made from."""
    fields = project_fields(anatomy, grid)
    path = _soft_tissue(anatomy, fields, grid)
    vessels = numpy.zeros_like(grid.x)
    draw_segments(vessels, grid, _vessel_tree(rng, thickness=1.35 if ED in truth else 1.0))
    vessels *= (fields.air["right"] + fields.air["left"]) > 0
    draw_lung_findings(LungState(anatomy, fields, grid, path, vessels), truth, rng)
    draw_skeleton(path, anatomy, truth, grid, rng)
    if SD in truth:
        _draw_devices(path, truth[SD], grid, rng)
    return path, fields


def _soft_tissue(anatomy: Anatomy, fields: Fields, grid: Grid) -> numpy.ndarray:
    """Trunk and shoulders, hollowed by the lungs, the windpipe and the gastric bubble."""
    half_width, half_depth = anatomy.body
    # The trunk is an upright elliptical column that widens into the shoulders.
    width = half_width + 7.0 / (1 + numpy.exp((grid.y + 12.5) / 1.3))
    trunk = 2 * half_depth * anatomy.build * numpy.sqrt(numpy.maximum(1 - numpy.square(grid.x / width), 0))
    path = TISSUE * numpy.minimum(trunk, 22.0 * anatomy.build)
    path -= (TISSUE - LUNG) * (fields.air["right"] + fields.air["left"])
    # Heart and great vessels lie in front of and beside tissue-free lung, so they add a little depth of their own.
    path += TISSUE * 0.35 * fields.heart
    trachea = numpy.maximum(1 - numpy.square((grid.x - 0.2) / 0.85), 0) / (1 + numpy.exp((grid.y + 5.5) / 0.4))
    path -= TISSUE * 1.7 * numpy.sqrt(trachea)
    for side, sign in SIGN.items():  # hila: a knot of vessels where each lung's root is
        hilum = Ellipsoid(sign * 3.6, -0.6 if side == "right" else -1.2, 1.4, 2.3, 2.2, -0.3 * sign)
        path += (TISSUE - LUNG) * 1.2 * hilum.half_depth(grid) * (fields.air[side] > 0)
    bubble = Ellipsoid(5.0, anatomy.domes["left"].y - anatomy.domes["left"].b + 2.4, 2.4, 1.3, 2.2)
    path -= TISSUE * 1.6 * bubble.half_depth(grid)
    return path


def _vessel_tree(rng: numpy.random.Generator, thickness: float) -> numpy.ndarray:
    """Pulmonary vessels: from each hilum outwards, forking twice and tapering; (N, 6) tubes."""
    tubes = []
    for sign in SIGN.values():
        for angle in numpy.linspace(-1.35, 1.25, 7) + rng.normal(0, 0.08, 7):
            _grow(tubes, rng, sign * 3.0, -0.2 * sign - 0.6, float(angle), sign, 3.2, 0.6 * thickness, forks=2)
    return numpy.array(tubes)


def _grow(
    tubes: list[list[float]],
    rng: numpy.random.Generator,
    x: float,
    y: float,
    angle: float,
    sign: float,
    length: float,
    radius: float,
    forks: int,
) -> None:
    end_x, end_y = x + sign * length * float(numpy.cos(angle)), y + length * float(numpy.sin(angle))
    tubes.append([x, y, end_x, end_y, radius, 0.68 * radius])
    if forks:
        for turn in (-0.3, 0.3):
            _grow(
                tubes,
                rng,
                end_x,
                end_y,
                angle + turn + float(rng.normal(0, 0.1)),
                sign,
                0.95 * length,
                0.62 * radius,
                forks - 1,
            )


def _draw_devices(path: numpy.ndarray, detail: Detail, grid: Grid, rng: numpy.random.Generator) -> None:
    metal = numpy.zeros_like(grid.x)
    sign = SIGN[detail.side]
    for kind in detail.kinds:
        if kind == "tube":
            tip = float(rng.uniform(-8.5, -6.5))
            draw_segments(metal, grid, polyline([(0.2, -20.0), (0.0, -13.0), (0.3, tip)], 0.3))
        elif kind == "line":
            draw_segments(
                metal,
                grid,
                polyline([(sign * 5.5, -18.0), (sign * 3.2, -11.5), (-1.2, -8.0), (-2.2, -3.0), (-2.1, 0.5)], 0.24),
            )
        elif kind == "wires":
            for y in numpy.arange(-7.0, 5.0, 2.4):
                loop = [(-0.9, y - 0.5), (0.9, y + 0.5), (1.1, y - 0.4), (-0.8, y + 0.6)]
                draw_segments(metal, grid, polyline(loop, 0.17))
        else:
            _draw_pacemaker(metal, sign, grid, rng)
    path += METAL * metal


def _draw_pacemaker(metal: numpy.ndarray, sign: float, grid: Grid, rng: numpy.random.Generator) -> None:
    x, y = sign * (9.5 + float(rng.normal(0, 0.4))), -9.5 + float(rng.normal(0, 0.5))
    box = Ellipsoid(x, y, 2.2, 1.8, 0.5)
    numpy.maximum(metal, 2 * numpy.minimum(box.half_depth(grid) * 3, 0.5), out=metal)
    ventricle = (2.8, 6.5)
    lead = [(x - sign * 1.5, y - 0.5), (sign * 4.5, -11.0), (-1.8, -8.0), (-2.4, 0.5), ventricle]
    draw_segments(metal, grid, polyline(lead, 0.2))
