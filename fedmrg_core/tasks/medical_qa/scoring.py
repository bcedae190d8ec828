"""How likely a causal LM finds each answer to a question, and which answer that makes its own.

    log p(answer | question) = sum over the answer's tokens of log p(token | question, tokens before)

Questions of different length share a batch: what is read before the answers is padded on the left, answers on the
right, so that every answer starts at the same place and only its positions go through the vocabulary. Padding is
masked and positions count tokens alone, so that a question scores in a batch as it does by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.adapters import AdaptedLLM
from fedmrg_core.errors import InputError

# What a log-likelihood is divided by before answers are compared. Longer answers are less likely as wholes: per
# character is the usual remedy [related: lm-evaluation-harness], per token depends on the tokenizer.
Normalisation = Literal["sum", "per_token", "per_character"]
NORMALISATIONS: tuple[Normalisation, ...] = ("sum", "per_token", "per_character")


@dataclasses.dataclass(frozen=True)
class Reading:
    """A question as token ids, and one of its answers."""

    question: list[int]  # with the start token
    answer: list[int]  # at least one token


@dataclasses.dataclass(frozen=True)
class Padded:
    """B readings in one batch.

    Attributes:
        questions: (B, P) token ids, padded on the left.
        answers: (B, T) token ids, padded on the right.
        question_mask: (B, P) true where there is a token.
        answer_mask: (B, T) true where there is a token.
    """

    questions: Tensor
    answers: Tensor
    question_mask: Tensor
    answer_mask: Tensor

    @property
    def mask(self) -> Tensor:
        """(B, P + T - 1) attention mask: the last answer token is predicted and not read."""
        return torch.cat([self.question_mask, self.answer_mask[:, :-1]], dim=1).long()

    @property
    def positions(self) -> Tensor:
        """(B, P + T - 1) place of each token in its own text."""
        return (self.mask.cumsum(dim=1) - 1).clamp(min=0)

    def to(self, device: torch.device) -> Padded:
        """The same on another device."""
        return Padded(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


def padded(readings: Sequence[Reading], padding: int) -> Padded:
    """Put readings into one batch.

    Args:
        readings: B of them.
        padding: id of the padding token; any will do, it is masked.

    Raises:
        InputError: a question or an answer has no token.
    """
    for row, reading in enumerate(readings):
        if not reading.question or not reading.answer:
            raise InputError(f"reading {row}: the question or its answer has no token; expected text in both.")
    before, after = (max(len(getattr(r, side)) for r in readings) for side in ("question", "answer"))
    questions = torch.full((len(readings), before), padding)
    answers = torch.full((len(readings), after), padding)
    question_mask, answer_mask = (torch.zeros(ids.shape, dtype=torch.bool) for ids in (questions, answers))
    for row, reading in enumerate(readings):
        start = before - len(reading.question)
        questions[row, start:] = torch.tensor(reading.question)
        answers[row, : len(reading.answer)] = torch.tensor(reading.answer)
        question_mask[row, start:], answer_mask[row, : len(reading.answer)] = True, True
    return Padded(questions, answers, question_mask, answer_mask)


def answer_logits(llm: AdaptedLLM, batch: Padded, names: Sequence[str]) -> list[Tensor]:
    """Logits (B, T, vocabulary) of the answers' tokens under each adapter."""
    read = torch.cat([batch.questions, batch.answers[:, :-1]], dim=1)
    return llm(llm.embed(read), batch.mask, batch.answers.shape[1], names, batch.positions)


def answer_loss(logits: Tensor, batch: Padded) -> Tensor:
    """Mean cross-entropy over the answers' tokens.

    Args:
        logits: (B, T, vocabulary), see `answer_logits`.
        batch: of B readings.
    """
    return functional.cross_entropy(logits[batch.answer_mask], batch.answers[batch.answer_mask])


def log_likelihoods(logits: Tensor, batch: Padded) -> Tensor:
    """Log p(answer | question).

    Args:
        logits: (B, T, vocabulary), see `answer_logits`.
        batch: of B readings.

    Returns:
        (B,)
    """
    chosen = functional.log_softmax(logits, dim=-1).gather(-1, batch.answers[..., None])[..., 0]
    return (chosen * batch.answer_mask).sum(dim=1)


@torch.no_grad()
def score_readings(llm: AdaptedLLM, readings: Sequence[Reading], name: str, padding: int, size: int = 64) -> Tensor:
    """Log p(answer | question) of many readings under one adapter.

    Args:
        llm: with the adapters loaded.
        readings: N of them; those of similar length are read together.
        name: of the adapter, see :class:`AdaptedLLM`.
        padding: id of the padding token.
        size: readings of a batch.

    Returns:
        (N,) float32 on the CPU, in the order of `readings`.

    Raises:
        InputError: a question or an answer has no token.
    """
    order = sorted(range(len(readings)), key=lambda row: len(readings[row].question) + len(readings[row].answer))
    scores = torch.empty(len(readings))
    device = next(llm.parameters()).device
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = padded([readings[row] for row in rows], padding).to(device)
        (logits,) = answer_logits(llm, batch, [name])
        scores[rows] = log_likelihoods(logits, batch).cpu()
    return scores


def normalised(scores: Tensor, lengths: Sequence[tuple[int, int]], normalisation: Normalisation) -> Tensor:
    """Log-likelihoods (O,) as they are compared.

    Args:
        scores: of the options of one question.
        lengths: tokens and characters of each option.
        normalisation: what they are divided by.
    """
    if normalisation == "sum":
        return scores
    column = 0 if normalisation == "per_token" else 1
    return scores / torch.tensor([length[column] for length in lengths], dtype=scores.dtype)
