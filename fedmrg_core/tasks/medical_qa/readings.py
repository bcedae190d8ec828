"""A question and its possible answers as token ids, and a client's questions as training batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy
import torch
import transformers
from torch import Tensor

from fedmrg_core.data.questions.layout import Layout, answer_text, prompt_text
from fedmrg_core.data.questions.question import VERDICTS, Question
from fedmrg_core.errors import InputError
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.tasks.medical_qa.scoring import Padded, Reading, padded
from fedmrg_core.training.length_batches import shuffled_by_length
from fedmrg_core.training.trained_model import TrainedModel

Tokenizer = transformers.PreTrainedTokenizerBase
_SPARE = 4  # tokens: what is left of a text that lost its beginning can have a few more than it had


class Reader:
    """Turns questions into token ids.

    Args:
        tokenizer: the LLM's.
        layout: how a question is laid out.
        chat: wrap each question in the tokenizer's chat template.
        longest: tokens a question may have with its answer. An answer keeps its first half of them, an option too, and
            the question loses the beginning of its context or text.

    Raises:
        InputError: a chat template is asked for and the tokenizer has none.
    """

    def __init__(self, tokenizer: Tokenizer, layout: Layout, chat: bool = False, longest: int = 512) -> None:
        if chat and not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "questions.chat asks for a chat template and the model's tokenizer has none "
                f"({tokenizer.name_or_path}); expected chat: false, or a model trained for chats."
            )
        self.tokenizer, self.layout, self.chat, self.longest = tokenizer, layout, chat, longest

    def question(self, question: Question, room: int = 0) -> list[int]:
        """What is read before the answer, with the start token; `room` tokens are kept free for the answer."""
        if self.chat:
            return self._chat(question, room)
        text = prompt_text(question, self.layout)
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._within([self.tokenizer.bos_token_id, *ids], room, kept=1)

    def _chat(self, question: Question, room: int) -> list[int]:
        """The question in the chat template: what is too long loses the beginning of its context, then of its text."""
        ids = self._templated(prompt_text(question, self.layout))
        for part in ("context", "text"):
            if (over := len(ids) + room - self.longest) > 0:
                kept = self.tokenizer(getattr(question, part), add_special_tokens=False).input_ids[over + _SPARE :]
                question = dataclasses.replace(question, **{part: self.tokenizer.decode(kept).strip()})
                ids = self._templated(prompt_text(question, self.layout))
        return ids

    def _templated(self, text: str) -> list[int]:
        # Qwen3 thinks before it answers unless it is told not to; other templates do not ask [ours].
        ids = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, enable_thinking=False
        )
        return list(ids["input_ids"] if isinstance(ids, dict | transformers.BatchEncoding) else ids)

    def answer(self, text: str, ended: bool = False) -> list[int]:
        """An answer; `ended` with the end token, as in training."""
        ids = self.tokenizer(text.lstrip() if self.chat else text, add_special_tokens=False).input_ids
        return [*ids, self.tokenizer.eos_token_id] if ended else list(ids)

    def cut(self, text: str, tokens: int) -> str:
        """An open answer as far as a model that writes so many tokens comes."""
        ids = self.answer(f" {text}")
        return text if len(ids) <= tokens else " ".join(self.tokenizer.decode(ids[:tokens]).split())

    def right(self, question: Question, ended: bool = True) -> Reading:
        """The question with the first `longest` / 2 tokens of its right answer; `ended` as it is trained on."""
        answer = self.answer(answer_text(question, question.answer, self.layout), ended)[: self.longest // 2]
        return Reading(self.question(question, len(answer)), answer)

    def options(self, question: Question) -> dict[str, Reading]:
        """The question with the first `longest` / 2 tokens of each answer it can have; nothing for an open one."""
        texts = {key: answer_text(question, key, self.layout) for key in possible_answers(question)}
        answers = {key: self.answer(text)[: self.longest // 2] for key, text in texts.items()}
        asked = self.question(question, max(map(len, answers.values()), default=0))
        return {key: Reading(asked, answer) for key, answer in answers.items()}

    def _within(self, ids: list[int], room: int, kept: int) -> list[int]:
        over = len(ids) + room - self.longest
        return ids if over <= 0 else [*ids[:kept], *ids[kept + over :]]


def possible_answers(question: Question) -> tuple[str, ...]:
    """What a question may be answered with: letters, yes, no and maybe, or nothing said beforehand."""
    return {"choice": tuple(question.options), "yes-no-maybe": VERDICTS, "open": ()}[question.kind]


class QuestionBatches:
    """A client's questions with their right answers as seeded batches; see `training_steps.Batches`.

    Args:
        reader: of the model's tokenizer.
        questions: the client's.
        profile: batch size.
        device: where batches go.
    """

    def __init__(self, reader: Reader, questions: Sequence[Question], profile: Profile, device: torch.device) -> None:
        self.readings = [reader.right(question) for question in questions]
        self.size, self.device = profile.training.batch_size, device
        self.padding = reader.tokenizer.pad_token_id

    def __len__(self) -> int:
        return len(self.readings)

    def batch(self, indices: Sequence[int], generator: numpy.random.Generator | None = None) -> Padded:
        """The questions at `indices`; nothing is changed at random."""
        return padded([self.readings[index] for index in indices], self.padding).to(self.device)

    def shuffled(self, generator: numpy.random.Generator) -> list[list[int]]:
        """One epoch's batches of indices, see :func:`shuffled_by_length`."""
        return shuffled_by_length([len(r.question) + len(r.answer) for r in self.readings], self.size, generator)

    def features(self, model: TrainedModel) -> Tensor:
        """None: a language model has no features that a rule compares."""
        return model.batch_features(None)
