"""The contrast between images and reports of WCL and DCL.

An image and its report belong together, the image and any other report of the batch do not; w weighs such negatives:

    L = -log( e^(s_ii / tau) / (e^(s_ii / tau) + sum_(j != i) w_ij e^(s_ij / tau)) ),    s the cosine

and the same from report to image; their mean. WCL [related: Yan et al. 2021] gives negatives of the same cluster of
reports more weight, because they are the ones to learn from. Ours weighs by the findings instead of by clusters
[ours]: w goes from 1, no finding in common, to HARDEST, all findings alike. DCL's [related: Li et al. 2023] has w = 1;
its momentum encoders and queues are left out, and its second loss, the matching of image and report [ours]. In both,
the same report word for word is no negative [ours].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.data.findings import BLANK

HARDEST = 2.0  # weight of a negative whose findings are all the same, in WCL [ours]


class ContrastHeads(nn.Module):
    """Bring images and reports into one space.

    Args:
        width: D, of both.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.report = nn.Linear(width, width), nn.Linear(width, width)


def image_report_contrast(images: Tensor, reports: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """L, both directions.

    Args:
        images: (B, D).
        reports: (B, D), row by row of the same studies.
        weights: (B, B) of the negatives, symmetric and at least 0; the diagonal must be 1.
        temperature: tau > 0.

    Returns:
        A scalar, the mean over the batch.
    """
    cosines = functional.normalize(images, dim=-1) @ functional.normalize(reports, dim=-1).T
    logits = cosines / temperature + weights.log()
    own = torch.arange(len(images), device=images.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def negative_weights(states: Tensor, report_ids: Tensor, hardest: float) -> Tensor:
    """Weights w (B, B): 1 to `hardest` by the share of findings alike, 0 for the same report, 1 on the diagonal.

    Args:
        states: (B, 14) true states.
        report_ids: (B, T).
        hardest: weight of a negative with the same findings; 1 weighs all negatives alike.
    """
    same = (report_ids[:, None] == report_ids[None]).all(dim=-1)
    weights = (1 + (hardest - 1) * agreement(states)).masked_fill(same, 0.0)
    return weights.fill_diagonal_(1.0)


def agreement(states: Tensor) -> Tensor:
    """Share of alike states (B, B) among the findings that either of two reports speaks of; 1 if there is none."""
    one, other = states[:, None], states[None]
    spoken_of = (one != BLANK) | (other != BLANK)  # (B, B, 14)
    alike, count = ((one == other) & spoken_of).sum(dim=-1), spoken_of.sum(dim=-1)
    return torch.where(count > 0, alike / count.clamp(min=1), 1.0)
