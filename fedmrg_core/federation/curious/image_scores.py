"""How near rebuilt images are to those of the client, and what comes out without any update: the floors.

PSNR and SSIM are MONAI's. The perceptual distance is between what a frozen network sees in both, 1 - cosine of its
output; the network is none that is attacked, see `perceptual` [ours; LPIPS needs weights that are not here]. The order
of a batch is not in its update, so found images are matched to true ones in the way that is nearest in all; floors are
matched alike [ours].
"""

from __future__ import annotations

from collections.abc import Callable

import pandas
import scipy.optimize
import torch
from torch import Tensor
from torch.nn import functional

MEASURES = {"psnr": "PSNR, dB", "ssim": "SSIM", "perceptual": "perceptual distance"}
MEAN_IMAGE, RANDOM_IMAGE = "mean image", "random training image"
BEST = 100.0  # dB, of equal images


def matched(found: Tensor, truth: Tensor) -> Tensor:
    """Found images (N, C, H, W) in the order of the true ones (B, C, H, W), N at least B, each used once."""
    errors = (truth[:, None] - found[None]).pow(2).flatten(2).mean(dim=2)
    rows, columns = scipy.optimize.linear_sum_assignment(errors.double().numpy())
    return found[torch.as_tensor(columns)[torch.as_tensor(rows).argsort()]]


def likeness(found: Tensor, truth: Tensor, frozen: Callable[[Tensor], Tensor] | None = None) -> pandas.DataFrame:
    """Columns `psnr` (dB), `ssim` and, with a frozen network, `perceptual` (0 to 2, 0 is the same); a row a true image.

    Args:
        found: (B, C, H, W) in [0, 1].
        truth: likewise, in the same order.
        frozen: gives (B, ...) of images.
    """
    from monai.metrics import PSNRMetric, SSIMMetric  # its import takes seconds

    noise = PSNRMetric(max_val=1.0)(found, truth).flatten().clamp(max=BEST)
    alike = SSIMMetric(spatial_dims=2, data_range=1.0)(found, truth).flatten()
    table = pandas.DataFrame({"psnr": noise.numpy(), "ssim": alike.numpy()})
    if frozen is None:
        return table
    with torch.no_grad():
        one, other = (frozen(images).flatten(1) for images in (found, truth))
    return table.assign(perceptual=(1 - functional.cosine_similarity(one, other)).numpy())


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
