"""What evaluation needs of report generation: its measures, answers and floors, and what is stored of each study."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Collection

import pandas

from fedmrg_core.metrics.clinical import (
    AVERAGES,
    FINDING_SETS,
    UNCERTAIN_POLICIES,
    per_study_clinical,
    without_positives,
)
from fedmrg_core.metrics.diversity import Diversity
from fedmrg_core.metrics.statistics import StudyStatistics
from fedmrg_core.metrics.text import cider_statistics, set_free_scores
from fedmrg_core.runs.measures import Answers, Measure, Measures, Place
from fedmrg_core.runs.metric_table import scopes_of
from fedmrg_core.tasks.reports import study_scores
from fedmrg_core.tasks.reports.answers import ANSWERS, counting_answer
from fedmrg_core.tasks.reports.floors import FLOORS
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.tasks.reports.predictions import BLANK, read_predictions, state_array

# The publication's clinical efficacy: example-averaged over 14 findings, positives only [secondary].
CLINICAL_F1 = "clinical_f1_example_14_uncertain_negative"
MEASURES: dict[str, str] = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    CLINICAL_F1: "Clinical F1",
    CLINICAL_F1.replace("f1", "recall"): "Clinical recall",
    CLINICAL_F1.replace("f1", "precision"): "Clinical precision",
    CLINICAL_F1.replace("example", "micro"): "Clinical F1, micro",
    CLINICAL_F1.replace("example", "macro"): "Clinical F1, macro",
}
REFERENCE = "fedmrg"


class ReportMeasures(Measures):
    """The reports' declaration: answers are texts, and scores of data of level scores keep none of them."""

    further = (
        *(
            f"clinical_{kind}_{average}_{size}_uncertain_{policy}"
            for kind in ("precision", "recall", "f1")
            for average in AVERAGES
            for size in FINDING_SETS
            for policy in UNCERTAIN_POLICIES
        ),
        *(field.name for field in dataclasses.fields(Diversity)),
    )
    blank = BLANK
    answers = ANSWERS
    floors = FLOORS
    fixed_floors = ("floor_constant", "floor_random")
    against = REFERENCE
    notes = ("Clinical F1: averaged over examples, 14 findings, uncertain counted as negative; micro over findings.",)
    floor_notes = (
        "Floors give training reports again: a constant and a random one need no model, the nearest image is found "
        "by the trained encoder of {against}'s runs (where there are none, of the first method's). A method that "
        "does not beat them writes nothing that copying would not have brought.",
    )
    tables = ("head_auroc.csv", "adaptation.csv")

    def __init__(self) -> None:
        super().__init__(*(Measure(key, name) for key, name in MEASURES.items()))
        micro = CLINICAL_F1.replace("example", "micro")
        self.shown = ("bleu_1", "bleu_4", "meteor", "rouge_l", "cider", CLINICAL_F1, micro)
        self.tested = ("bleu_4", CLINICAL_F1)

    def counting_answer(self, role: str, there: Collection[str], method: ReportMethod) -> str | None:
        """See :func:`fedmrg_core.tasks.reports.answers.counting_answer`."""
        return counting_answer(role, there, method)

    def read_answers(self, path: pathlib.Path) -> pandas.DataFrame:
        """The model's own rows of predictions.csv, see `predictions.COLUMNS`."""
        rows = read_predictions(path)
        return rows[rows["system"] == "model"]

    def study_scores(self, answers: pandas.DataFrame) -> pandas.DataFrame:
        """See :func:`fedmrg_core.tasks.reports.study_scores.study_scores`."""
        return study_scores.study_scores(answers)

    def read_scores(self, path: pathlib.Path) -> pandas.DataFrame:
        """See :func:`fedmrg_core.tasks.reports.study_scores.read_study_scores`."""
        return study_scores.read_study_scores(path)

    def statistics(self, scores: pandas.DataFrame) -> dict[str, StudyStatistics]:
        """See :func:`fedmrg_core.tasks.reports.study_scores.statistics_of`."""
        return study_scores.statistics_of(scores)

    def answers_by_place(self, answers: pandas.DataFrame) -> dict[Place, Answers]:
        """Every measure but METEOR, whose Java takes seconds a run."""
        rows = answers.sort_values(["adapter", "study_id"]).reset_index(drop=True)
        measures = set_free_scores(rows["reference"].tolist(), rows["generated"].tolist(), meteor=False)
        measures |= per_study_clinical(state_array(rows["states_reference"]), state_array(rows["states_generated"]))
        found = {}
        for adapter, group in rows.groupby("adapter", sort=True):
            for scope, studies in scopes_of(group):
                here = {key: measure.subset(studies.index.to_numpy()) for key, measure in measures.items()}
                here["cider"] = cider_statistics(studies["reference"].tolist(), studies["generated"].tolist())
                blank = without_positives(state_array(studies["states_reference"]))
                said = {key: each for key, each in here.items() if key not in blank and not math.isnan(each.estimate())}
                found[scope, str(adapter)] = Answers(tuple(studies["study_id"]), said)
        return found


DECLARED = ReportMeasures()
