"""Vision transformers of every family, as small as they can be: 16 patches, 16 wide, not trained."""

from __future__ import annotations

import torch
import transformers

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def family_models() -> dict[str, transformers.PreTrainedModel]:
    torch.manual_seed(0)
    wide = {**SMALL, "intermediate_size": 32}
    return {
        "vit": transformers.ViTModel(transformers.ViTConfig(**wide)),
        "dinov2": transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, mlp_ratio=2)),
        "dinov2_with_registers": transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**SMALL, mlp_ratio=2, num_register_tokens=2)
        ),
        "siglip_vision_model": transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**wide)),
    }
