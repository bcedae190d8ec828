"""The visual encoder E and the projection P.

An image x becomes tokens V = E(x) and a pooled feature z = mean(V) [paper]; P maps both to the width of the LLM.
The feature that clients are compared by is h = P(z) [ours]; see `contrast`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Collection

import torch
import transformers
from torch import Tensor, nn

from fedmrg_core.errors import InputError
from fedmrg_core.training.grey_levels import grey_levels
from fedmrg_core.training.pretrained import load_configuration, load_pretrained, told

USUAL_SIZE = 224
# Masked autoencoders, which hide patches at random in every pass, and the configuration that reads their encoder whole.
UNMASKED = {"vit_mae": transformers.ViTConfig}


@dataclasses.dataclass(frozen=True)
class VisualFeatures:
    """What the encoder sees in a batch of images."""

    tokens: Tensor  # (B, M, d_v)
    pooled: Tensor  # (B, d_v), the mean of the tokens


class VisualEncoder(nn.Module):
    """Any Hugging Face vision backbone as E(x): feature maps and token sequences come out alike.

    Args:
        backbone: a vision model whose output has `last_hidden_state`, (B, C, H', W') or (B, M, C).
        mean: grey level that becomes zero, in [0, 1].
        deviation: grey levels that become one.
    """

    def __init__(self, backbone: transformers.PreTrainedModel, mean: float = 0.5, deviation: float = 0.25) -> None:
        super().__init__()
        self.backbone = backbone
        self.mean, self.deviation = mean, deviation
        self.channels = getattr(backbone.config, "num_channels", 3)

    @functools.cached_property
    def width(self) -> int:
        """d_v, the width of a visual token, measured: configurations name it in many ways, or not at all."""
        return self.token_shape(self.native_size)[1]

    @property
    def native_size(self) -> int:
        """Pixels along an edge of the images that the backbone was made for; 224 where it does not say."""
        size = getattr(self.backbone.config, "image_size", None) or USUAL_SIZE
        return size if isinstance(size, int) else max(size)

    @torch.no_grad()
    def token_shape(self, image_size: int) -> tuple[int, int]:
        """M and d_v: how many tokens an image of so many pixels becomes, and how wide they are."""
        modes = {module: module.training for module in self.backbone.modules()}
        self.backbone.eval()  # in training mode this pass would change BatchNorm's statistics
        device = next(self.backbone.parameters()).device
        shape = self(torch.zeros(1, 1, image_size, image_size, device=device)).tokens.shape
        for module, training in modes.items():
            module.training = training
        return shape[1], shape[2]

    def forward(self, images: Tensor) -> VisualFeatures:
        """Encode grey images.

        Args:
            images: (B, 1, H, W), grey levels in [0, 1].
        """
        pixels = ((images - self.mean) / self.deviation).expand(-1, self.channels, -1, -1)
        settings = {"interpolate_pos_encoding": True} if self._fits_positions(images) else {}
        hidden = self.backbone(pixel_values=pixels, **settings).last_hidden_state
        tokens = hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden  # (B, M, d_v)
        return VisualFeatures(tokens, tokens.mean(dim=1))

    def _fits_positions(self, images: Tensor) -> bool:
        """Whether the images are of another size than the backbone's, and it can fit its positions to them."""
        other = images.shape[-2:] != (self.native_size, self.native_size)
        return other and "interpolate_pos_encoding" in inspect.signature(self.backbone.forward).parameters


class VisualProjection(nn.Sequential):
    """P: Linear(d_v -> D), then LayerNorm, as in R2GenGPT [related].

    Args:
        visual_width: d_v.
        llm_width: D.
        scale: initial gain of the LayerNorm; the spread of the LLM's own token embeddings, so that visual tokens
            enter the frozen LLM at the size it is used to [ours].
    """

    def __init__(self, visual_width: int, llm_width: int, scale: float = 1.0) -> None:
        super().__init__(nn.Linear(visual_width, llm_width), nn.LayerNorm(llm_width))
        nn.init.constant_(self[1].weight, scale)


def load_encoder(name: str | pathlib.Path) -> VisualEncoder:
    """Load a backbone by hub name or folder, weights from safetensors only.

    Of a model of images and texts (CLIP, SigLIP) it is the image tower; a masked autoencoder is read without masks.
    Grey-level mean and deviation come from the checkpoint's `preprocessor_config.json` where it has one.

    Raises:
        InputError: see `load_pretrained`; or it makes no tokens of an image, or its grey levels make no sense.
    """
    what = "vision backbone"
    config = load_configuration(name, what)
    settings = {}
    if getattr(config, "vision_config", None) is not None:
        settings = {"config": config.vision_config}
    elif config.model_type in UNMASKED:
        settings = {"config": UNMASKED[config.model_type].from_dict(_without_type(config))}
    backbone = load_pretrained(transformers.AutoModel, name, what, needed=_used, **settings)
    encoder = VisualEncoder(backbone, *grey_levels(name))
    try:
        _look_twice(encoder)
    except Exception as error:  # what is no vision model fails in its own way
        raise InputError(
            f"{what}: {name} makes no tokens of an image ({told(error)}); expected a model of images whose output has "
            "last_hidden_state."
        ) from error
    return encoder


def token_count(encoder: VisualEncoder, image_size: int) -> int:
    """M, how many tokens the encoder makes of an image of so many pixels.

    Raises:
        InputError: it cannot read images of that size.
    """
    try:
        return encoder.token_shape(image_size)[0]
    except Exception as error:  # a size that does not fit ends in errors of any class
        raise InputError(
            f"image_size: the vision backbone cannot read images of {image_size} pixels ({told(error)}); it was made "
            f"for {encoder.native_size}."
        ) from error


def _without_type(config: transformers.PretrainedConfig) -> dict[str, object]:
    return {key: value for key, value in config.to_dict().items() if key != "model_type"}


@torch.no_grad()
def _look_twice(encoder: VisualEncoder) -> None:
    size = encoder.native_size
    image = torch.linspace(0, 1, size * size).view(1, 1, size, size)  # no two places alike: hidden ones are missed
    first, again = (encoder(image).tokens for _ in range(2))
    if not first.isfinite().all():
        raise ValueError("its tokens are not finite numbers")
    if not torch.allclose(first, again):
        raise ValueError("it sees the same image otherwise each time")


def _used(backbone: nn.Module, names: Collection[str]) -> list[str]:
    """Those of these tensors that the tokens depend on: not a pooler's. A buffer counts as used."""
    encoder = VisualEncoder(backbone)
    parameters = dict(backbone.named_parameters())
    size = encoder.native_size
    total = encoder(torch.zeros(1, 1, size, size)).tokens.sum()
    asked = [name for name in names if name in parameters]
    gradients = torch.autograd.grad(total, [parameters[name] for name in asked], allow_unused=True)
    unused = {name for name, gradient in zip(asked, gradients, strict=True) if gradient is None}
    return [name for name in names if name not in unused]
