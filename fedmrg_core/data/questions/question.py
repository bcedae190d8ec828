"""One medical question, and what every set of questions has to keep to."""

from __future__ import annotations

import collections
import dataclasses
import re
import string
from collections.abc import Mapping, Sequence

from fedmrg_core.data.site_names import check_site_name
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError

KINDS = ("choice", "yes-no-maybe", "open")
VERDICTS = ("yes", "no", "maybe")
LETTERS = string.ascii_uppercase
FEWEST_OPTIONS = 2


@dataclasses.dataclass(frozen=True)
class Question:
    """One question with its answer.

    Attributes:
        question_id: occurs once in a set.
        client: who holds it.
        split: train, validation or test; "" as long as a set has not been split.
        kind: one of `KINDS`.
        text: what is asked.
        context: what is given to answer it from; "" if nothing.
        options: text by letter, A, B, C, ...; of a choice alone, else empty.
        answer: a letter, yes, no or maybe, or the text of an open answer.
        speciality: of medicine; "" if unknown.
        language: "en" or a register of it, as the data set says.
        fact: an id of what is asked; "" if unknown.
        held_by: the clients whose training part states this fact; empty if unknown.
    """

    question_id: str
    client: str
    split: str
    kind: str
    text: str
    answer: str
    context: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    speciality: str = ""
    language: str = "en"
    fact: str = ""
    held_by: tuple[str, ...] = ()

    @property
    def answer_text(self) -> str:
        """The answer in words: of a choice the option's text."""
        return self.options[self.answer] if self.kind == "choice" else self.answer


@dataclasses.dataclass(frozen=True)
class LeftOutQuestion:
    """One question that is not used, and why."""

    question_id: str
    item: str  # the file and row concerned
    reason: str  # one sentence: what is wrong and what is expected


@dataclasses.dataclass(frozen=True)
class PartRow:
    """What became of a client's questions in one part, of a set that was split or whose parts were cleaned.

    Attributes:
        client: whose.
        split: the part.
        kept: questions that are in the part in which they were given or drawn.
        moved: questions that were drawn into another part, and are here to be with near-equal ones.
        left_out: questions given in this part that are used no more.
    """

    client: str
    split: str
    kept: int
    moved: int
    left_out: int


@dataclasses.dataclass(frozen=True)
class MovedQuestion:
    """One question that is in another part than was drawn for it, to be with near-equal ones."""

    question_id: str
    client: str
    drawn: str
    split: str  # where it is


@dataclasses.dataclass
class LoadedQuestions:
    """What a data set of questions hands back.

    Attributes:
        questions: those in use.
        left_out: every one left out.
        notes: sentences that a person should read, such as which clients were joined.
        parts: a row for each client and part, if parts were drawn or cleaned.
        moved: every one that was moved when parts were drawn.
    """

    questions: list[Question]
    left_out: list[LeftOutQuestion] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    parts: list[PartRow] = dataclasses.field(default_factory=list)
    moved: list[MovedQuestion] = dataclasses.field(default_factory=list)


def plain(text: str) -> str:
    """A text without what makes no difference between two options: case and the number of blanks."""
    return " ".join(text.casefold().split())


def upper_letters(options: Mapping[str, str], answer: str, place: str) -> tuple[dict[str, str], str]:
    """Options and answer of a choice with letters in upper case: "a" is read as "A" where no option has the other case.

    Raises:
        InputError: two options have the same letter in two cases; which of them is meant cannot be told.
    """
    upper: dict[str, str] = {}
    for letter, text in options.items():
        if letter.upper() in upper:
            raise InputError(
                f"{place}: options {letter.upper()!r} and {letter.lower()!r} are one letter in two cases; "
                "give every option a letter of its own."
            )
        upper[letter.upper()] = text
    return upper, answer.upper() if len(answer) == 1 else answer


