"""Questions on disk: JSON Lines, one question a line, whole or not at all."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from fedmrg_core.data.questions.question import Question, check_questions, upper_letters
from fedmrg_core.data.tables import decode_text, read_bytes, read_json
from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import atomic_file

ENDINGS = (".jsonl", ".jsonl.gz")
_FIELDS = {field.name: field for field in dataclasses.fields(Question)}
_NEEDED = [
    name
    for name, field in _FIELDS.items()
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
]


def read_questions(path: pathlib.Path) -> list[Question]:
    """The questions of a file in the project's own layout: the fields of `Question` as keys, one object a line.

    Letters of options in lower case are read as upper case.

    Raises:
        InputError: the file is missing, damaged or empty, a line has another layout, or the questions break the schema.
    """
    check_ending(path)
    questions, rows = [], []
    for row, content in json_lines(path):
        questions.append(_question_of(content, f"{path}: row {row}"))
        rows.append(row)
    check_questions(questions, str(path), rows)
    return questions


def write_questions(path: pathlib.Path, questions: Sequence[Question]) -> None:
    """Write questions as JSON Lines, compressed if the name ends in .gz; equal questions give equal bytes.

    Raises:
        InputError: the name has another ending, or the questions break the schema; nothing is written then.
    """
    check_ending(path)
    check_questions(questions, str(path))
    content = "".join(line_of(question) for question in questions).encode()
    with atomic_file(path) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def fingerprint(questions: Sequence[Question]) -> str:
    """A hash of all that a set of questions holds, in its order: equal fingerprint, equal data."""
    digest = hashlib.sha256()
    for question in questions:
        digest.update(line_of(question).encode())
    return digest.hexdigest()


def line_of(question: Question) -> str:
    """One line of a file of questions."""
    content = {name: getattr(question, name) for name in _FIELDS}
    content |= {"options": dict(question.options), "held_by": list(question.held_by)}
    return json.dumps(content, ensure_ascii=False) + "\n"


def check_ending(path: pathlib.Path) -> None:
    """Refuse a name that does not say what is in the file.

    Raises:
        InputError: it ends otherwise.
    """
    if not path.name.endswith(ENDINGS):
        raise InputError(f"{path} is no file of questions by its name; expected an ending of {' or '.join(ENDINGS)}.")


def json_text(path: pathlib.Path) -> str:
    """The text of a JSON file, decompressed if its name ends in .gz.

    Raises:
        InputError: the file is missing, not whole, or not UTF-8.
    """
    content = read_bytes(path, "give the file of questions")
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} is not a whole gzip file ({error}); copy it again.") from None
    return decode_text(content, str(path))


def json_lines(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row number, counted from 1, and content of every line that is not blank.

    Raises:
        InputError: as `json_text`; or a line is no JSON object, or has a key twice.
    """
    for row, line in enumerate(json_text(path).split("\n"), start=1):  # a line may hold other line ends in a text
        if not line.strip():
            continue
        try:
            content = read_json(line, f"{path}: row {row}")
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                f"{path}: row {row} is no JSON ({error}); expected one object a line, remove or mend it."
            ) from None
        if not isinstance(content, dict):
            raise InputError(f"{path}: row {row} is no JSON object; expected one with keys and values a line.")
        yield row, content


def _question_of(content: dict[str, Any], place: str) -> Question:
    for name in _NEEDED:
        if name not in content:
            raise InputError(f"{place}: key {name!r} is missing; a question needs {', '.join(_NEEDED)}.")
    for name, value in content.items():
        if name not in _FIELDS:
            raise InputError(f"{place}: key {name!r} is unknown; a question has {', '.join(_FIELDS)}.")
        fault = _fault(name, value)
        if fault:
            raise InputError(f"{place}: {name} is {value!r}; expected {fault}.")
    if content["kind"] == "choice":
        options, answer = upper_letters(content.get("options", {}), content["answer"], place)
        content = content | {"options": options, "answer": answer}
    return Question(**content | {"held_by": tuple(content.get("held_by", ()))})


def _fault(name: str, value: Any) -> str:
    """What a value should be instead; "" if it fits."""
    if name == "options":
        fits = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
        return "" if fits else "an object of texts by letter"
    if name == "held_by":
        fits = isinstance(value, list) and all(isinstance(text, str) for text in value)
        return "" if fits else "a list of clients"
    return "" if isinstance(value, str) else "a text"
