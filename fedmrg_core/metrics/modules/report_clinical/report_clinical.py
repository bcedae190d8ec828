"""Clinical precision, recall and F1 of 14 findings in four states as an `evaluate` module."""

# `evaluate` looks for this import on a line of its own.
import datasets
import evaluate

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.metrics.clinical import per_study_clinical
from fedmrg_core.metrics.statistics import StudyStatistics, with_intervals

_DESCRIPTION = """Example-, micro- and macro-averaged precision, recall and F1 over 14 and over 5 findings, with
uncertain counted as positive and as negative. NaN where no reference is positive."""
_CITATION = """\
@inproceedings{irvin2019chexpert, title={{CheXpert}: A Large Chest Radiograph Dataset with Uncertainty Labels and
  Expert Comparison}, author={Irvin, Jeremy and Rajpurkar, Pranav and Ko, Michael and others}, booktitle={AAAI},
  year={2019}}
"""
_INPUTS = f"""
Args:
    predictions: N rows of {len(FINDINGS)} states of generated reports: 0 blank, 1 positive, 2 negative, 3 uncertain, in
        the order of `fedmrg_core.data.findings.FINDINGS`; `fedmrg_core.data.labeller.label_report` reads them.
    references: N rows of the reference reports' states.
    resamples: of the bootstrap over studies; 0 gives values alone.
    seed: root seed of the bootstrap.
    per_study: True gives a `fedmrg_core.metrics.statistics.StudyStatistics` a measure instead of numbers.

Returns:
    By measure its value as a fraction, and with resamples `<measure>_low` and `<measure>_high`. A name has all its
    choices: clinical_f1_example_14_uncertain_negative.
"""


class ReportClinical(evaluate.Metric):
    """The measures of `fedmrg_core.metrics.clinical.per_study_clinical`."""

    def _info(self) -> evaluate.MetricInfo:
        states = datasets.Sequence(datasets.Value("int32"), length=len(FINDINGS))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": states, "references": states}),
        )

    def _compute(
        self,
        predictions: list[list[int]],
        references: list[list[int]],
        resamples: int = 0,
        seed: int = 0,
        per_study: bool = False,
    ) -> dict[str, float] | dict[str, StudyStatistics]:
        measures = per_study_clinical(references, predictions)
        return measures if per_study else with_intervals(measures, resamples, seed)
