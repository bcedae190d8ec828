"""MRG-LLM's customised prompts, promptbook-wise: one affine pair for the whole book, made of the image.

    (gamma, beta) = MLP(g),    p_i' = gamma o p_i + beta,    g = mean(V)                                     [ours]

That there is such a form is the paper's [paper]; the rest is as in `prompt_wise`, which has N pairs instead of one.
"""

from __future__ import annotations

from fedmrg_core.prompts.prompt_wise import PromptWise
from fedmrg_core.prompts.source import prompt_source


@prompt_source("promptbook-wise")
class PromptbookWise(PromptWise):
    """A book of prompts, all changed by the same pair."""

    own_modules = {"promptbook_wise_book": "book", "promptbook_wise_network": "network"}

    @staticmethod
    def pairs(count: int) -> int:
        """One, however many prompts there are."""
        return 1
