"""The visual encoder E, the projection P, and the client-aware contrastive loss.

An image x becomes tokens V = E(x) and a pooled feature z = mean(V) [paper]; P maps both to the width of the LLM.
The contrast makes h = P(z) generalise globally and stay locally distinctive [paper], by two InfoNCE terms [secondary]:

    L_inter = -log softmax_k( cos(h, mu_k) / tau )        pull to the own client's prototype, push from the others'
    L_intra = -log softmax_j( cos(h_i, h_j^global) / tau )_i   the frozen global encoder's feature of the same image

Their exact form, and h being the projected pooled feature, are ours [ours].
"""

from __future__ import annotations

import dataclasses
import pathlib

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.pretrained import load_pretrained


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

    @property
    def width(self) -> int:
        """d_v, the width of a visual token."""
        sizes = getattr(self.backbone.config, "hidden_sizes", None)
        return sizes[-1] if sizes else self.backbone.config.hidden_size

    def forward(self, images: Tensor) -> VisualFeatures:
        """Encode grey images.

        Args:
            images: (B, 1, H, W), grey levels in [0, 1].
        """
        pixels = ((images - self.mean) / self.deviation).expand(-1, self.channels, -1, -1)
        hidden = self.backbone(pixel_values=pixels).last_hidden_state
        tokens = hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden  # (B, M, d_v)
        return VisualFeatures(tokens, tokens.mean(dim=1))


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


def load_encoder(name: str | pathlib.Path) -> VisualEncoder:
    """Load a backbone by hub name or folder, weights from safetensors only.

    Grey-level mean and deviation come from the checkpoint's `preprocessor_config.json` where it has one.

    Raises:
        InputError: nothing is there, or it holds no safetensors weights.
    """
    backbone = load_pretrained(transformers.AutoModel, name, "vision backbone")
    try:
        settings, _ = transformers.BaseImageProcessor.get_image_processor_dict(str(name))
    except OSError:
        settings = {}
    mean, deviation = settings.get("image_mean", [0.5]), settings.get("image_std", [0.25])
    return VisualEncoder(backbone, sum(mean) / len(mean), sum(deviation) / len(deviation))
