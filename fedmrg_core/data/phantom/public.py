"""[ours] The style of the public corpus: wording and acquisition drawn anew for every study, around no centre's.

A large LLM knows every radiologist's words before it meets one hospital. So that the small one does too, public
reports mix the vocabulary of the common dialect and of all centres at random, term by term and frame by frame. The
unseen centre's words are among them: an LLM that had never met them gave them less than chance, and tore when it was
adapted to that centre. What makes a centre's style (its consistent choice of words, order, hedging, what it leaves
unsaid) is not in it, nor is any centre's study or acquisition.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy

from fedmrg_core.data.phantom.centres import (
    CENTRES,
    COMMON_IMAGE,
    COMMON_PREVALENCE,
    COMMON_REPORT,
    PUBLIC_SITE,
    Centre,
    ImageStyle,
    ReportStyle,
    centre,
)
from fedmrg_core.data.phantom.vocabulary import COMMON, Dialect


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


def _mixed_dialect(rng: numpy.random.Generator) -> Dialect:
    """Each term and each set of frames from a dialect of its own; the headings of one dialect."""
    pool = [COMMON, *(centre(name).report.dialect for name in CENTRES)]
    parts = {}
    for field in dataclasses.fields(Dialect):
        values = [getattr(dialect, field.name) for dialect in pool]
        if isinstance(values[0], dict) and field.name != "headings":
            parts[field.name] = {key: _one([value[key] for value in values if key in value], rng)
                                 for key in sorted(set().union(*values))}  # fmt: skip
        else:
            parts[field.name] = _one(values, rng)
    return Dialect(**parts)


def _one(options: list, rng: numpy.random.Generator) -> Any:
    return options[int(rng.integers(len(options)))]


def _jittered_report(rng: numpy.random.Generator) -> ReportStyle:
    scale = float(rng.uniform(0.6, 1.2))
    return dataclasses.replace(
        COMMON_REPORT,
        dialect=_mixed_dialect(rng),
        order=tuple(rng.permutation(COMMON_REPORT.order).tolist()),
        denial={name: min(scale * rate, 1.0) for name, rate in COMMON_REPORT.denial.items()},
        hedging=float(rng.uniform(0.05, 0.3)),
        false_hedge=0.02,
        joined_denials=float(rng.uniform(0, 1)),
        ready_made=float(rng.uniform(0, 1)),
        denials_first=bool(rng.random() < 0.3),
    )
