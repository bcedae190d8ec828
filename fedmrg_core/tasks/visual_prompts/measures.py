"""What the runs of visual prompts are compared by."""

from __future__ import annotations

import pathlib

import pandas

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.classification import area_statistics, recall_statistics
from fedmrg_core.metrics.segmentation import DICE, HAUSDORFF
from fedmrg_core.metrics.statistics import StudyStatistics, mean_statistics
from fedmrg_core.runs.measures import Measure, Measures
from fedmrg_core.tasks.visual_prompts.answering import COLUMNS, numbers_of

TEXTS = ("kind", "truth", "chosen", "probability")
AREA, BALANCED, ACCURACY = "auc", "balanced_accuracy", "accuracy"


class PictureMeasures(Measures):
    """Of pictures with classes the first three, of pictures with masks the others."""

    against = "generator"
    blank = {
        **dict.fromkeys((AREA, BALANCED, ACCURACY), "the pictures have masks, or no class has both outcomes."),
        **dict.fromkeys((DICE, HAUSDORFF), "the pictures have classes."),
    }
    notes = (
        "Area and balanced accuracy are means over classes; where several can be right, each is told by itself.",
        "At home the area ranks the pictures of all centres together; where each has a model of its own, look at worst "
        "centre and harmonic mean.",
        "Empty masks: Dice is 1 where both are empty; the distance is then 0, and the diagonal where one is.",
    )

    def __init__(self) -> None:
        super().__init__(
            Measure(AREA, "Area under the ROC curve"),
            Measure(BALANCED, "Balanced accuracy"),
            Measure(ACCURACY, "Accuracy"),
            Measure(DICE, "Dice"),
            Measure(HAUSDORFF, "Hausdorff 95, pixels", higher_is_better=False),
        )
        self.tested = (AREA, DICE)

    def statistics(self, scores: pandas.DataFrame) -> dict[str, StudyStatistics]:
        """What applies to the kind of the pictures."""
        if scores["kind"].iloc[0] == "masks":
            return {key: mean_statistics(scores[key].to_numpy(dtype=float)) for key in (DICE, HAUSDORFF)}
        truth, chosen, said = (numbers_of(scores[name]) for name in ("truth", "chosen", "probability"))
        return {
            AREA: area_statistics(truth, said),
            BALANCED: recall_statistics(truth, chosen, several=scores["kind"].iloc[0] == "several"),
            ACCURACY: mean_statistics(scores[ACCURACY].to_numpy(dtype=float)),
        }

    def _columns(self, *names: str) -> list[str]:
        return [*names, "role", "adapter", *COLUMNS[1:]]

    def _checked(self, rows: pandas.DataFrame, source: pathlib.Path) -> pandas.DataFrame:
        if not len(rows) or any(key not in rows for key in COLUMNS[1:]) or rows["kind"].nunique() != 1:
            raise InputError(f"{source}: a column is missing, or there is no row of one kind; evaluate the run again.")
        return rows


DECLARED = PictureMeasures()
