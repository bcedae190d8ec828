"""Train, validation and test parts in which no question of one part is equal, or near to it, to one of another."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy

from fedmrg_core.data.questions.duplicates import THRESHOLD, near_equal_groups
from fedmrg_core.data.questions.question import LeftOutQuestion, Question, check_splits
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
SMALLEST_CLIENT = 10  # questions; fewer do not make three parts


@dataclasses.dataclass(frozen=True)
class SplitRow:
    """What became of a client's questions in one part.

    Attributes:
        client: whose.
        split: the part.
        kept: questions that are in the part in which they were given or drawn.
        moved: questions that came from another part, to be with those that are near-equal.
        left_out: questions of this part that are used no more.
    """

    client: str
    split: str
    kept: int
    moved: int
    left_out: int


@dataclasses.dataclass
class Split:
    """Questions with their parts, what was left out, and a table of it for each client and part."""

    questions: list[Question]
    left_out: list[LeftOutQuestion]
    table: list[SplitRow]


def split_questions(questions: Sequence[Question], seed: int, source: str, threshold: float = THRESHOLD) -> Split:
    """Parts for questions that have none; given parts are kept, but cleaned.

    Without parts, every client's questions are drawn into three by `SHARES`. A group of near-equal ones, in whatever
    clients, then goes where most of it was drawn, in a tie to training first.

    Given parts stay: a published test set is what others are compared by, so no test question is touched. A training
    or validation question that is near-equal to one of the test part is left out, and so is a training question that
    is near-equal to one of the validation part.

    Args:
        questions: of all clients; all have a split, or none has.
        seed: the root seed.
        source: what error sentences call the data set.
        threshold: see `near_equal_groups`.

    Raises:
        InputError: a client has too few questions, or one of its parts would be empty.
    """
    check_splits(questions, source)
    groups = near_equal_groups(questions, threshold)
    given = bool(questions and questions[0].split)
    split = _cleaned(questions, groups, source) if given else _drawn(questions, groups, seed, source)
    _check_parts(split.questions, {question.client for question in questions}, given, source)
    return split


def _drawn(questions: Sequence[Question], groups: numpy.ndarray, seed: int, source: str) -> Split:
    drawn = _draw(questions, seed, source)
    members: dict[int, list[str]] = collections.defaultdict(list)
    for group, part in zip(groups.tolist(), drawn, strict=True):
        members[group].append(part)
    goes = {group: max(SPLITS, key=parts.count) for group, parts in members.items()}
    final = [goes[group] for group in groups.tolist()]
    done = [dataclasses.replace(question, split=part) for question, part in zip(questions, final, strict=True)]
    moved = [before != after for before, after in zip(drawn, final, strict=True)]
    return Split(done, [], _table(done, moved, []))


def _draw(questions: Sequence[Question], seed: int, source: str) -> list[str]:
    """A part for each question, client by client, by shares."""
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, question in enumerate(questions):
        places[question.client].append(place)
    drawn = [""] * len(questions)
    for client, own in sorted(places.items()):
        if len(own) < SMALLEST_CLIENT:
            raise InputError(
                f"{source}: client {client!r} has {len(own)} questions, too few for three parts; "
                f"join it with another, or give it at least {SMALLEST_CLIENT}."
            )
        order = numpy_stream(seed, "questions", "split", client).permutation(len(own))
        ends = [round(len(own) * share) for share in numpy.cumsum(list(SHARES.values())).tolist()]
        for rank, place in enumerate(order.tolist()):
            drawn[own[place]] = next(part for part, end in zip(SHARES, ends, strict=True) if rank < end)
    return drawn


def _cleaned(questions: Sequence[Question], groups: numpy.ndarray, source: str) -> Split:
    first: dict[tuple[int, str], str] = {}  # by group and part
    for group, question in zip(groups.tolist(), questions, strict=True):
        first.setdefault((group, question.split), question.question_id)
    kept, left_out, gone = [], [], []
    for row, (group, question) in enumerate(zip(groups.tolist(), questions, strict=True), start=1):
        # A later part goes before an earlier one.
        part = next((p for p in SPLITS[:0:-1] if _before(question.split, p) and (group, p) in first), None)
        if part is None:
            kept.append(question)
            continue
        reason = f"near-equal to {first[group, part]!r} of the {part} part; each stands in one part only."
        left_out.append(LeftOutQuestion(question.question_id, f"{source}: row {row}", reason))
        gone.append(question)
    return Split(kept, left_out, _table(kept, [False] * len(kept), gone))


def _before(part: str, other: str) -> bool:
    return SPLITS.index(part) < SPLITS.index(other)


def _table(questions: Sequence[Question], moved: Sequence[bool], gone: Sequence[Question]) -> list[SplitRow]:
    counts: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for question, away in zip(questions, moved, strict=True):
        counts[question.client, question.split][1 if away else 0] += 1
    for question in gone:
        counts[question.client, question.split][2] += 1
    order = sorted(counts, key=lambda key: (key[0], SPLITS.index(key[1])))
    return [SplitRow(*key, *counts[key]) for key in order]


def _check_parts(questions: Sequence[Question], clients: set[str], given: bool, source: str) -> None:
    """Every client has questions in every part."""
    there = {(question.client, question.split) for question in questions}
    for client in sorted(clients):
        for part in SPLITS:
            if (client, part) not in there:
                how = "after near-equal ones were left out" if given else "as near-equal ones are kept together"
                raise InputError(
                    f"{source}: client {client!r} has no {part} question {how}; "
                    "give it more, or join it with another client."
                )
