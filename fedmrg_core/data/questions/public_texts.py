"""Texts to pretrain a small language model on, where the clients hold a public set: the other public sets beside it.

A folder may hold several sets. Each file is told by the keys of its first row, whatever its name. Nothing of the
clients' own set is read, and texts that are near-equal to a question, an answer or a context of theirs are left out.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedmrg_core.data.questions.duplicates import THRESHOLD, near_equal_to
from fedmrg_core.data.questions.question import LETTERS, Question
from fedmrg_core.data.questions.question_files import json_lines, json_text
from fedmrg_core.errors import InputError
from fedmrg_core.files.digests import file_digest
from fedmrg_core.seeds import numpy_stream

_LEAST_WORDS = 4  # of a text that is held against the clients'; a drug's name stands in many sets
PIECE = 256  # characters of a text; longer ones are cut at blanks
_SEPARATORS = ("Question: ", "\nAnswer: ")  # as `layout.prompt_text` has them
Row = dict[str, Any]
Pair = tuple[str, str]  # a question and its answer; the question is "" where a text stands for itself


@dataclasses.dataclass(frozen=True)
class Kind:
    """One public set.

    Attributes:
        keys: what a row of it has.
        pairs: questions with answers, and texts, of a row.
        articles: the file is one object of rows by their id, and no JSON Lines.
    """

    keys: frozenset[str]
    pairs: Callable[[Row], list[Pair]]
    articles: bool = False


def _medmcqa(row: Row) -> list[Pair]:
    return [(row["question"], row["op" + LETTERS[row["cop"] - 1].lower()]), ("", row.get("exp"))]


def _pubmedqa(row: Row) -> list[Pair]:
    return [("", " ".join(row["CONTEXTS"])), (row["QUESTION"], row.get("LONG_ANSWER"))]


KINDS = {
    "medquad": Kind(
        frozenset({"source", "focus", "qtype", "question", "answer"}), lambda row: [(row["question"], row["answer"])]
    ),
    "medmcqa": Kind(frozenset({"question", "opa", "opb", "opc", "opd", "cop"}), _medmcqa),
    "medqa": Kind(
        frozenset({"question", "options", "answer_idx", "meta_info"}),
        lambda row: [(row["question"], row["options"][row["answer_idx"]])],
    ),
    "pubmedqa": Kind(frozenset({"QUESTION", "CONTEXTS", "final_decision"}), _pubmedqa, articles=True),
}


@dataclasses.dataclass(frozen=True)
class PublicTexts:
    """Texts apart from the clients'.

    Attributes:
        texts: pieces in a random order.
        sources: by file its set, a digest of its content, and how many questions and texts it gave.
        left_out: how many questions and texts were near-equal to something of the clients'.
    """

    texts: list[str]
    sources: dict[str, dict[str, object]]
    left_out: int


def public_sets(root: pathlib.Path, apart_from: str) -> dict[pathlib.Path, str]:
    """The files of a folder that are public sets, and which.

    Args:
        root: the folder; folders in it are not looked into.
        apart_from: the set of the clients, which does not count.

    Raises:
        InputError: there is none.
    """
    paths = sorted(path for path in root.iterdir() if path.name.endswith((".json", ".jsonl", ".json.gz", ".jsonl.gz")))
    found = {path: kind for path in paths if (kind := kind_of(path))}
    found = {path: kind for path, kind in found.items() if kind != apart_from}
    if not found:
        others = ", ".join(kind for kind in KINDS if kind != apart_from)
        raise InputError(
            f"{root} holds no other public set ({others}) to pretrain a small model on; put one beside the files of "
            f"{apart_from}, or name a model in the profile (base_models.llm), a folder or one in the local cache."
        )
    return found


def short_digest(path: pathlib.Path) -> str:
    """The beginning of a file's SHA-256, as `PublicTexts.sources` has it."""
    return file_digest(path)[:16]


def kind_of(path: pathlib.Path) -> str:
    """Which public set a file is, by the keys of its first row; "" if none."""
    text = json_text(path)
    for articles in (False, True):
        try:
            content = json.loads(text if articles else text.lstrip().partition("\n")[0])
            row = next(iter(content.values())) if articles else content
        except (ValueError, RecursionError, AttributeError, StopIteration):
            continue
        for name, kind in KINDS.items():
            if kind.articles == articles and isinstance(row, dict) and kind.keys <= row.keys():
                return name
    return ""


def public_texts(
    count: int,
    seed: int,
    root: pathlib.Path,
    data: str,
    questions: Sequence[Question],
    threshold: float = THRESHOLD,
) -> PublicTexts:
    """Pieces of the other sets' questions and texts.

    Args:
        count: most pieces; drawn at random where there are more.
        seed: the root seed.
        root: the folder of the clients' set, and of the others.
        data: the clients' set.
        questions: all of the clients'.
        threshold: of near-equal texts, see `near_equal_to`.

    Raises:
        InputError: the folder holds no other set, or one that breaks its layout; or nothing is left.
    """
    pairs: list[Pair] = []
    sources: dict[str, dict[str, object]] = {}
    for path, name in public_sets(root, data).items():
        own = list(_pairs_of(path, KINDS[name]))
        sources[path.name] = {"set": name, "sha256": short_digest(path), "texts": len(own)}
        pairs += own
    kept = _apart(pairs, questions, threshold)
    pieces = [piece for pair in kept for piece in pieces_of(*pair)]
    if not pieces:
        raise InputError(f"{root}: no text of {', '.join(sources)} is apart from the clients' questions.")
    order = numpy_stream(seed, "questions", "public texts").permutation(len(pieces))[:count].tolist()
    return PublicTexts([pieces[place] for place in order], sources, len(pairs) - len(kept))


def pieces_of(question: str, answer: str) -> list[str]:
    """A question with its answer as a language model reads them, or a text, cut at blanks into pieces."""
    text = question.join(_SEPARATORS) + answer if question else answer
    pieces, start = [], 0
    while len(text) - start > PIECE:
        end = text.rfind(" ", start, start + PIECE)
        end = start + PIECE if end <= start else end
        pieces.append(text[start:end].strip())
        start = end
    return [piece for piece in [*pieces, text[start:].strip()] if piece]


def _pairs_of(path: pathlib.Path, kind: Kind) -> Iterator[Pair]:
    rows = enumerate(json.loads(json_text(path)).values(), start=1) if kind.articles else json_lines(path)
    for row, content in rows:
        try:
            found = kind.pairs(content)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(
                f"{path}: row {row} has another layout than row 1 ({error!r}); mend or remove it."
            ) from None
        for question, answer in found:
            if isinstance(answer, str) and answer.strip():
                yield " ".join(str(question).split()), " ".join(answer.split())


def _apart(pairs: Sequence[Pair], questions: Sequence[Question], threshold: float) -> list[Pair]:
    """Those that have no part near-equal to something of the clients'."""
    held = {text for each in questions for text in (each.text, each.answer_text, each.context) if text}
    parts = [(place, part) for place, pair in enumerate(pairs) for part in pair if len(part.split()) >= _LEAST_WORDS]
    near = near_equal_to([part for _, part in parts], sorted(held), threshold)
    gone = {place for (place, part), is_near in zip(parts, near.tolist(), strict=True) if is_near}
    return [pair for place, pair in enumerate(pairs) if place not in gone]
