"""Texts to pretrain a small language model on: the world's words and layouts, and facts drawn anew for every text.

What a text states holds within it alone. The generator gets the world's names and none of its facts: a pair of names
that belongs together in the world comes together here as often as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from fedmrg_core.data.questions.layout import answer_text, prompt_text
from fedmrg_core.data.questions.names import NameMaker, Names
from fedmrg_core.data.questions.question import LETTERS, VERDICTS, Question
from fedmrg_core.data.questions.wording import REGISTERS, RELATIONS, Relation
from fedmrg_core.data.questions.world import DOSES, OPTIONS, WorldSettings, check_settings, draw_names
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

FRESH = 0.5  # share of names that are none of the world's
THEME = 0.6  # share of a text's facts that are of one relation: options and context name the same things then
STATED = (1, 4)  # facts that a text's context states
# Kinds of texts: notes alone, a question whose context answers it, a question alone.
KINDS, SHARES = ("notes", "answered", "bare"), (0.15, 0.65, 0.2)
OPEN_SHARE = 0.25  # of questions that could have options


def pretraining_corpus(count: int, seed: int, settings: WorldSettings | None = None) -> list[str]:
    """Synthetic texts without a fact of the world; the first ones are the same for every `count`.

    Args:
        count: of texts, at least one.
        seed: the root seed, the world's own.
        settings: the world's; its names come from them.

    Raises:
        InputError: `count` is too small, or the settings do not go together.
    """
    if count < 1:
        raise InputError(f"count is {count}; expected at least 1 text.")
    settings = settings or WorldSettings()
    check_settings(settings)
    names, maker = draw_names(settings, seed)
    writer = _Writer(names, maker, numpy_stream(seed, "questions", "pretraining"))
    return [writer.text() for _ in range(count)]


class _Writer:
    """Writes one text after the other."""

    def __init__(self, names: Names, maker: NameMaker, rng: numpy.random.Generator) -> None:
        self._maker, self._rng = maker, rng
        self._known = {
            "condition": names.conditions,
            "drug": names.drugs,
            "leading sign": names.leading_signs,
            "late sign": names.late_signs,
            "dose": DOSES,
            "verdict": VERDICTS,
        }

    def text(self) -> str:
        """The next text."""
        kind = KINDS[int(self._rng.choice(len(KINDS), p=SHARES))]
        theme = self._one(RELATIONS)
        facts = [self._fact(theme) for _ in range(int(self._rng.integers(STATED[0], STATED[1] + 1)))]
        notes = " ".join(self._statement(*fact) for fact in facts)
        if kind == "notes":
            return notes
        relation, subject, other, answer = facts[int(self._rng.integers(len(facts)))]
        named = [fact[3] for fact in facts if fact[0].answer == relation.answer and fact[3] != answer]
        question = self._question(relation, subject, other, answer, notes if kind == "answered" else "", named)
        return prompt_text(question) + answer_text(question)

    def _fact(self, theme: Relation) -> tuple[Relation, str, str, str]:
        relation = theme if self._rng.random() < THEME else self._one(RELATIONS)
        if relation.answer == "verdict":
            return relation, self._name("drug"), self._name("condition"), self._one(VERDICTS)
        return relation, self._name(relation.subject), "", self._name(relation.answer)

    def _statement(self, relation: Relation, subject: str, other: str, answer: str) -> str:
        beginning = self._one(relation.state[self._one(REGISTERS)])
        return f"{beginning.format(subject=subject, other=other)} {answer}."

    def _question(
        self, relation: Relation, subject: str, other: str, answer: str, context: str, named: list[str]
    ) -> Question:
        """A question on a fact; what else is `named` in the text makes wrong options first."""
        kind = "yes-no-maybe" if relation.answer == "verdict" else "choice"
        if kind == "choice" and self._rng.random() < OPEN_SHARE:
            kind = "open"
        options: dict[str, str] = {}
        if kind == "choice":
            texts = [answer, *self._others(relation.answer, answer, named)]
            order = self._rng.permutation(OPTIONS).tolist()
            options = {LETTERS[place]: texts[i] for place, i in enumerate(order)}
            answer = LETTERS[order.index(0)]
        # In training a statement is also asked as a sentence to complete.
        templates = relation.state if kind != "choice" and self._rng.random() < 0.5 else relation.ask
        text = self._one(templates[self._one(REGISTERS)]).format(subject=subject, other=other)
        return Question("", "", "", kind, text, answer, context=context, options=options)

    def _others(self, kind: str, answer: str, named: list[str]) -> list[str]:
        others = list(dict.fromkeys(named))[: OPTIONS - 1]
        while len(others) < OPTIONS - 1:
            name = self._name(kind)
            if name not in (answer, *others):
                others.append(name)
        return others

    def _name(self, kind: str) -> str:
        if kind in ("dose", "verdict") or self._rng.random() >= FRESH:
            return self._one(self._known[kind])
        return self._maker.passing_name(kind.split()[-1])

    def _one(self, values: Sequence[Any]) -> Any:
        return values[int(self._rng.integers(len(values)))]
