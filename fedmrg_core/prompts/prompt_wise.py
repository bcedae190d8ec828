"""MRG-LLM's customised prompts, prompt-wise: an affine pair for each prompt, made of the image.

    g = mean(V)                                V = P(E(x)), (M, D), the image tokens at the LLM's width      [ours]
    (gamma_i, beta_i) = MLP_i(g)               i = 1 .. N, gamma_i and beta_i in R^D                         [ours]
    p_i' = gamma_i o p_i + beta_i              o: number by number                                           [ours]

That learned prompts are customised to each image by conditional affine transformations of visual features, and that
there is a form prompt-wise and one promptbook-wise, is the paper's [paper]; its equations are not at hand. In detail

    MLP_i(g) = (1 + u_i, s v_i),    (u_i, v_i) = B_i relu(A_i n(g) + a_i) + b_i

with n(g) of mean 0 and variance 1, s the spread of the LLM's embeddings, so that neither what goes in nor what comes
out depends on how small those are, and B_i = b_i = 0 at the start: then gamma = 1 and beta = 0 exactly, and the prompts
are those of the static book [ours].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import pydantic
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.prompts.source import PromptOutput, PromptSource, Surroundings, prompt_source
from fedmrg_core.prompts.static import BookSettings, new_book

if TYPE_CHECKING:
    from fedmrg_core.tasks.reports.methods import ReportMethod


class AffineSettings(BookSettings):
    """N, and how wide the affine network is."""

    width: int = pydantic.Field(32, gt=0)  # numbers of its hidden layer, for each pair [ours]


class AffineNetwork(nn.Module):
    """MLP_1 .. MLP_K side by side: K pairs (gamma, beta) of a feature.

    Args:
        pairs: K.
        width: D.
        hidden: numbers of each hidden layer.
        scale: s, which beta is counted in.
    """

    def __init__(self, pairs: int, width: int, hidden: int, scale: float = 1.0) -> None:
        super().__init__()
        self.pairs, self.scale = pairs, scale
        self.enter = nn.Linear(width, pairs * hidden)  # A_1 .. A_K read the same feature: one matrix
        self.leave = nn.Parameter(torch.zeros(pairs, hidden, 2 * width))
        self.bias = nn.Parameter(torch.zeros(pairs, 2 * width))

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Return gamma and beta, (B, K, D) each, of features (B, D)."""
        entered = self.enter(functional.layer_norm(feature, feature.shape[-1:]))
        hidden = entered.unflatten(-1, (self.pairs, -1)).relu()  # (B, K, hidden)
        u, v = (torch.einsum("bkh,khd->bkd", hidden, self.leave) + self.bias).chunk(2, dim=-1)
        return 1 + u, self.scale * v


@prompt_source("prompt-wise")
class PromptWise(PromptSource):
    """A book of prompts, each changed by a pair of its own.

    Args:
        book: N prompts (N, D).
        network: makes N pairs, or one for all prompts.
    """

    own_modules = {"prompt_wise_book": "book", "prompt_wise_network": "network"}
    settings_type = AffineSettings

    @classmethod
    def build(cls, row: ReportMethod, settings: AffineSettings, model: Surroundings) -> Self:
        """With a new book, unchanged at the start."""
        book = new_book(settings.count, model)
        return cls(book, AffineNetwork(cls.pairs(settings.count), model.width, settings.width, model.scale))

    @staticmethod
    def pairs(count: int) -> int:
        """How many pairs there are for so many prompts."""
        return count

    def __init__(self, book: nn.Embedding, network: AffineNetwork) -> None:
        super().__init__()
        self.book, self.network, self.count = book, network, book.num_embeddings

    def forward(self, tokens: Tensor, pooled: Tensor, states: Tensor | None = None) -> PromptOutput:
        """Return N prompts an image, and `gamma` and `beta`, (B, K, D) each."""
        gamma, beta = self.network(tokens.mean(dim=1))
        return PromptOutput(gamma * self.book.weight + beta, {"gamma": gamma, "beta": beta})
