"""Static prompts: one learned book of N tokens, the same for every image; what MRG-LLM customises is compared with it.

    p_1 .. p_N in R^D                                                                                       [paper]

That the contrast is one static set of task prompts is the paper's; N, and words of the LLM as the start, are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import pydantic
import torch
from torch import Tensor, nn

from fedmrg_core.prompts.source import PromptOutput, PromptSettings, PromptSource, Surroundings, prompt_source

if TYPE_CHECKING:
    from fedmrg_core.tasks.reports.methods import ReportMethod


class BookSettings(PromptSettings):
    """How many prompts there are."""

    count: int = pydantic.Field(16, ge=4, le=64)  # N [ours]


def new_book(count: int, model: Surroundings) -> nn.Embedding:
    """N trained prompts (N, D) that start as words of the LLM, drawn at random without its special tokens [ours].

    So they are of the size that the LLM is used to. Where it knows fewer words than N, they come round again.
    """
    added = model.tokenizer.added_tokens_decoder.items()
    special = {*model.tokenizer.all_special_ids, *(index for index, token in added if token.special)}
    words = torch.tensor(sorted({*model.tokenizer.get_vocab().values()} - special))
    order = words[torch.randperm(len(words))]
    start = model.embed(order[torch.arange(count) % len(order)])
    return nn.Embedding.from_pretrained(start.detach().clone(), freeze=False)


@prompt_source("static")
class StaticPrompts(PromptSource):
    """One book for all images.

    Args:
        book: N prompts (N, D), see :func:`new_book`.
    """

    own_modules = {"static_book": "book"}
    settings_type = BookSettings

    @classmethod
    def build(cls, row: ReportMethod, settings: BookSettings, model: Surroundings) -> Self:
        """With a new book."""
        return cls(new_book(settings.count, model))

    def __init__(self, book: nn.Embedding) -> None:
        super().__init__()
        self.book, self.count = book, book.num_embeddings

    def forward(self, tokens: Tensor, pooled: Tensor, states: Tensor | None = None) -> PromptOutput:
        """Return the book (B, N, D), whatever the images."""
        return PromptOutput(self.book.weight.expand(len(tokens), -1, -1), {})
