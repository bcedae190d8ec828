"""[ours] What there is to see in a phantom study: which findings, on which side, in which zone and how severe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.phantom.vocabulary import AT, CM, CO, EC, ED, FX, LL, LO, PE, PN, PO, PX, SD

SIDES: tuple[str, str] = ("right", "left")
DEVICE_KINDS: tuple[str, ...] = ("tube", "pacemaker", "wires", "line")
# Zone 0, 1, 2: upper, middle, lower. The findings that have one, and how often each zone is struck.
ZONE_WEIGHTS: dict[str, tuple[float, float, float]] = {
    LO: (0.3, 0.35, 0.35),
    LL: (0.35, 0.35, 0.3),
    CO: (0.25, 0.3, 0.45),
    AT: (0.0, 0.3, 0.7),
}
UNSIDED: tuple[str, ...] = (EC, CM, ED)
DRAWN_FINDINGS: tuple[str, ...] = (EC, CM, LO, LL, ED, CO, PN, AT, PX, PE, PO, FX, SD)


@dataclasses.dataclass(frozen=True)
class Detail:
    """Where a finding lies and how bad it is."""

    side: str = ""  # "right", "left", "both", or "" for a finding without a side
    zone: int = -1  # 0 upper, 1 middle, 2 lower, -1 for a finding without a zone
    severity: int = 2  # 1 mild or small, 2 moderate, 3 severe or large
    kinds: tuple[str, ...] = ()  # of support devices


Truth = dict[str, Detail]


def sample_truth(rng: numpy.random.Generator, prevalence: Mapping[str, float]) -> Truth:
    """Draw the findings of one study at a centre's prevalence; a failing heart tends to bring oedema and effusion
    along.

    Pneumonia is drawn as a patchy consolidation, so it only occurs together with consolidation: its prevalence is the
    share
    of consolidations that are infections.
    """
    chosen = {name: bool(rng.random() < prevalence[name]) for name in DRAWN_FINDINGS}
    if chosen[CM]:
        chosen[ED] = chosen[ED] or bool(rng.random() < 0.2)
        chosen[PE] = chosen[PE] or bool(rng.random() < 0.2)
    chosen[PN] = chosen[PN] and chosen[CO]
    return {name: _sample_detail(rng, name) for name in DRAWN_FINDINGS if chosen[name]}


def _sample_detail(rng: numpy.random.Generator, name: str) -> Detail:
    side = "" if name in UNSIDED else SIDES[int(rng.integers(2))]
    if name == PE and rng.random() < 0.3:
        side = "both"
    zone = int(rng.choice(3, p=ZONE_WEIGHTS[name])) if name in ZONE_WEIGHTS else -1
    severity = int(rng.choice((1, 2, 3), p=(0.3, 0.4, 0.3)))
    kinds: tuple[str, ...] = ()
    if name == SD:
        count = int(rng.choice((1, 2), p=(0.7, 0.3)))
        kinds = tuple(DEVICE_KINDS[i] for i in sorted(rng.choice(4, size=count, replace=False)))
    return Detail(side, zone, severity, kinds)


def drawn_flags(truth: Truth) -> list[bool]:
    """What the image shows, in the order of FINDINGS; "no finding" as in a report that says everything."""
    flags = [name in truth for name in FINDINGS[:-1]]
    return [*flags, not any(name != SD for name in truth)]
