"""Who holds which question of a public set: small clients joined, large ones limited, questions dealt at random."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

from fedmrg_core.data.questions.question import LeftOutQuestion, LoadedQuestions, Question
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream


def joined_clients(loaded: LoadedQuestions, smallest: int, name: str) -> LoadedQuestions:
    """Clients with fewer than `smallest` questions as one, called `name`; left out if they are fewer together, too.

    A note says which they were, with their counts.

    Raises:
        InputError: no client is left.
    """
    counts = collections.Counter(question.client for question in loaded.questions)
    small = {client: count for client, count in sorted(counts.items()) if count < smallest}
    if not small:
        return loaded
    listed = ", ".join(f"{client} ({count})" for client, count in small.items())
    if sum(small.values()) >= smallest:
        questions = [
            dataclasses.replace(question, client=name) if question.client in small else question
            for question in loaded.questions
        ]
        note = f"Clients with fewer than {smallest} questions are joined as {name!r}: {listed}."
        return LoadedQuestions(questions, loaded.left_out, [*loaded.notes, note])
    reason = f"its client has fewer than {smallest} questions, also with other small ones."
    left_out = [
        LeftOutQuestion(question.question_id, f"client {question.client}", reason)
        for question in loaded.questions
        if question.client in small
    ]
    note = f"Clients with fewer than {smallest} questions, and together as well, are left out: {listed}."
    questions = [question for question in loaded.questions if question.client not in small]
    if not questions:
        raise InputError(f"no client has {smallest} questions: {listed}; make the smallest number smaller.")
    return LoadedQuestions(questions, [*loaded.left_out, *left_out], [*loaded.notes, note])


def limited_clients(loaded: LoadedQuestions, largest: int | None, seed: int) -> LoadedQuestions:
    """At most so many questions of each client, drawn at random; a note says of how many. None: all.

    Where parts are given, test questions all stay, and the others count.

    Raises:
        InputError: `largest` is below 1.
    """
    if largest is None:
        return loaded
    if largest < 1:
        raise InputError(f"largest is {largest}; expected at least 1 question of each client, or none to keep all.")
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, question in enumerate(loaded.questions):
        if question.split != "test":
            places[question.client].append(place)
    larger = {client: len(own) for client, own in sorted(places.items()) if len(own) > largest}
    if not larger:
        return loaded
    gone: set[int] = set()
    for client in larger:
        order = numpy_stream(seed, "questions", "largest client", client).permutation(larger[client]).tolist()
        gone.update(places[client][rank] for rank in order[largest:])
    listed = ", ".join(f"{client} ({count})" for client, count in larger.items())
    note = f"Of each of these clients {largest} questions were drawn at random: {listed}."
    questions = [question for place, question in enumerate(loaded.questions) if place not in gone]
    return LoadedQuestions(questions, loaded.left_out, [*loaded.notes, note])


def dealt_at_random(questions: Sequence[Question], clients: int, seed: int) -> list[Question]:
    """Questions dealt to so many clients, `part-1` and so on, at random and equally many to each.

    Raises:
        InputError: there are fewer questions than clients, or no client.
    """
    if not 1 <= clients <= len(questions):
        raise InputError(f"clients is {clients}; expected 1 to {len(questions)}, the number of questions.")
    order = numpy_stream(seed, "questions", "dealing").permutation(len(questions)).tolist()
    part = {place: f"part-{1 + rank % clients}" for rank, place in enumerate(order)}
    return [dataclasses.replace(question, client=part[place]) for place, question in enumerate(questions)]


def dealt_anew(questions: Sequence[Question], clients: int, seed: int) -> list[Question]:
    """Each split dealt to so many clients at random, whoever held its questions before; none changes its split.

    Raises:
        InputError: a split has fewer questions than there are clients; or the data say who holds which fact, which
            would no longer be so.
    """
    if any(question.held_by for question in questions):
        raise InputError(
            "these hospitals know different facts, and questions are scored by who holds the answer; "
            "leave partition and clients out."
        )
    client: dict[str, str] = {}
    for split in dict.fromkeys(question.split for question in questions):
        part = [question for question in questions if question.split == split]
        client |= {question.question_id: question.client for question in dealt_at_random(part, clients, seed)}
    return [dataclasses.replace(question, client=client[question.question_id]) for question in questions]
