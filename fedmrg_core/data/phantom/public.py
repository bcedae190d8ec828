"""[ours] The style of the public corpus: neutral wording and acquisition, drawn anew for every study around the common
style.
"""

from __future__ import annotations

import dataclasses

import numpy

from fedmrg_core.data.phantom.centres import (
    COMMON_IMAGE,
    COMMON_PREVALENCE,
    COMMON_REPORT,
    PUBLIC_SITE,
    Centre,
    ImageStyle,
    ReportStyle,
)


def jittered_centre(rng: numpy.random.Generator) -> Centre:
    """A centre that exists for one study only."""
    return Centre(PUBLIC_SITE, _jittered_image(rng), _jittered_report(rng), COMMON_PREVALENCE)


def _jittered_image(rng: numpy.random.Generator) -> ImageStyle:
    uniform = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    return dataclasses.replace(
        COMMON_IMAGE,
        contrast=uniform(0.85, 1.3),
        brightness=uniform(-0.25, 0.25),
        gamma=uniform(0.85, 1.2),
        photons=float(numpy.exp(uniform(8.6, 10.8))),
        blur=uniform(0.1, 0.3),
        edge=uniform(0.0, 0.6),
        equalise=uniform(0.0, 0.3),
        share_ap=0.3,
        zoom=uniform(0.95, 1.08),
        tilt=2.0,
        collimation=uniform(0.0, 1.5),
    )


def _jittered_report(rng: numpy.random.Generator) -> ReportStyle:
    scale = float(rng.uniform(0.6, 1.2))
    return dataclasses.replace(
        COMMON_REPORT,
        order=tuple(rng.permutation(COMMON_REPORT.order).tolist()),
        denial={name: min(scale * rate, 1.0) for name, rate in COMMON_REPORT.denial.items()},
        hedging=float(rng.uniform(0.05, 0.3)),
        false_hedge=0.02,
        joined_denials=float(rng.uniform(0, 1)),
        ready_made=float(rng.uniform(0, 1)),
        denials_first=bool(rng.random() < 0.3),
    )
