"""What the runs of medical question answering are compared by."""

from __future__ import annotations

import pathlib

import numpy
import pandas

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.statistics import StudyStatistics
from fedmrg_core.runs.measures import Measure, Measures
from fedmrg_core.tasks.medical_qa.answering import ELSEWHERE, HERE, OPEN, PROBABILITY
from fedmrg_core.tasks.medical_qa.floors import FLOORS

BASE_FLOOR = "floor_base"  # the untouched base model
MAIN = "accuracy_per_character"
MATRIX, MATRIX_BY_ROUND = "matrix.csv", "matrix_by_round.csv"  # every adapter on every client's test questions
NAMES = {
    "accuracy_sum": "Accuracy, likelihood of the whole answer",
    "accuracy_per_token": "Accuracy, likelihood per token",
    MAIN: "Accuracy, likelihood per character",
    f"{MAIN}_{HERE}": "Accuracy, answer held here",
    f"{MAIN}_{ELSEWHERE}": "Accuracy, answer held elsewhere",
    "token_f1": "Token F1, open answers",
    "rouge_l": "ROUGE-L, open answers",
    PROBABILITY: "Probability of a right open answer, per token",
}


class QuestionMeasures(Measures):
    """Means over the questions that a measure applies to; a question it does not apply to is blank."""

    # The shared adapter answers: on the world's validation questions it is right far more often than the specialised
    # one, which cannot know what only others hold [ours].
    answers = {"home": ("generic",), "unseen": ("generic",)}
    floors = fixed_floors = (BASE_FLOOR, *FLOORS)
    against = "fed-lora"
    tables = (MATRIX, MATRIX_BY_ROUND)
    blank = {
        **{name: "no question of that kind is in the set." for name in OPEN},
        **{f"accuracy_{end}": "no question with options is in the set." for end in ("sum", "per")},
    }
    notes = (
        "Answers are chosen by their log-likelihood; how it is normalised is in a measure's name.",
        "What the source of this task expects over single-client LoRA: worst client +2.3 to +4.1 points, harmonic mean "
        "+1.8 to +3.2 points [secondary]. Its models and questions are others, so values do not compare with ours.",
    )
    floor_notes = (
        "Floors: base, the model as it came, before any training here; chance, an option drawn at random; letter, the "
        "answer that is right most often in a client's training questions; longest, the longest option; nearest, to an "
        "open question the answer of the client's most similar training question.",
    )

    def __init__(self) -> None:
        super().__init__(*(Measure(key, name) for key, name in NAMES.items()))
        self.shown = (MAIN, f"{MAIN}_{HERE}", f"{MAIN}_{ELSEWHERE}", "rouge_l", PROBABILITY)
        self.tested = (MAIN, PROBABILITY)

    def statistics(self, scores: pandas.DataFrame) -> dict[str, StudyStatistics]:
        """Each measure as a ratio of sums: over the questions that have it."""
        found = {}
        for key in self.compared:
            values = scores[key].to_numpy(dtype=float)
            known = ~numpy.isnan(values)
            if known.any():
                found[key] = _mean_of_known(values, known)
        return found

    def _checked(self, rows: pandas.DataFrame, source: pathlib.Path) -> pandas.DataFrame:
        if not len(rows) or any(key not in rows for key in self.compared):
            raise InputError(f"{source}: a measure is missing or there is no row; evaluate the run again.")
        return rows


def _mean_of_known(values: numpy.ndarray, known: numpy.ndarray) -> StudyStatistics:
    """The mean of the known values; a resample that has none of them says nothing, and so counts as all of them."""
    mean = float(values[known].mean())

    def value(sums: numpy.ndarray) -> numpy.ndarray:
        return numpy.divide(sums[..., 0], sums[..., 1], out=numpy.full(sums.shape[:-1], mean), where=sums[..., 1] > 0)

    return StudyStatistics(numpy.column_stack([numpy.where(known, values, 0.0), known.astype(float)]), value)


def with_places(answers: pandas.DataFrame) -> pandas.DataFrame:
    """Answers with the main accuracy apart for facts held here and elsewhere."""
    parts = {f"{MAIN}_{place}": answers[MAIN].where(answers["fact_held"] == place) for place in (HERE, ELSEWHERE)}
    return answers.assign(**parts)


DECLARED = QuestionMeasures()
