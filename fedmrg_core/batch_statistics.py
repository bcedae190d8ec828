"""BatchNorm statistics where images differ between centres: each keeps its own, the server pools them for strangers.

In training BatchNorm divides by the statistics of a client's own batch; a model averaged over clients and read with the
mean of their statistics sees none of their images as it saw them in training. So

- at home the shared weights are read with the client's own running statistics [related: SiloBN, Andreux et al. 2020;
  FedBN, Li et al. 2021, which keeps the affine parameters at home too];
- a centre that never trained gets the statistics of all clients' images together, by the law of total variance: the
  mean of the variances lacks how far the clients' means lie apart [ours];
- a centre that joins with studies of its own estimates them anew on those images [related: AdaBN, Li et al. 2016].

That holds for every method with such an encoder. What it was worth: docs/tried.md [ours].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

_MEAN, _VARIANCE = "running_mean", "running_var"


def is_statistic(key: str) -> bool:
    """Whether a tensor's name is that of a BatchNorm mean or variance."""
    return key.rpartition(".")[2] in (_MEAN, _VARIANCE)


def pooled_statistics(clients: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """Means and variances of all clients' activations together.

    Args:
        clients: each client's statistics by name, alike in names and shapes; other tensors are not looked at.
        weights: each client's share; they sum to one.

    Returns:
        mean = sum_k w_k mean_k and var = sum_k w_k (var_k + (mean_k - mean)^2), in the clients' own precision.
    """
    found = {}
    for key in filter(is_statistic, clients[0]):
        if not key.endswith(_MEAN):
            continue
        variance_key = key.removesuffix(_MEAN) + _VARIANCE
        means, variances = (torch.stack([c[name].double() for c in clients]) for name in (key, variance_key))
        shares = torch.tensor(weights, dtype=torch.double)[:, None]
        mean = (shares * means).sum(dim=0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(dim=0)
        found |= {key: mean.to(clients[0][key].dtype), variance_key: variance.to(clients[0][key].dtype)}
    return found


@torch.no_grad()
def estimate_statistics(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give an encoder's BatchNorm layers the statistics of these images, in place; each batch counts alike.

    Args:
        encoder: without BatchNorm layers nothing changes.
        batches: (B, 1, H, W) images.
    """
    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    training, momenta = encoder.training, [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch then takes the mean over all batches
    encoder.train()
    for images in batches:
        encoder(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    encoder.train(training)
