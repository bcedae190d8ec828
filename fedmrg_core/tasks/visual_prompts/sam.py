"""SAM with prompts among the image tokens of its frozen image encoder, and its mask decoder as the head.

    P(x) joins the image tokens of the frozen image encoder; the mask decoder trains                  [secondary; ours]

Most layers of the encoder look at windows. There a copy of the prompts stands in each window, and what becomes of the
copies is averaged [related: visual prompt tuning of Swin]. Prompts have no place in the picture, so no relative
position is added for them. After the last layer they are left out. Without prompts the encoder is Hugging Face's,
which a test holds. Nobody clicks: the decoder gets no point, and its k-th mask is the k-th region's [ours].
"""

from __future__ import annotations

import pathlib
from collections.abc import Collection

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.errors import InputError
from fedmrg_core.tasks.visual_prompts.backbones import Pixels
from fedmrg_core.training.grey_levels import grey_levels
from fedmrg_core.training.pretrained import load_configuration, load_pretrained

WHAT = "SAM"
USED = ("vision_encoder.", "mask_decoder.", "shared_image_embedding.", "prompt_encoder.no_mask_embed")


class SamBackbone(nn.Module):
    """SAM's image encoder with places for prompts.

    Args:
        sam: its image encoder is used, and what its decoder is given where nobody clicks.
        mean: see `Pixels`.
        deviation: likewise.
    """

    def __init__(self, sam: transformers.SamModel, mean: float = 0.5, deviation: float = 0.25) -> None:
        super().__init__()
        config = sam.config.vision_config
        self.encoder, self.pixels = sam.vision_encoder, Pixels(config.num_channels, mean, deviation)
        self.width, self.outputs, self.image_size = config.hidden_size, config.output_channels, config.image_size
        self.positions = (config.image_size // config.patch_size) ** 2
        self.register_buffer("places", sam.get_image_wide_positional_embeddings().detach(), persistent=False)
        no_mask = sam.prompt_encoder.no_mask_embed.weight.detach().reshape(1, -1, 1, 1)
        self.register_buffer("no_mask", no_mask, persistent=False)

    def embed(self, images: Tensor) -> Tensor:
        """The patches of images (B, C, H, W), (B, h, w, D)."""
        tokens = self.encoder.patch_embed(self.pixels(images))
        return tokens if self.encoder.pos_embed is None else tokens + self.encoder.pos_embed

    def patches(self, tokens: Tensor) -> Tensor:
        """E, (B, M, D)."""
        return tokens.flatten(1, 2)

    def run(self, tokens: Tensor, prompts: Tensor | None = None) -> Tensor:
        """The image embedding (B, C, h, w) of tokens (B, h, w, D) and prompts (B, L, D)."""
        if prompts is None:
            prompts = tokens.new_zeros(len(tokens), 0, self.width)
        for layer in self.encoder.layers:
            tokens, prompts = _layer(layer, tokens, prompts)
        return self.encoder.neck(tokens)


class _Unread(nn.Module):
    """In place of a part of the decoder that nothing here reads, so that it neither trains nor travels.

    Args:
        width: of what the part gives; the first numbers of its input stand in for it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[..., : self.width]


class MaskHead(nn.Module):
    """SAM's mask decoder, asked for a mask of each region: of those that it makes of a place with several answers.

    Args:
        decoder: of the checkpoint.
        regions: K.
    """

    def __init__(self, decoder: nn.Module, regions: int) -> None:
        super().__init__()
        self.decoder, self.regions = decoder, regions

    def forward(self, embeddings: Tensor, places: Tensor, no_mask: Tensor) -> Tensor:
        """Logits (B, K, 4 h, 4 w) of image embeddings (B, C, h, w)."""
        masks, _ = self.decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=places.expand(len(embeddings), -1, -1, -1),
            sparse_prompt_embeddings=None,
            dense_prompt_embeddings=no_mask.expand_as(embeddings),
            multimask_output=True,
        )
        return masks[:, 0, : self.regions]


def _layer(layer: nn.Module, tokens: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """One layer of the encoder on tokens (B, h, w, D) and prompts (B, L, D)."""
    seen, asked, place = layer.layer_norm1(tokens), layer.layer_norm1(prompts), None
    if layer.window_size:
        seen, place = layer.window_partition(seen, layer.window_size)
    windows = len(seen) // len(tokens)
    seen, asked = _attention(layer.attn, seen, asked.repeat_interleave(windows, dim=0))
    if layer.window_size:
        seen = layer.window_unpartition(seen, layer.window_size, place, tokens.shape[1:3])
    asked = asked.unflatten(0, (len(tokens), windows)).mean(dim=1)
    tokens, prompts = tokens + seen, prompts + asked
    return tokens + layer.mlp(layer.layer_norm2(tokens)), prompts + layer.mlp(layer.layer_norm2(prompts))


def _attention(attention: nn.Module, tokens: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of tokens (W, h, w, D) and prompts (W, L, D) of each window to both."""
    count, (_, height, width, _) = prompts.shape[1], tokens.shape
    together = torch.cat([prompts, tokens.flatten(1, 2)], dim=1)
    parts = attention.qkv(together).unflatten(-1, (3, attention.num_attention_heads, -1))
    query, key, value = parts.permute(2, 0, 3, 1, 4)  # (W, heads, L + h w, D / heads)
    bias = None
    if attention.use_rel_pos:
        size, image_query = (height, width), query[:, :, count:].flatten(0, 1)
        near = attention.get_decomposed_rel_pos(image_query, attention.rel_pos_h, attention.rel_pos_w, size, size)
        near = near.reshape(*query.shape[:2], height * width, height * width)
        bias = functional.pad(near, (count, 0, count, 0))
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=attention.scale)
    found = attention.proj(found.transpose(1, 2).flatten(2))
    return found[:, count:].reshape(tokens.shape), found[:, :count]


