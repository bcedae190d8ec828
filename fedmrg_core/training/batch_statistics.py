"""BatchNorm statistics where images differ between centres: each keeps its own, the server pools them for unseen ones.

In training BatchNorm divides by the statistics of a client's own batch; a model averaged over clients and read with the
mean of their statistics sees none of their examples as it saw them in training. So

- at home the shared weights are read with the client's own running statistics [related: SiloBN, Andreux et al. 2020;
  FedBN, Li et al. 2021, which keeps the affine parameters at home too];
- a centre that never trained gets the statistics of all clients' examples together, by the law of total variance: the
  mean of the variances lacks how far the clients' means lie apart [ours].

That holds for every model with such layers. Where sites are small and look alike, own running statistics are more
noise than knowledge: with `training.own_statistics: false` every client reads the pooled ones. What each was worth, and
that statistics estimated on an unseen centre's own examples [related: AdaBN, Li et al. 2016] were no better in the end:
docs/tried.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

MEAN, VARIANCE = "running_mean", "running_var"


def is_statistic(key: str) -> bool:
    """Whether a tensor's name is that of a BatchNorm mean or variance."""
    return key.replace("/", ".").rpartition(".")[2] in (MEAN, VARIANCE)  # a module may be the layer itself


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
        if not key.endswith(MEAN):
            continue
        variance_key = key.removesuffix(MEAN) + VARIANCE
        means, variances = (torch.stack([c[name].double() for c in clients]) for name in (key, variance_key))
        shares = torch.tensor(weights, dtype=torch.double)[:, None]
        mean = (shares * means).sum(dim=0)
        variance = (shares * (variances + (means - mean) ** 2)).sum(dim=0)
        found |= {key: mean.to(clients[0][key].dtype), variance_key: variance.to(clients[0][key].dtype)}
    return found
