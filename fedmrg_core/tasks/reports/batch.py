"""A batch of studies as the models of the report task read it, and the loss of a report's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import transformers
from torch import Tensor
from torch.nn import functional

from fedmrg_core.runs.configuration import Training

# What stands before every report; the small base LLM learns it in pretraining, a large one understands it.
INSTRUCTION = "Findings:"


@dataclasses.dataclass(frozen=True)
class Batch:
    """B studies, ready for the model."""

    images: Tensor  # (B, 1, H, W) in [0, 1]
    states: Tensor  # (B, 14) true states
    report_ids: Tensor  # (B, T) token ids ending in </s>, padded on the right
    report_mask: Tensor  # (B, T) true where there is a token


@dataclasses.dataclass(frozen=True)
class Contrast:
    """What the client-aware contrast compares a batch with."""

    h_global: Tensor  # (B, D) the global encoder's features of the same images
    prototypes: Tensor  # (K, D); K = 0 before the first prototypes have come
    own: int  # this client's row in prototypes, -1 if it has none yet


def encode_reports(
    tokenizer: transformers.PreTrainedTokenizerBase, texts: Sequence[str], settings: Training
) -> list[list[int]]:
    """Token ids of the reports, at most `max_report_tokens` each (training only; references are never cut) and </s>."""
    ids = tokenizer([" " + text for text in texts], add_special_tokens=False).input_ids
    return [row[: settings.max_report_tokens - 1] + [tokenizer.eos_token_id] for row in ids]


def pad_reports(rows: Sequence[list[int]], padding: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids padded on the right, and the (B, T) mask."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [padding] * (length - len(row)) for row in rows])
    mask = torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]
    return ids, mask


def language_loss(logits: Tensor, report_ids: Tensor, report_mask: Tensor) -> Tensor:
    """L_LM: mean negative log-likelihood of the report tokens.

    Args:
        logits: (B, T, vocabulary).
        report_ids: (B, T).
        report_mask: (B, T).
    """
    return functional.cross_entropy(logits[report_mask], report_ids[report_mask])
