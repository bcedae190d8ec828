"""How near rebuilt images are to those of the client, and what comes out without any update: the floors.

PSNR and SSIM are MONAI's. The perceptual distance is between what a frozen network sees in both, 1 - cosine of its
output; the network is none that is attacked, see `perceptual` [ours]. LPIPS stands beside it where its weights are. The
order of a batch is not in its update, so found images are matched to true ones in the way that is nearest in all;
floors are matched alike [ours].
"""

from __future__ import annotations

from collections.abc import Callable

import pandas
import scipy.optimize
import torch
from torch import Tensor
from torch.nn import functional

MEAN_IMAGE, RANDOM_IMAGE = "mean image", "random training image"
BEST = 100.0  # dB, of equal images


def matched(found: Tensor, truth: Tensor) -> Tensor:
    """Found images (N, C, H, W) in the order of the true ones (B, C, H, W), N at least B, each used once."""
    errors = (truth[:, None] - found[None]).pow(2).flatten(2).mean(dim=2)
    rows, columns = scipy.optimize.linear_sum_assignment(errors.double().numpy())
    return found[torch.as_tensor(columns)[torch.as_tensor(rows).argsort()]]


def likeness(
    found: Tensor,
    truth: Tensor,
    frozen: Callable[[Tensor], Tensor] | None = None,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> pandas.DataFrame:
    """Columns `psnr` (dB), `ssim` and, where what they need is given, `perceptual` and `lpips`; a row a true image.

    Args:
        found: (B, C, H, W) in [0, 1].
        truth: likewise, in the same order.
        frozen: gives (B, ...) of images; their distance is from 0, the same, to 2.
        lpips: see :class:`fedmrg_core.federation.curious.lpips.Lpips`; from 0, the same, upwards.
    """
    from monai.metrics import PSNRMetric, SSIMMetric  # its import takes seconds

    noise = PSNRMetric(max_val=1.0)(found, truth).flatten().clamp(max=BEST)
    alike = SSIMMetric(spatial_dims=2, data_range=1.0)(found, truth).flatten()
    table = pandas.DataFrame({"psnr": noise.numpy(), "ssim": alike.numpy()})
    with torch.no_grad():
        if frozen is not None:
            one, other = (frozen(images).flatten(1) for images in (found, truth))
            table["perceptual"] = (1 - functional.cosine_similarity(one, other)).numpy()
        if lpips is not None:
            table["lpips"] = lpips(found, truth).numpy()
    return table


def floors(known: Tensor, truth: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """What an attacker says who saw no update: (B, C, H, W) each, by name.

    Args:
        known: pictures that are not of the batch, at least B.
        truth: of the batch, for its size and for matching alone.
        generator: draws the random ones.
    """
    chosen = torch.randperm(len(known), generator=generator)[: len(truth)]
    mean = known.mean(dim=0, keepdim=True).expand(len(truth), -1, -1, -1)
    return {MEAN_IMAGE: mean, RANDOM_IMAGE: matched(known[chosen], truth)}
