"""Clinical precision, recall and F1 of 14 findings in four states as an `evaluate` module."""

# `evaluate` looks for this import on a line of its own.
import datasets
import evaluate

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.metrics.clinical import per_study_clinical, without_positives
from fedmrg_core.metrics.statistics import with_intervals

_DESCRIPTION = """Example-, micro- and macro-averaged precision, recall and F1 over 14 and over 5 findings, with
uncertain counted as positive and as negative. NaN where no reference is positive."""


class ReportClinical(evaluate.Metric):
    """The measures of `fedmrg_core.metrics.clinical.per_study_clinical`."""

    def _info(self) -> evaluate.MetricInfo:
        states = datasets.Sequence(datasets.Value("int32"), length=len(FINDINGS))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description="predictions and references: 14 states a study, in the order of FINDINGS; "
            "resamples: of the bootstrap over studies, 0 for values alone; seed",
            features=datasets.Features({"predictions": states, "references": states}),
        )

    def _compute(
        self, predictions: list[list[int]], references: list[list[int]], resamples: int = 0, seed: int = 0
    ) -> dict[str, float]:
        measures = per_study_clinical(references, predictions)
        return with_intervals(measures, resamples, seed, blank=without_positives(references))
