"""AdamW with a pace for each module, its moments kept by the hospital, and the course of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedmrg_core.runs.configuration import Profile, Training
from fedmrg_core.runs.methods import Method


def adamw(groups: Sequence[Any], **settings: float) -> torch.optim.AdamW:
    """AdamW whose step on a CPU is torch's own kernel.

    The other one calls Intel's vector library for its root, which rounds otherwise from processor to processor; this
    one's root is exact, and it reads every tensor once.

    Args:
        groups: parameters, or groups of them.
        settings: of `torch.optim.AdamW`.
    """
    parameters = [p for group in groups for p in (group["params"] if isinstance(group, dict) else [group])]
    return torch.optim.AdamW(groups, fused=all(p.device.type == "cpu" for p in parameters), **settings)


def build_optimiser(
    trainable: Mapping[str, nn.Parameter],
    settings: Training,
    method: Method,
    moments: Mapping[str, Tensor] | None = None,
) -> torch.optim.AdamW:
    """AdamW over parameters keyed ``module/name``, one group a module.

    Args:
        trainable: what it changes.
        settings: paces and weight decay.
        method: its `pace_of` each module.
        moments: ``<key>/step``, ``<key>/exp_avg`` and ``<key>/exp_avg_sq`` to go on with; a parameter without starts
            afresh.
    """
    groups = [
        {
            "params": [p for k, p in trainable.items() if k.split("/")[0] == module],
            "pace": method.pace_of(module, settings),
        }
        for module in dict.fromkeys(key.split("/")[0] for key in trainable)
    ]
    groups = [{**group, "lr": group["pace"]} for group in groups]
    optimiser = adamw(groups, weight_decay=settings.weight_decay)
    for key, parameter in trainable.items():
        if moments and f"{key}/step" in moments:
            optimiser.state[parameter] = {
                "step": moments[f"{key}/step"].clone(),  # AdamW keeps its step count on the CPU
                **{name: moments[f"{key}/{name}"].clone().to(parameter.device) for name in ("exp_avg", "exp_avg_sq")},
            }
    return optimiser


def moments_of(optimiser: torch.optim.AdamW, trainable: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies of the optimiser's moments on the CPU, keyed ``<key>/<moment>``."""
    return {
        f"{key}/{name}": moment.detach().cpu().clone()
        for key, parameter in trainable.items()
        for name, moment in optimiser.state.get(parameter, {}).items()
    }


def scheduled_factor(progress: float, profile: Profile) -> float:
    """Linear warm-up, then a cosine to a twentieth over the rounds; `progress` counts rounds from 0 [ours]."""
    warmup, rounds = profile.training.warmup_rounds, profile.federation.rounds
    if progress < warmup:
        return (progress + 0.05) / (warmup + 0.05)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * (progress - warmup) / max(rounds - warmup, 1))) / 2


def set_learning_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Every module's pace times `factor`."""
    for group in optimiser.param_groups:
        group["lr"] = group["pace"] * factor
