"""Train, validation and test parts in which no question of one part is equal, or near to it, to one of another."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from fedmrg_core.data.questions.duplicates import THRESHOLD, near_equal_groups
from fedmrg_core.data.questions.question import (
    LeftOutQuestion,
    LoadedQuestions,
    MovedQuestion,
    PartRow,
    Question,
    check_splits,
)
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
OF_TRAINING = {"train": 0.875, "validation": 0.125}  # where only train and test are given
SMALLEST_CLIENT = 10  # questions; fewer do not make three parts


def split_questions(
    questions: Sequence[Question], seed: int, source: str, threshold: float = THRESHOLD
) -> LoadedQuestions:
    """Parts for questions that have none; given parts are kept, but cleaned.

    Without parts, every client's questions are drawn into three by `SHARES`. A group of near-equal ones, in whatever
    clients, then goes where its first question was drawn, so that parts keep their shares on average.

    Given parts stay: a published test set is what others are compared by, so no test question is touched. A training
    or validation question that is near-equal to one of the test part is left out, and so is a training question that
    is near-equal to one of the validation part. Where no validation part is given, one is drawn from training.

    Args:
        questions: of all clients; all have a split, or none has.
        seed: the root seed.
        source: what error sentences call the data set.
        threshold: see `near_equal_groups`.

    Returns:
        Questions with their parts, what was left out and moved, a row for each client and part, and a note with the
        sums.

    Raises:
        InputError: a client has too few questions, or one of its parts would be empty.
    """
    check_splits(questions, source)
    groups = near_equal_groups(questions, threshold).tolist()
    clients = {question.client for question in questions}
    if not any(question.split for question in questions):
        _check_sizes(questions, source)
        done, drawn = _drawn(questions, groups, seed, SHARES)
        left_out, gone = [], []
    else:
        places, left_out = _cleaned(questions, groups, source)
        done = [questions[place] for place in places]
        drawn = [question.split for question in done]
        staying = set(places)
        gone = [question for place, question in enumerate(questions) if place not in staying]
        if all(question.split != "validation" for question in questions):
            done, drawn = _with_validation(done, [groups[place] for place in places], seed)
    _check_parts(done, clients, source)
    moved = [
        MovedQuestion(question.question_id, question.client, part, question.split)
        for question, part in zip(done, drawn, strict=True)
        if question.split != part
    ]
    note = (
        f"{source}: {len(questions)} questions, {len(questions) - len(set(groups))} of them near-equal to an earlier "
        f"one; {len(moved)} were moved to be with those, {len(gone)} left out."
    )
    return LoadedQuestions(done, left_out, [note], _table(done, drawn, gone), moved)


def _check_sizes(questions: Sequence[Question], source: str) -> None:
    for client, count in sorted(collections.Counter(question.client for question in questions).items()):
        if count < SMALLEST_CLIENT:
            raise InputError(
                f"{source}: client {client!r} has {count} questions, too few for three parts; "
                f"join it with another, or give it at least {SMALLEST_CLIENT}."
            )


def _drawn(
    questions: Sequence[Question], groups: Sequence[int], seed: int, shares: Mapping[str, float]
) -> tuple[list[Question], list[str]]:
    """Questions with a part, and the part that was drawn for each alone."""
    drawn = _draw(questions, seed, shares)
    first: dict[int, str] = {}
    final = [first.setdefault(group, part) for group, part in zip(groups, drawn, strict=True)]
    done = [dataclasses.replace(question, split=part) for question, part in zip(questions, final, strict=True)]
    return done, drawn


def _draw(questions: Sequence[Question], seed: int, shares: Mapping[str, float]) -> list[str]:
    """A part for each question, client by client, by shares."""
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, question in enumerate(questions):
        places[question.client].append(place)
    drawn = [""] * len(questions)
    for client, own in sorted(places.items()):
        order = numpy_stream(seed, "questions", "split", client).permutation(len(own)).tolist()
        parts: list[str] = []
        end = 0.0
        for part, share in shares.items():
            end += share
            parts += [part] * (round(end * len(own)) - len(parts))
        for rank, place in enumerate(order):
            drawn[own[place]] = parts[rank]
    return drawn


def _with_validation(
    questions: Sequence[Question], groups: Sequence[int], seed: int
) -> tuple[list[Question], list[str]]:
    """A validation part drawn from training; the test part stays. As `_drawn`."""
    places = [place for place, question in enumerate(questions) if question.split == "train"]
    parted, parts = _drawn([questions[i] for i in places], [groups[i] for i in places], seed, OF_TRAINING)
    done, drawn = list(questions), [question.split for question in questions]
    for place, question, part in zip(places, parted, parts, strict=True):
        done[place], drawn[place] = question, part
    return done, drawn


def _cleaned(
    questions: Sequence[Question], groups: Sequence[int], source: str
) -> tuple[list[int], list[LeftOutQuestion]]:
    """Places of questions that stay: those without a near-equal one in a later part."""
    first: dict[tuple[int, str], str] = {}  # by group and part
    for group, question in zip(groups, questions, strict=True):
        first.setdefault((group, question.split), question.question_id)
    kept, left_out = [], []
    for place, (group, question) in enumerate(zip(groups, questions, strict=True)):
        later = SPLITS[SPLITS.index(question.split) + 1 :]
        part = next((part for part in reversed(later) if (group, part) in first), None)
        if part is None:
            kept.append(place)
            continue
        reason = f"it is near-equal to {first[group, part]!r} of the {part} part; each stands in one part only."
        left_out.append(LeftOutQuestion(question.question_id, f"{source}: {question.split} part", reason))
    return kept, left_out


def _table(questions: Sequence[Question], drawn: Sequence[str], gone: Sequence[Question]) -> list[PartRow]:
    counts: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0, 0])
    for question, part in zip(questions, drawn, strict=True):
        counts[question.client, question.split][1 if question.split != part else 0] += 1
    for question in gone:
        counts[question.client, question.split][2] += 1
    order = sorted(counts, key=lambda key: (key[0], SPLITS.index(key[1])))
    return [PartRow(*key, *counts[key]) for key in order]


def _check_parts(questions: Sequence[Question], clients: set[str], source: str) -> None:
    """Every client has questions in every part."""
    there = {(question.client, question.split) for question in questions}
    for client in sorted(clients):
        for part in SPLITS:
            if (client, part) not in there:
                raise InputError(
                    f"{source}: client {client!r} has no {part} question, as near-equal ones do not "
                    "stand in two parts; give it more, or join it with another client (option smallest of public sets)."
                )
