"""The client-aware contrast: what makes the encoder's feature generalise globally and stay locally distinctive [paper].

Two InfoNCE terms [secondary] on h = P(z), the projected pooled feature of `encoder`:

    L_inter = -log softmax_k( cos(h, mu_k) / tau )        pull to the own client's prototype, push from the others'
    L_intra = -log softmax_j( cos(h_i, h_j^global) / tau )_i   the frozen global encoder's feature of the same image

Their exact form, and h being the projected pooled feature, are ours [ours].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def inter_client_contrast(h: Tensor, prototypes: Tensor, own: int, temperature: float) -> Tensor:
    """L_inter: h against the prototypes of all clients [secondary; form ours].

    Args:
        h: (B, D) features.
        prototypes: (K, D), row k the mean feature mu_k of client k.
        own: the row of this client.
        temperature: tau > 0.

    Returns:
        A scalar, the mean over the batch.
    """
    cosines = functional.normalize(h, dim=-1) @ functional.normalize(prototypes, dim=-1).T  # (B, K)
    return functional.cross_entropy(cosines / temperature, torch.full((len(h),), own, device=h.device))


def intra_client_contrast(h: Tensor, h_global: Tensor, temperature: float) -> Tensor:
    """L_intra: InfoNCE between h and the frozen global encoder's features of the same images [related; form ours].

    Args:
        h: (B, D) features of the encoder in training.
        h_global: (B, D) features of the encoder as it arrived from the server, without gradient.
        temperature: tau > 0.

    Returns:
        A scalar, the mean over the batch.
    """
    cosines = functional.normalize(h, dim=-1) @ functional.normalize(h_global.detach(), dim=-1).T  # (B, B)
    return functional.cross_entropy(cosines / temperature, torch.arange(len(h), device=h.device))
