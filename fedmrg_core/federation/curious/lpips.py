"""LPIPS, an extra where its weights are: how unlike two images look, by AlexNet's features [related: Zhang 2018].

    sum over layers of  mean over places of  w (a - b)^2        a, b: features of unit length along their channels

The weights are published as pickles, which nothing here opens; docs/what_updates_give_away.md says how to write them as
safetensors. Their names are those of the authors' package.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from fedmrg_core.errors import InputError

# Of each of AlexNet's convolutions: its name, stride and padding, and whether a pool of 3 stands before it.
_LAYERS = (
    ("net.slice1.0", 4, 2, False),
    ("net.slice2.3", 1, 2, True),
    ("net.slice3.6", 1, 1, True),
    ("net.slice4.8", 1, 1, False),
    ("net.slice5.10", 1, 1, False),
)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of colours from -1 to 1
_TINY = 1e-10
_REMEDY = "write it as docs/what_updates_give_away.md shows"


class Lpips:
    """The distance, with weights of a file."""

    def __init__(self, path: pathlib.Path | str, device: torch.device | str = "cpu") -> None:
        """Read the weights.

        Args:
            path: a safetensors file with AlexNet's convolutions and the weights of their channels.
            device: where the images are.

        Raises:
            InputError: the file is missing, no safetensors file, or lacks a tensor.
        """
        try:
            tensors = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"{path}: no readable safetensors file with LPIPS's weights; {_REMEDY}.") from error
        wanted = [f"{name}.{part}" for name, *_ in _LAYERS for part in ("weight", "bias")]
        wanted += [f"lin{number}.model.1.weight" for number in range(len(_LAYERS))]
        missing = [name for name in wanted if name not in tensors]
        if missing:
            raise InputError(f"{path}: tensor {missing[0]!r} of LPIPS with AlexNet is missing; {_REMEDY}.")
        self._weights = {name: tensors[name].float().to(device) for name in wanted}

    def __call__(self, found: Tensor, truth: Tensor) -> Tensor:
        """The distance (B,) of images (B, 1 or 3, H, W) in [0, 1], at least 31 pixels on each edge; 0 is the same."""
        with torch.no_grad():
            pairs = zip(self._features(found), self._features(truth), strict=True)
            return sum(
                functional.conv2d((one - other).square(), self._weights[f"lin{number}.model.1.weight"]).mean((1, 2, 3))
                for number, (one, other) in enumerate(pairs)
            )

    def _features(self, images: Tensor) -> Iterator[Tensor]:
        shift, scale = (images.new_tensor(values)[None, :, None, None] for values in (_SHIFT, _SCALE))
        flow = (2 * images.expand(-1, 3, -1, -1) - 1 - shift) / scale
        for name, stride, padding, pooled in _LAYERS:
            flow = functional.max_pool2d(flow, 3, 2) if pooled else flow
            weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
            flow = functional.conv2d(flow, weight, bias, stride, padding).relu()
            yield flow / (flow.square().sum(dim=1, keepdim=True).sqrt() + _TINY)
