"""A prompt generator: learned queries that attend to the image, shared by all centres.

    P  = P_g + CrossAttn(Q = P_g, K = V = E)        E (M, D) the image tokens, P_g in R^{L x D} learned       [ours]
    P(x) = P + FFN(P)                                                                                        [ours]

Cross-attention that blends a globally shared task embedding with an image's patches is told of frozen vision models
[secondary]; the paper itself is not identified. One standard block, with a norm before either part and a feed-forward
layer of 4 D, has 7.088 M numbers at D = 768, as that account's upper share of a ViT-B/16 asks for [derived].

Both parts are counted in s, the spread of the LLM's embeddings, and their last layers are zero at the start, so that
P(x) = P_g there, as MRG-LLM's forms start with their book; keys and values are normalised without weights [ours].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import pydantic
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.errors import InputError
from fedmrg_core.prompts.source import PromptOutput, PromptSource, Surroundings, prompt_source
from fedmrg_core.prompts.static import BookSettings, new_book

if TYPE_CHECKING:
    from fedmrg_core.tasks.reports.methods import ReportMethod


class GeneratorSettings(BookSettings):
    """L, here called `count` as everywhere, and the heads of the attention."""

    heads: int = pydantic.Field(4, gt=0)  # they share the width of the tokens [ours]


class CrossAttentionBlock(nn.Module):
    """One standard block: learned queries read tokens, then a feed-forward layer; for any frozen transformer.

    Args:
        width: D.
        heads: of the attention; they divide D.
        scale: s, which both parts are counted in.
    """

    def __init__(self, width: int, heads: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.query_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        for last in (self.attention.out_proj, self.feed_forward[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts (B, L, D) of queries (L, D) and tokens (B, M, D), and where each looked: (B, L, M), mean over heads.

        Attention over the tokens sums to 1.
        """
        asked = self.query_norm(queries).expand(len(tokens), -1, -1)
        read = functional.layer_norm(tokens, tokens.shape[-1:])
        found, attention = self.attention(asked, read, read)
        prompts = queries + self.scale * found
        return prompts + self.scale * self.feed_forward(self.feed_norm(prompts)), attention


@prompt_source("generator")
class PromptGenerator(PromptSource):
    """Prompts that each look for something in the image.

    Args:
        queries: P_g, L prompts (L, D).
        block: see :class:`CrossAttentionBlock`.
    """

    own_modules = {"generator_queries": "queries", "generator_block": "block"}
    settings_type = GeneratorSettings

    @classmethod
    def build(cls, row: ReportMethod, settings: GeneratorSettings, model: Surroundings) -> Self:
        """With queries that start as words of the LLM.

        Raises:
            InputError: the heads do not divide the LLM's width.
        """
        if model.width % settings.heads:
            raise InputError(
                f"method {row.name!r}: prompt_settings.heads: {settings.heads} does not divide {model.width}, the "
                "width of the LLM's embeddings; expected a number that does."
            )
        queries = new_book(settings.count, model)
        return cls(queries, CrossAttentionBlock(model.width, settings.heads, model.scale))

    def __init__(self, queries: nn.Embedding, block: CrossAttentionBlock) -> None:
        super().__init__()
        self.queries, self.block, self.count = queries, block, queries.num_embeddings

    def forward(self, tokens: Tensor, pooled: Tensor, states: Tensor | None = None) -> PromptOutput:
        """Return L prompts an image, and `attention` (B, L, M) over its tokens."""
        prompts, attention = self.block(self.queries.weight, tokens)
        return PromptOutput(prompts, {"attention": attention})
