"""FedMRG's diagnosis prompts, and the loss of the head that they come from.

A head predicts one of four states for each of n findings [paper]; the states look up an n x 4 table of trainable
prompts [secondary]. True states in training, predicted ones at inference, and the logit adjustment of the positive
state are PromptMRG's [related].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.data.findings import BLANK, FINDINGS, NO_FINDING, POSITIVE, STATES, SUPPORT_DEVICES, UNCERTAIN
from fedmrg_core.prompts.source import (
    PromptOutput,
    PromptSettings,
    PromptSource,
    SeenReports,
    Surroundings,
    prompt_source,
)

if TYPE_CHECKING:
    from fedmrg_core.tasks.reports.methods import ReportMethod

# The smallest p_d of the logit adjustment: log(0.05) = -3, so that a finding never met cannot rule the loss [ours].
SMALLEST_DISEASE_WEIGHT = 0.05


@prompt_source("diagnosis", "soft-diagnosis")
class DiagnosisPrompts(PromptSource):
    """A 4-state diagnosis head and the table of prompts its states look up.

    Args:
        visual_width: d_v.
        phrases: (56, D), the table at the start: :func:`phrase_embeddings` of the LLM [ours].
        soft: a finding's prompt is the mean of its four rows under the predicted probabilities, in training as at
            inference, so that the LLM is trained on the prompts it will get and teaches the head through them [ours].
        predicted_share: the share of studies, drawn anew in every step, whose given states give way to the predicted
            ones in training, so that the LLM meets wrong prompts before inference [ours].
    """

    own_modules = {"diagnosis_head": "head", "prompt_table": "table"}
    encoder_paced = frozenset({"diagnosis_head"})
    own_losses = ("classification",)
    count = len(FINDINGS)

    @classmethod
    def build(cls, row: ReportMethod, settings: PromptSettings, model: Surroundings) -> Self:
        """With the LLM's own words at the start; `predicted_prompts` of the row is the predicted share."""
        phrases = phrase_embeddings(model.tokenizer, model.embed)
        return cls(model.visual_width, phrases, row.prompts == "soft-diagnosis", row.predicted_prompts)

    def __init__(self, visual_width: int, phrases: Tensor, soft: bool = False, predicted_share: float = 0.0) -> None:
        super().__init__()
        self.soft, self.predicted_share = soft, predicted_share
        self.head = nn.Linear(visual_width, len(FINDINGS) * len(STATES))
        self.table = nn.Embedding.from_pretrained(phrases.detach().clone(), freeze=False)
        rows = torch.arange(len(FINDINGS)) * len(STATES)
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, tokens: Tensor, pooled: Tensor, states: Tensor | None = None) -> PromptOutput:
        """Return 14 prompts an image, and `state_logits` (B, 14, 4) and `states` (B, 14), those of the prompts.

        Hard prompts are the rows of `states`; soft ones take no notice of given states.
        """
        logits = self.head(pooled).unflatten(-1, (len(FINDINGS), len(STATES)))
        predicted = consistent_states(logits.argmax(dim=-1))
        if states is None:
            states = predicted
        elif self.training and self.predicted_share:
            given = torch.rand(len(states), 1) >= self.predicted_share
            states = torch.where(given.to(states.device), states, predicted)
        auxiliary = {"state_logits": logits, "states": states}
        if self.soft:
            table = self.table.weight.unflatten(0, (len(FINDINGS), len(STATES)))  # (14, 4, D)
            return PromptOutput(torch.einsum("bns,nsd->bnd", logits.softmax(dim=-1), table), auxiliary)
        return PromptOutput(self.table(self.rows + states), auxiliary)

    def loss_terms(self, output: PromptOutput, seen: SeenReports) -> dict[str, Tensor]:
        """``classification``, see :func:`classification_loss`."""
        logits, strength = output.auxiliary["state_logits"], seen.settings.logit_adjustment
        return {"classification": classification_loss(logits, seen.batch.states, seen.disease_weights, strength)}


def consistent_states(states: Tensor) -> Tensor:
    """The states with "no finding" as its definition has it: the head predicts it apart, and contradicts itself [ours].

    Args:
        states: (N, 14) most likely states.

    Returns:
        (N, 14): "no finding" positive exactly where nothing but support devices is positive or uncertain, else blank.
    """
    told = (states == POSITIVE) | (states == UNCERTAIN)
    told[:, [NO_FINDING, SUPPORT_DEVICES]] = False
    states = states.clone()
    states[:, NO_FINDING] = torch.where(told.any(dim=1), BLANK, POSITIVE)
    return states


def phrase_embeddings(tokenizer: transformers.PreTrainedTokenizerBase, embed: Callable[[Tensor], Tensor]) -> Tensor:
    """A vector for each finding and state, (14 * 4, D), findings outermost: mean embedding of the words of both [ours].

    The mean embedding of the finding's tokens and that of the state's tokens are averaged, so that a long name does not
    drown its state. Prompts that start as words the LLM knows steer it from the first round on.
    """

    def mean(text: str) -> Tensor:
        return embed(torch.tensor(tokenizer(f" {text}", add_special_tokens=False).input_ids)).mean(dim=0)

    findings, states = ([mean(name) for name in names] for names in (FINDINGS, STATES))
    return torch.stack([(finding + state) / 2 for finding in findings for state in states])


def classification_loss(state_logits: Tensor, states: Tensor, disease_weights: Tensor, strength: float = 1.0) -> Tensor:
    """L_cls: cross-entropy over the 4 states, log p_d added to the positive state's logit [related: PromptMRG].

    Args:
        state_logits: (B, 14, 4).
        states: (B, 14) true states.
        disease_weights: (14,) p_d in (0, 1].
        strength: log p_d is multiplied by it; 1 is PromptMRG's, less keeps the head from crying wolf where findings are
            very rare [ours].

    Returns:
        A scalar, the mean over images and findings.
    """
    adjustment = torch.zeros_like(state_logits[0])
    adjustment[:, POSITIVE] = strength * disease_weights.log()
    return functional.cross_entropy((state_logits + adjustment).flatten(0, 1), states.flatten())


def initial_disease_weights(states: Tensor) -> Tensor:
    """p_d at the start: each finding's base rate divided by the largest [related].

    Args:
        states: (N, 14) true states of the client's training studies.

    Returns:
        (14,) weights in [SMALLEST_DISEASE_WEIGHT, 1].
    """
    rates = (states == POSITIVE).double().mean(dim=0)
    return _relative(rates)


def updated_disease_weights(weights: Tensor, predicted: Tensor, states: Tensor) -> Tensor:
    """p_d after a validation: halfway from the old one to each finding's F1 divided by the best F1.

    That p_d follows each validation is PromptMRG's idea of a learning status [related]; F1 as its measure and the half
    step, which keeps a small validation set from throwing the weights about, are ours [ours]. Findings without a
    positive validation study keep their weight.

    Args:
        weights: (14,) the old p_d.
        predicted: (N, 14) predicted states of the validation studies.
        states: (N, 14) true states.
    """
    hit = ((predicted == POSITIVE) & (states == POSITIVE)).sum(dim=0).double()
    false = ((predicted == POSITIVE) != (states == POSITIVE)).sum(dim=0).double()
    f1 = 2 * hit / (2 * hit + false).clamp(min=1)
    if f1.max() == 0:
        return weights
    seen = (states == POSITIVE).any(dim=0)
    return torch.where(seen, (weights + _relative(f1)) / 2, weights)


def _relative(values: Tensor) -> Tensor:
    return (values / values.max().clamp(min=1e-12)).clamp(min=SMALLEST_DISEASE_WEIGHT).float()
