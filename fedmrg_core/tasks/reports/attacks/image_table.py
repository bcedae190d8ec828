"""The table of images that come back from one update of a report model, all that travels, beside the floors.

The attacker is told reports and findings of the batch, in his favour. Where BatchNorm's statistics travel, one local
step gives those of the batch away to the digit, m the momentum:

    batch = before + (after - before) / m

They are a prior on the images that the search looks for [related: Yin 2021, there with running statistics].
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import pandas
import torch
from torch import Tensor, nn

from fedmrg_core.federation.curious.defences import DEFENCES, check_defences
from fedmrg_core.federation.curious.image_scores import floors, matched
from fedmrg_core.federation.curious.inversion import Attack, Inverted, Prior, attack_draws, invert_update
from fedmrg_core.federation.curious.perceptual import Scores, scores_of
from fedmrg_core.federation.curious.recomputed import recomputed_update, sent_by
from fedmrg_core.tasks.reports.attacks.attacked import KNOWN_STUDIES, Attacked, BatchLoss, open_attacked
from fedmrg_core.tasks.reports.batch import Batch

MATCHED, WITH_STATISTICS = "matching", "matching, statistics"
STATISTICS_WEIGHT = 10.0  # of the prior; chosen on a run of profile smoke [ours]
COLUMNS = ("method", "defence", "batch", "steps", "rebuilt_by", "psnr", "ssim", "perceptual", "distance")


def attack_images(
    run_folder: pathlib.Path,
    attack: Attack,
    batches: Sequence[int] = (1, 4),
    seed: int = 0,
    defences: Sequence[str] = ("none",),
    lpips: pathlib.Path | str = "",
) -> pandas.DataFrame:
    """Attack the first hospital of a run, whose model is the chosen one.

    Args:
        run_folder: finished.
        attack: the budget.
        batches: numbers of studies of an update.
        seed: draws studies, noise and floors.
        defences: names in `DEFENCES`: what the hospital does to its update. Its statistics stay as they are.
        lpips: a file with LPIPS's weights, for a column more; empty: none.

    Returns:
        `COLUMNS`, and `lpips` where it is asked for: means over a batch's images; distance is blank but for matching.

    Raises:
        InputError: see `open_attacked`; a defence is unknown, a batch is larger than a hospital, or nothing travels.
    """
    check_defences(defences)
    attacked = open_attacked(run_folder)
    attacked.check_batches(batches)
    scored = scores_of("reports", attacked.own.batch([0]).images.device, lpips)
    rows = [
        {"defence": name, "batch": count, **row}
        for count in batches
        for name in defences
        for row in _rows(attacked, scored, count, attack, seed, name)
    ]
    method = attacked.task.configuration.method.name
    table = pandas.DataFrame(rows).assign(method=method, steps=attack.steps)
    return table.reindex(columns=[*COLUMNS, *(["lpips"] if lpips else [])])


def _rows(
    attacked: Attacked, scored: Scores, count: int, attack: Attack, seed: int, defence: str
) -> Iterator[dict[str, object]]:
    known = attacked.known.batch(range(min(KNOWN_STUDIES, len(attacked.known)))).images
    batch = attacked_batch(attacked, count, seed)
    rebuilt, distances = {}, {}
    for name, found in rebuild(attacked, batch, known.mean(dim=0), attack, seed, defence).items():
        rebuilt[name], distances[name] = matched(found.pixels, batch.images), {"distance": found.distance}
    rebuilt |= floors(known, batch.images, attack_draws(seed, "floors", str(count)))
    for name, images in rebuilt.items():
        yield {"rebuilt_by": name, **scored(images, batch.images).mean().to_dict(), **distances.get(name, {})}


def attacked_batch(attacked: Attacked, count: int, seed: int) -> Batch:
    """The studies whose update is attacked."""
    order = torch.randperm(len(attacked.own), generator=attack_draws(seed, "studies"))
    return attacked.own.batch(order[:count].tolist())


def rebuild(
    attacked: Attacked, batch: Batch, start: Tensor, attack: Attack, seed: int, defence: str = "none"
) -> dict[str, Inverted]:
    """`Inverted` images by the name of the search, with BatchNorm's statistics where they travel and show the batch.

    Args:
        attacked: see `open_attacked`.
        batch: whose update is seen.
        start: (1, H, W), where the search begins.
        attack: the budget.
        seed: draws the noise.
        defence: a name in `DEFENCES`.
    """
    loss, sent = BatchLoss(attacked), sent_by(attacked.model)
    layers = _norm_layers(attacked)

    def update(images: Tensor, differentiable: bool = True) -> dict[str, Tensor]:
        shown = dataclasses.replace(batch, images=images)
        return recomputed_update(loss, sent, (shown,), attack.steps, attack.pace, differentiable)

    with _as_in_training(layers):
        plain = update(batch.images, differentiable=False)
        seen = DEFENCES[defence].sent(plain, attack_draws(seed, "defence", str(len(batch.images))))
        priors: dict[str, Prior | None] = {MATCHED: None}
        if attack.steps == 1 and layers and attacked.task.shared_buffers():
            priors[WITH_STATISTICS] = _statistics_prior(attacked, layers, batch.images)
        noise = str(len(batch.images))
        return {
            name: invert_update(
                update, seen, len(batch.images), start, attack, attack_draws(seed, "noise", noise), prior
            )
            for name, prior in priors.items()
        }


def _norm_layers(attacked: Attacked) -> list[nn.Module]:
    return [layer for layer in attacked.model.encoder.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


@contextlib.contextmanager
def _as_in_training(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, BatchNorm takes the batch's statistics, as it does when a hospital trains, and keeps its own."""
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.train()
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.eval()
            layer.momentum = momentum


def _statistics_prior(attacked: Attacked, layers: Sequence[nn.Module], images: Tensor) -> Prior:
    """How far means and variances of found images are from those that the batch's statistics gave away."""
    with torch.no_grad():
        told = _statistics(attacked, layers, images)

    def prior(pixels: Tensor) -> Tensor:
        parts = [
            ((mean - true_mean).pow(2) + (variance - true_variance).abs()).mean() / true_variance.mean()
            for (mean, variance), (true_mean, true_variance) in zip(
                _statistics(attacked, layers, pixels), told, strict=True
            )
        ]
        return STATISTICS_WEIGHT * torch.stack(parts).mean()

    return prior


def _statistics(attacked: Attacked, layers: Sequence[nn.Module], images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance (C,) of what each layer normalises."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        places = (0, *range(2, inputs[0].dim()))
        found.append((inputs[0].mean(places), inputs[0].var(places)))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        attacked.model.encoder(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found
