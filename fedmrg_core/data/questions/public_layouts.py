"""Readers of public sets of medical questions, each in the layout in which its authors publish it.

A row that breaks the layout stops everything: the file is another one, or damaged. A row that keeps to it but is no
usable question, such as one with two equal options, is left out and listed.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from fedmrg_core.data.questions.question import (
    LETTERS,
    VERDICTS,
    LeftOutQuestion,
    LoadedQuestions,
    Question,
    check_question,
    check_questions,
    plain,
    upper_letters,
)
from fedmrg_core.data.questions.question_files import json_lines, json_text
from fedmrg_core.data.tables import read_json
from fedmrg_core.errors import InputError

_OPTION_KEYS = ("opa", "opb", "opc", "opd")
Row = dict[str, Any]


def read_medquad(path: pathlib.Path, split: str = "") -> LoadedQuestions:
    """MedQuAD as JSON Lines: source, focus, qtype, question, answer. The sources are the clients; kind open.

    A question's id is its row, with the part in front where there is one.

    Args:
        path: of the file; compressed if its name ends in .gz.
        split: of all questions; "" if the file is not one part.

    Raises:
        InputError: as `_read`.
    """

    def question_of(row: int, content: Row, place: str) -> Question:
        text, answer, source, focus, kind = (
            _text(content, key, place) for key in ("question", "answer", "source", "focus", "qtype")
        )
        fact = f"{plain(focus)}: {plain(kind)}"
        name = "-".join(filter(None, ("medquad", split, f"{row:06d}")))
        return Question(name, source, split, "open", text, answer, fact=fact)

    return _read(path, json_lines(path), question_of)


def read_medmcqa(path: pathlib.Path, split: str = "") -> LoadedQuestions:
    """MedMCQA as JSON Lines: id, question, opa to opd, cop from 1 to 4, subject_name. Subjects are the clients.

    Args:
        path: of the file.
        split: of all questions; "" if the file is not one part.

    Raises:
        InputError: as `_read`; or cop is no number from 1 to 4.
    """

    def question_of(row: int, content: Row, place: str) -> Question:
        number = content.get("cop")
        if type(number) is not int or not 1 <= number <= len(_OPTION_KEYS):
            raise InputError(
                f"{place}: cop is {number!r}; expected 1, 2, 3 or 4, the place of the right option "
                "(some copies count from 0, and test files have none)."
            )
        options = {letter: _text(content, key, place) for letter, key in zip(LETTERS, _OPTION_KEYS, strict=False)}
        subject = _text(content, "subject_name", place)
        return Question(
            _text(content, "id", place),
            subject,
            split,
            "choice",
            _text(content, "question", place),
            LETTERS[number - 1],
            options=options,
            speciality=subject,
        )

    return _read(path, json_lines(path), question_of)


def read_pubmedqa(path: pathlib.Path, split: str = "", client: str = "pubmedqa") -> LoadedQuestions:
    """PubMedQA, one JSON object by article: QUESTION, CONTEXTS, final_decision. All are one client's.

    Raises:
        InputError: as `_read`; or a decision is none of yes, no and maybe.
    """
    try:
        articles = read_json(json_text(path), str(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); expected one object of articles by their id.") from None
    if not isinstance(articles, dict):
        raise InputError(f"{path} is no JSON object; expected one of articles by their id.")
    rows = []
    for row, (article, content) in enumerate(articles.items(), start=1):
        if not isinstance(content, dict):
            raise InputError(f"{path}: row {row}, article {article!r} is no JSON object; expected keys and values.")
        rows.append((row, content | {"article": article}))

    def question_of(row: int, content: Row, place: str) -> Question:
        decision, contexts = _text(content, "final_decision", place), content.get("CONTEXTS")
        if decision not in VERDICTS:
            raise InputError(f"{place}: final_decision is {decision!r}; expected one of {', '.join(VERDICTS)}.")
        if not isinstance(contexts, list) or not all(isinstance(text, str) for text in contexts):
            raise InputError(f"{place}: CONTEXTS is {contexts!r:.60}; expected a list of texts.")
        text, context = _text(content, "QUESTION", place), " ".join(" ".join(contexts).split())
        return Question(f"pubmed-{content['article']}", client, split, "yes-no-maybe", text, decision, context)

    return _read(path, rows, question_of)


def read_medqa(path: pathlib.Path, split: str = "") -> LoadedQuestions:
    """MedQA of the United States with four options, JSON Lines: question, options, answer_idx, meta_info.

    The steps of the examination, `meta_info`, are the clients.

    Raises:
        InputError: as `_read`; or options are no texts by letter.
    """

    def question_of(row: int, content: Row, place: str) -> Question:
        options = content.get("options")
        if not isinstance(options, dict) or not all(isinstance(text, str) for text in options.values()):
            raise InputError(f"{place}: options is {options!r:.60}; expected an object of texts by letter.")
        options = {letter: " ".join(options[letter].split()) for letter in sorted(options)}
        options, answer = upper_letters(options, _text(content, "answer_idx", place), place)
        if options and answer not in options:  # without any, the row is left out and listed
            raise InputError(f"{place}: answer_idx is {answer!r}; expected one of {', '.join(options)}.")
        text, client = _text(content, "question", place), _text(content, "meta_info", place)
        return Question(f"medqa-{split or path.stem}-{row:06d}", client, split, "choice", text, answer, options=options)

    return _read(path, json_lines(path), question_of)


def _read(path: pathlib.Path, rows: Any, question_of: Callable[[int, Row, str], Question]) -> LoadedQuestions:
    """The questions of a file's rows.

    Raises:
        InputError: the file is missing or damaged, a row breaks the layout, an id occurs twice, or no question is left.
    """
    questions, left_out, used = [], [], []
    for row, content in rows:
        place = f"{path}: row {row}"
        question = question_of(row, content, place)
        try:
            check_question(question, place)
        except InputError as error:
            reason = str(error).removeprefix(place).removeprefix(f" ({question.question_id})").removeprefix(": ")
            left_out.append(LeftOutQuestion(question.question_id, f"{path.name}: row {row}", reason))
            continue
        questions.append(question)
        used.append(row)
    if not questions:
        first = f" (row 1: {left_out[0].reason})" if left_out else ""
        raise InputError(f"{path}: not one usable question{first}; expected one a row.")
    _check_ids(questions, used, path)
    return LoadedQuestions(questions, left_out)


def _check_ids(questions: Sequence[Question], rows: Sequence[int], path: pathlib.Path) -> None:
    """No id stands twice; a part of a set may lack test questions."""
    check_questions([dataclasses.replace(question, split="") for question in questions], str(path), rows)


def _text(content: Row, key: str, place: str) -> str:
    """A text of a row, with single blanks; null is an empty one.

    Raises:
        InputError: it is missing or no text.
    """
    value = content.get(key, 0)
    if value is None:
        return ""
    if not isinstance(value, str):
        what = f"is {value!r:.60}" if key in content else "is missing"
        raise InputError(f"{place}: {key} {what}; expected a text.")
    return " ".join(value.split())