def check_question(question: Question, place: str) -> None:
    """Hold one question against what its kind needs.

    Args:
        question: to be checked.
        place: file and row; begins the sentence.

    Raises:
        InputError: something is empty, unknown, or does not go together.
    """
    if not question.question_id.strip():
        raise InputError(f"{place}: question_id is empty; give every question an id of its own.")
    place = f"{place} ({question.question_id})"
    if not question.client.strip():
        raise InputError(f"{place}: client is empty; say who holds the question.")
    check_site_name(question.client, place)
    if question.split not in ("", *SPLITS):
        raise InputError(f"{place}: split is {question.split!r}; expected one of {', '.join(SPLITS)}.")
    if question.kind not in KINDS:
        raise InputError(f"{place}: kind is {question.kind!r}; expected one of {', '.join(KINDS)}.")
    _check_texts(question, place)
    if question.kind == "choice":
        _check_options(question, place)
    elif question.options:
        raise InputError(f"{place}: options are given but the kind is {question.kind}; leave them out.")
    elif question.kind == "yes-no-maybe" and question.answer not in VERDICTS:
        raise InputError(f"{place}: the answer is {question.answer!r}; expected one of {', '.join(VERDICTS)}.")


def _check_texts(question: Question, place: str) -> None:
    if not re.search(r"\w", question.text):
        raise InputError(f"{place}: text has no word; give the question or remove the row.")
    if not question.answer.strip():
        raise InputError(f"{place}: the answer is empty; give it or remove the row.")
    for name in ("question_id", "text", "context", "answer"):
        _check_characters(getattr(question, name), f"{place}: {name}")


def _check_characters(text: str, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds half a character ({text[error.start]!r}) which no file can; write it whole."
        ) from None


def _check_options(question: Question, place: str) -> None:
    letters = list(question.options)
    if len(letters) < FEWEST_OPTIONS:
        raise InputError(
            f"{place}: a choice has {len(letters)} options; give at least {FEWEST_OPTIONS}, by the letters A, B, ..."
        )
    if [letter.upper() for letter in letters] == letters != list(LETTERS[: len(letters)]):
        raise InputError(
            f"{place}: options have the letters {', '.join(letters)}; "
            f"expected {', '.join(LETTERS[: len(letters)])} in this order."
        )
    for letter, text in question.options.items():
        if letter not in LETTERS:
            raise InputError(f"{place}: option letter {letter!r} is not in upper case; write {letter.upper()!r}.")
        if not text.strip():
            raise InputError(f"{place}: option {letter} is empty; give its text.")
        _check_characters(text, f"{place}: option {letter}")
    if question.answer not in question.options:
        case = f"; write {question.answer.upper()!r}" if question.answer.upper() in question.options else ""
        expected = f", expected one of {', '.join(letters)}"
        raise InputError(f"{place}: the answer {question.answer!r} is none of its options{case or expected}.")
    first: dict[str, str] = {}
    for letter, text in question.options.items():
        other = first.setdefault(plain(text), letter)
        if other != letter:
            raise InputError(
                f"{place}: options {other} and {letter} are equal ({text!r}); change or remove one of them."
            )


def check_questions(questions: Sequence[Question], source: str, rows: Sequence[int] | None = None) -> None:
    """Hold a set of questions against the schema.

    Args:
        questions: at least one; all have a split, or none has.
        source: the file or data set; begins the sentence.
        rows: the row of each in the file; counted from 1 if not given.

    Raises:
        InputError: as `check_question`; an id occurs twice, some questions lack a split, or a client a test question.
    """
    if not questions:
        raise InputError(f"{source}: not one question; give at least one.")
    rows = rows or range(1, len(questions) + 1)
    first: dict[str, int] = {}
    for row, question in zip(rows, questions, strict=True):
        check_question(question, f"{source}: row {row}")
        other = first.setdefault(question.question_id, row)
        if other != row:
            raise InputError(
                f"{source}: row {row}: question_id {question.question_id!r} stands in row {other} already; "
                "give every question an id of its own."
            )
    check_splits(questions, source, rows)


def check_splits(questions: Sequence[Question], source: str, rows: Sequence[int] | None = None) -> None:
    """All questions have a split, or none has; each client has test questions.

    Raises:
        InputError: it is otherwise.
    """
    rows = rows or range(1, len(questions) + 1)
    without = [row for row, question in zip(rows, questions, strict=True) if not question.split]
    if len(without) == len(questions):
        return
    if without:
        raise InputError(f"{source}: row {without[0]} has no split but others have; give all of them a split, or none.")
    counts = counts_of(questions)
    for client in counts:
        if not counts[client]["test"]:
            raise InputError(
                f"{source}: client {client!r} has no test question; give it one, or join it with another client "
                "(option smallest of public sets)."
            )


def counts_of(questions: Sequence[Question]) -> dict[str, collections.Counter[str]]:
    """How many questions each client has by split; clients sorted by name."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for question in questions:
        counts[question.client][question.split] += 1
    return dict(sorted(counts.items()))
