"""BLEU-1..4, METEOR, ROUGE-L and CIDEr of radiology reports as an `evaluate` module."""

# `evaluate` looks for this import on a line of its own.
import datasets
import evaluate

from fedmrg_core.metrics.normalise import NORMALISER
from fedmrg_core.metrics.statistics import StudyStatistics, with_intervals
from fedmrg_core.metrics.text import per_study_scores

_DESCRIPTION = f"""Text measures of pycocoevalcap 1.2 after the normaliser {NORMALISER}; CIDEr takes its document
frequencies from the references given. NaN where a measure cannot be said."""
_CITATION = """\
@inproceedings{papineni2002bleu, title={{BLEU}: a Method for Automatic Evaluation of Machine Translation},
  author={Papineni, Kishore and Roukos, Salim and Ward, Todd and Zhu, Wei-Jing}, booktitle={ACL}, year={2002}}
@inproceedings{denkowski2014meteor, title={Meteor Universal: Language Specific Translation Evaluation for Any Target
  Language}, author={Denkowski, Michael and Lavie, Alon}, booktitle={WMT}, year={2014}}
@inproceedings{lin2004rouge, title={{ROUGE}: A Package for Automatic Evaluation of Summaries},
  author={Lin, Chin-Yew}, booktitle={Text Summarization Branches Out}, year={2004}}
@inproceedings{vedantam2015cider, title={{CIDEr}: Consensus-based Image Description Evaluation},
  author={Vedantam, Ramakrishna and Zitnick, C. Lawrence and Parikh, Devi}, booktitle={CVPR}, year={2015}}
"""
_INPUTS = """
Args:
    predictions: N generated reports; an empty one is allowed and earns nothing.
    references: N reference reports, one a study, each with words.
    meteor: False leaves METEOR out, whose Java takes seconds to start.
    resamples: of the bootstrap over studies; 0 gives values alone.
    seed: root seed of the bootstrap.
    per_study: True gives a `fedmrg_core.metrics.statistics.StudyStatistics` a measure instead of numbers.

Returns:
    By measure its value, and with resamples `<measure>_low` and `<measure>_high`. bleu_1 to bleu_4, rouge_l and meteor
    are fractions; cider lies between 0 and 10.
"""


class ReportText(evaluate.Metric):
    """The measures of `fedmrg_core.metrics.text.per_study_scores`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        meteor: bool = True,
        resamples: int = 0,
        seed: int = 0,
        per_study: bool = False,
    ) -> dict[str, float] | dict[str, StudyStatistics]:
        measures = per_study_scores(references, predictions, meteor)
        return measures if per_study else with_intervals(measures, resamples, seed)
