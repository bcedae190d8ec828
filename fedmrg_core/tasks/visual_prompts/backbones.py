"""Frozen vision transformers that take prompts among their tokens: ViT, DINOv2, SigLIP, and SAM's image encoder.

    tokens = [cls; P(x); E]    into the frozen model                                                        [ours]

E are the patches as they enter the first layer, positions added. Prompts have no position of their own.
"""

from __future__ import annotations

import pathlib

import torch
from torch import Tensor, nn

from fedmrg_core.encoder import load_encoder
from fedmrg_core.errors import InputError

# By the type of a model's configuration: the module with its layers, its last norm, and how many tokens of its own
# stand before the patches; a text names the number that the configuration adds to one.
FAMILIES: dict[str, tuple[str, str, int | str]] = {
    "vit": ("layers", "layernorm", 1),
    "dinov2": ("encoder.layer", "layernorm", 1),
    "dinov2_with_registers": ("encoder.layer", "layernorm", "num_register_tokens"),
    "siglip_vision_model": ("encoder.layers", "post_layernorm", 0),
}
POOLERS = ("pooler", "head")  # nothing here reads them, so they neither train nor travel


class Pixels(nn.Module):
    """How images become what a model is used to.

    Args:
        channels: that it reads.
        mean: level in [0, 1] that becomes zero.
        deviation: levels that become one.
    """

    def __init__(self, channels: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.channels, self.mean, self.deviation = channels, mean, deviation

    def forward(self, images: Tensor) -> Tensor:
        """Of images (B, 1 or 3, H, W) in [0, 1]: colours averaged for a grey model, a grey one repeated."""
        if self.channels == 1 and images.shape[1] > 1:
            images = images.mean(dim=1, keepdim=True)
        return ((images - self.mean) / self.deviation).expand(-1, self.channels, -1, -1)


class TokenBackbone(nn.Module):
    """A vision transformer whose tokens are a row.

    Args:
        model: of a family in FAMILIES.
        mean: see `Pixels`.
        deviation: likewise.
    """

    def __init__(self, model: nn.Module, mean: float = 0.5, deviation: float = 0.25) -> None:
        super().__init__()
        layers, norm, own = FAMILIES[model.config.model_type]
        self.model, self.pixels = model, Pixels(model.config.num_channels, mean, deviation)
        self.own = 1 + getattr(model.config, own) if isinstance(own, str) else own
        for name in POOLERS:
            if isinstance(getattr(model, name, None), nn.Module):
                setattr(model, name, None)
        self._layers, self._norm = layers, norm
        self.width = self.outputs = model.config.hidden_size

    @property
    def positions(self) -> int:
        """M, the patches that the model has positions for."""
        side = self.model.config.image_size // self.model.config.patch_size
        return side * side

    def embed(self, images: Tensor) -> Tensor:
        """Its own tokens and the patches of images (B, C, H, W), (B, own + M, D)."""
        settings = {} if self.model.config.model_type.startswith("dinov2") else {"interpolate_pos_encoding": True}
        return self.model.embeddings(self.pixels(images), **settings)

    def patches(self, tokens: Tensor) -> Tensor:
        """E, (B, M, D)."""
        return tokens[:, self.own :]

    def run(self, tokens: Tensor, prompts: Tensor | None = None) -> Tensor:
        """A feature of each image, (B, D), of its tokens and prompts (B, L, D): cls, or the mean over the patches."""
        count = 0 if prompts is None else prompts.shape[1]
        if prompts is not None:
            tokens = torch.cat([tokens[:, : self.own], prompts, tokens[:, self.own :]], dim=1)
        for layer in self.model.get_submodule(self._layers):
            tokens = layer(tokens, None)
        tokens = self.model.get_submodule(self._norm)(tokens)
        return tokens[:, 0] if self.own else tokens[:, count:].mean(dim=1)


def load_token_backbone(name: str | pathlib.Path) -> TokenBackbone:
    """A ViT, DINOv2 or SigLIP by folder or cached hub name; of SigLIP the image tower.

    Raises:
        InputError: see `load_encoder`; or it is of another family.
    """
    encoder = load_encoder(name)
    family = encoder.backbone.config.model_type
    if family not in FAMILIES:
        raise InputError(
            f"vision backbone: {name} is a {family}, whose tokens take no prompts here; expected one of "
            f"{', '.join(FAMILIES)}."
        )
    return TokenBackbone(encoder.backbone, encoder.mean, encoder.deviation)