def load_sam(name: str | pathlib.Path, regions: int) -> tuple[SamBackbone, MaskHead]:
    """Image encoder and mask decoder of a SAM by folder or cached hub name.

    Args:
        name: folder, or name of a hub model in the local cache.
        regions: masks that are asked of its decoder.

    Raises:
        InputError: see `load_pretrained`; it is no SAM, has no mask decoder, or its decoder makes fewer masks.
    """
    config = load_configuration(name, WHAT)
    if config.model_type == "sam_vision_model":
        raise _no_decoder(name)
    if config.model_type != "sam":
        raise InputError(f"{WHAT}: {name} is a {config.model_type}; expected a SamModel, saved by save_pretrained.")

    def needed(model: nn.Module, missing: Collection[str]) -> list[str]:
        used = [key for key in missing if key.startswith(USED)]
        if any(key.startswith("mask_decoder.") for key in used):
            raise _no_decoder(name)
        return used

    sam = load_pretrained(transformers.SamModel, name, WHAT, needed=needed)
    most = sam.config.mask_decoder_config.num_multimask_outputs
    if regions > most:
        raise InputError(f"{WHAT}: the mask decoder of {name} makes {most} masks and the data have {regions} regions.")
    leave_out_unread(sam.mask_decoder, regions)
    return SamBackbone(sam, *grey_levels(name)), MaskHead(sam.mask_decoder, regions)


def leave_out_unread(decoder: nn.Module, regions: int) -> None:
    """Take out of a mask decoder its guess of how good a mask is, and what makes the masks of no region; in place.

    Args:
        decoder: of Hugging Face's SAM; its first mask is the one for a place with a single answer, and no region's.
        regions: K, whose masks are the next ones.
    """
    decoder.iou_prediction_head = _Unread(decoder.num_mask_tokens)
    networks = decoder.output_hypernetworks_mlps
    for index in {*range(len(networks))} - {*range(1, 1 + regions)}:
        networks[index] = _Unread(networks[index].proj_out.out_features)


def _no_decoder(name: str | pathlib.Path) -> InputError:
    return InputError(
        f"{WHAT}: {name} holds an image encoder without a mask decoder; expected a whole SamModel, saved by "
        "save_pretrained."
    )
