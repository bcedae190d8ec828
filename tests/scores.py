"""Scores of one set of studies as plain numbers: what tests compare intervals, tables and modules with."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from fedmrg_core.metrics.clinical import per_study_clinical
from fedmrg_core.metrics.text import per_study_scores

TEXT_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")


def score_texts(references: Sequence[str], generated: Sequence[str], meteor: bool = True) -> dict[str, float]:
    """Every text measure."""
    return {key: measure.estimate() for key, measure in per_study_scores(references, generated, meteor).items()}


def score_states(reference: ArrayLike, generated: ArrayLike) -> dict[str, float]:
    """All 36 clinical variants; NaN where no reference is positive."""
    return {key: measure.estimate() for key, measure in per_study_clinical(reference, generated).items()}
