"""A model's answers to a set of questions: the option it finds most likely, or the text it writes, and their scores."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence

import pandas
import torch
from tqdm.auto import tqdm

from fedmrg_core.data.questions.question import Question
from fedmrg_core.metrics.normalise import normalise
from fedmrg_core.metrics.text import text_sums
from fedmrg_core.tasks.medical_qa.question_model import QuestionModel
from fedmrg_core.tasks.medical_qa.readings import Reader, possible_answers
from fedmrg_core.tasks.medical_qa.scoring import NORMALISATIONS, Reading, normalised, score_readings

CHOSEN = [f"chosen_{name}" for name in NORMALISATIONS]
RIGHT = [f"accuracy_{name}" for name in NORMALISATIONS]
WRITTEN = ("token_f1", "rouge_l")
# The geometric mean over the right answer's tokens of their probability, one over its perplexity. It tells models apart
# that are too small to write a long answer [ours].
PROBABILITY = "open_probability_per_token"
OPEN = (*WRITTEN, PROBABILITY)
HERE, ELSEWHERE = "here", "elsewhere"
# Columns of `answers_to`: what names a question, what the model chose or wrote, and a number a measure (blank: does
# not apply).
COLUMNS = ("study_id", "kind", "fact_held", "answer", *CHOSEN, "written", *RIGHT, *OPEN)


def answers_to(
    model: QuestionModel, reader: Reader, questions: Sequence[Question], adapter: str, size: int, new_tokens: int
) -> pandas.DataFrame:
    """Answer questions under one adapter.

    Args:
        model: with the tensors loaded.
        reader: of its tokenizer.
        questions: N of them.
        adapter: one of the model's `answers`, or BASE.
        size: readings of a batch.
        new_tokens: of an open answer; 0: none is written, and what it would be scored by is blank.

    Returns:
        `COLUMNS`, a row a question in their order.
    """
    model.eval()
    closed = _closed(model, reader, [q for q in questions if possible_answers(q)], adapter, size)
    opened = _open(model, reader, [q for q in questions if not possible_answers(q)], adapter, size, new_tokens)
    rows = [
        {"study_id": q.question_id, "kind": q.kind, "fact_held": fact_held(q), "answer": q.answer,
         **(closed | opened)[q.question_id]}
        for q in questions
    ]  # fmt: skip
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def fact_held(question: Question) -> str:
    """Where the answer was to be learned: `HERE` at the client that asks, or `ELSEWHERE`; "" if nobody knows."""
    if not question.held_by:
        return ""
    return HERE if question.client in question.held_by else ELSEWHERE


def _closed(
    model: QuestionModel, reader: Reader, questions: Sequence[Question], adapter: str, size: int
) -> dict[str, dict[str, object]]:
    """Choices and verdicts: by question what was chosen and whether it is right, under each normalisation."""
    options = {question.question_id: reader.options(question) for question in questions}
    readings = [reading for each in options.values() for reading in each.values()]
    scores = score_readings(model.llm, readings, adapter, reader.tokenizer.pad_token_id, size)
    found, start = {}, 0
    for question in questions:
        own = options[question.question_id]
        part = scores[start : start + len(own)]
        start += len(own)
        found[question.question_id] = _chosen(question, own, part, reader)
    return found


def _chosen(question: Question, own: Mapping[str, Reading], scores: torch.Tensor, reader: Reader) -> dict[str, object]:
    lengths = [(len(r.answer), len(reader.tokenizer.decode(r.answer).strip())) for r in own.values()]
    row: dict[str, object] = {"written": ""}
    for name in NORMALISATIONS:
        best = list(own)[int(normalised(scores, lengths, name).argmax())]
        row |= {f"chosen_{name}": best, f"accuracy_{name}": float(best == question.answer)}
    return row | dict.fromkeys(OPEN, math.nan)


def _open(
    model: QuestionModel, reader: Reader, questions: Sequence[Question], adapter: str, size: int, new_tokens: int
) -> dict[str, dict[str, object]]:
    """Open questions: how probable the right answer is; what was written, greedily, and its likeness to that."""
    readings = [reader.right(question, ended=False) for question in questions]
    scores = score_readings(model.llm, readings, adapter, reader.tokenizer.pad_token_id, size).tolist()
    blank = {"written": "", **dict.fromkeys(CHOSEN, ""), **dict.fromkeys((*RIGHT, *OPEN), math.nan)}
    found = {
        question.question_id: {**blank, PROBABILITY: math.exp(score / len(reading.answer))}
        for question, reading, score in zip(questions, readings, scores, strict=True)
    }
    for start in tqdm(range(0, len(questions) if new_tokens else 0, size), desc=f"open answers {adapter}", leave=False):
        part = questions[start : start + size]
        texts = _write(model, reader, part, adapter, new_tokens)
        for question, scored in zip(part, written_scores(part, texts), strict=True):
            found[question.question_id] |= scored
    return found


def written_scores(questions: Sequence[Question], texts: Sequence[str]) -> list[dict[str, object]]:
    """What was written to open questions, and its likeness to their answers."""
    overlap = text_sums([question.answer for question in questions], list(texts)).rouge_l
    return [
        {"written": text, "token_f1": token_f1(question.answer, text), "rouge_l": float(likeness)}
        for question, text, likeness in zip(questions, texts, overlap, strict=True)
    ]


def _write(
    model: QuestionModel, reader: Reader, questions: Sequence[Question], adapter: str, new_tokens: int
) -> list[str]:
    tokenizer, device = model.tokenizer, next(model.parameters()).device
    asked = [reader.question(question, new_tokens) for question in questions]
    width = max(map(len, asked))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(each)) + each for each in asked], device=device)
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in asked], device=device)
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    written = model.llm.generate(
        model.llm.embed(ids), adapter, mask=mask, do_sample=False, max_new_tokens=new_tokens, **special
    )
    return [" ".join(text.split()) for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


def token_f1(reference: str, written: str) -> float:
    """F1 of the words that two texts share, as often as both have them [related: SQuAD]."""
    right, said = normalise(reference).split(), normalise(written).split()
    shared = sum((collections.Counter(right) & collections.Counter(said)).values())
    return 2 * shared / (len(right) + len(said)) if shared else 0.0
