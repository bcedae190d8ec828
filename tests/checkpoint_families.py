"""Very small checkpoints of the families people have: random weights in the published layout, saved by transformers."""

from __future__ import annotations

import json
import pathlib

import pytest
import torch
import transformers
from small_model import TEXTS

from fedmrg_core.errors import InputError
from fedmrg_core.tasks.reports.base_models import train_tokenizer
from fedmrg_core.training.language_models import load_language_model

VOCABULARY = 300
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
GEMMA = {**SMALL, "head_dim": 8}
SIGLIP_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SIGLIP_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}

# Configuration class and its fields.
LLMS: dict[str, tuple[type, dict]] = {
    "llama": (transformers.LlamaConfig, SMALL),
    "qwen2": (transformers.Qwen2Config, SMALL),
    "gpt2": (transformers.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "opt": (
        transformers.OPTConfig,
        {
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        },
    ),
    "biogpt": (
        transformers.BioGptConfig,
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        },
    ),
    "gemma": (transformers.GemmaConfig, GEMMA),
    "gemma2": (transformers.Gemma2Config, {**GEMMA, "query_pre_attn_scalar": 8}),
    "gemma3": (transformers.Gemma3TextConfig, {**GEMMA, "query_pre_attn_scalar": 8}),
    "granite": (transformers.GraniteConfig, {**SMALL, "embedding_multiplier": 12.0}),
    "phi3": (transformers.Phi3Config, SMALL),
    "bloom": (transformers.BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": (
        transformers.FalconConfig,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256},
    ),
}
# The layers LoRA adapts where a family has no q_proj and v_proj.
LAYERS = {"gpt2": ("c_attn",), "phi3": ("qkv_proj",), "bloom": ("query_key_value",), "falcon": ("query_key_value",)}


def save_llm(folder: pathlib.Path, family: str, **changes: object) -> pathlib.Path:
    """A LLM of a family and its tokenizer, saved as published; `changes` are fields of its configuration."""
    kind, fields = LLMS[family]
    return save_configured(folder, kind, {**fields, **changes})


def save_configured(folder: pathlib.Path, kind: type, fields: dict) -> pathlib.Path:
    """As `save_llm`, of any configuration class."""
    tokenizer = train_tokenizer(TEXTS * 5, VOCABULARY)
    config = kind(**{"vocab_size": VOCABULARY, **_special_tokens(tokenizer), **fields})
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _special_tokens(tokenizer: transformers.PreTrainedTokenizerBase) -> dict[str, int]:
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def save_backbone(
    folder: pathlib.Path, config: transformers.PretrainedConfig, kind: type | None = None
) -> pathlib.Path:
    """An image model with random weights; `kind` is its class, e.g. one with a head that the project does not use."""
    torch.manual_seed(0)
    (kind(config) if kind else transformers.AutoModel.from_config(config)).save_pretrained(folder)
    return folder


def set_json(path: pathlib.Path, **fields: object) -> None:
    """Set fields of a JSON file."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **fields}))


def refused(folder: pathlib.Path, words: str) -> None:
    """It is refused in one line that holds `words` and the folder's name."""
    with pytest.raises(InputError, match=words) as found:
        load_language_model(folder)
    assert folder.name in str(found.value) and "\n" not in str(found.value)
