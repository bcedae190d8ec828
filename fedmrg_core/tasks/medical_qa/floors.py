"""Answers without a model: what any model has to be better than [ours]."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator, Sequence

import pandas
from sklearn.feature_extraction.text import TfidfVectorizer

from fedmrg_core.data.questions.question import Question
from fedmrg_core.tasks.medical_qa.answering import CHOSEN, COLUMNS, OPEN, RIGHT, fact_held, written_scores
from fedmrg_core.tasks.medical_qa.readings import possible_answers

CHANCE = "floor_chance"  # what drawing an option at random has on average
LETTER = "floor_letter"  # the letter, or verdict, that is right most often in the client's training questions
LONGEST = "floor_longest"  # the longest option, the first of several
NEAREST = (
    "floor_nearest"  # the answer of the client's training question that is most like the open one, cut as models are
)
FLOORS = (CHANCE, LETTER, LONGEST, NEAREST)


def floor_answers(
    questions: Sequence[Question], trained: Sequence[Question], cut: Callable[[str], str]
) -> Iterator[tuple[str, pandas.DataFrame]]:
    """Each floor that there is, with its answers to the questions it is for.

    Args:
        questions: the test questions of a client.
        trained: its training questions.
        cut: a text to the length that a model may write, so that nothing is gained by length.

    Returns:
        Floors, and the columns of `answering.COLUMNS` as a model's answers have them.
    """
    closed = [question for question in questions if possible_answers(question)]
    if closed:
        yield CHANCE, _table(_row(question, "", 1 / len(possible_answers(question))) for question in closed)
        usual = {kind: _most_frequent(trained, kind) for kind in {question.kind for question in closed}}
        yield LETTER, _table(_chosen(question, usual[question.kind]) for question in closed)
    if choices := [question for question in closed if question.options]:
        yield LONGEST, _table(_chosen(question, _longest(question)) for question in choices)
    opened, known = ([q for q in part if not possible_answers(q)] for part in (questions, trained))
    if opened and known:
        yield NEAREST, _table(_nearest(opened, known, cut))


def _most_frequent(trained: Sequence[Question], kind: str) -> str:
    """The first in the alphabet of several; "" if the client has no such training question."""
    counts = collections.Counter(question.answer for question in trained if question.kind == kind)
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")


def _longest(question: Question) -> str:
    return max(question.options, key=lambda letter: len(question.options[letter]))


def _nearest(
    opened: Sequence[Question], known: Sequence[Question], cut: Callable[[str], str]
) -> Iterator[dict[str, object]]:
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4)).fit([question.text for question in known])
    ours, theirs = (vectors.transform([question.text for question in part]) for part in (opened, known))
    places = (ours @ theirs.T).toarray().argmax(axis=1).tolist()
    texts = [cut(known[place].answer) for place in places]
    for question, scores in zip(opened, written_scores(opened, texts), strict=True):
        yield {**_row(question, "", math.nan), **scores}


def _chosen(question: Question, answer: str) -> dict[str, object]:
    return _row(question, answer, float(answer == question.answer))


def _row(question: Question, answer: str, right: float) -> dict[str, object]:
    named = {"study_id": question.question_id, "kind": question.kind, "fact_held": fact_held(question)}
    scores = {**dict.fromkeys(RIGHT, right), **dict.fromkeys(OPEN, math.nan)}
    return {**named, "answer": question.answer, **dict.fromkeys(CHOSEN, answer), "written": "", **scores}


def _table(rows: Iterator[dict[str, object]]) -> pandas.DataFrame:
    return pandas.DataFrame(list(rows), columns=list(COLUMNS))
