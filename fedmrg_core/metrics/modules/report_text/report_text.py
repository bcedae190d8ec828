"""BLEU-1..4, METEOR, ROUGE-L and CIDEr of radiology reports as an `evaluate` module."""

# `evaluate` looks for this import on a line of its own.
import datasets
import evaluate

from fedmrg_core.metrics.normalise import NORMALISER
from fedmrg_core.metrics.statistics import with_intervals
from fedmrg_core.metrics.text import per_study_scores

_DESCRIPTION = f"""Text measures of pycocoevalcap 1.2 after the normaliser {NORMALISER}; CIDEr takes its document
frequencies from the references given. NaN where a measure cannot be said."""


class ReportText(evaluate.Metric):
    """The measures of `fedmrg_core.metrics.text.per_study_scores`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions: generated reports; references: one reference report each; meteor: bool; "
            "resamples: of the bootstrap over studies, 0 for values alone; seed",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        meteor: bool = True,
        resamples: int = 0,
        seed: int = 0,
    ) -> dict[str, float]:
        return with_intervals(per_study_scores(references, predictions, meteor), resamples, seed)
