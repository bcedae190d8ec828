"""Pretrained checkpoints by folder or cached hub name, models from safetensors, and where they compute."""

from __future__ import annotations

import pathlib
from typing import Any

import torch
import transformers

from fedmrg_core.errors import InputError


def compute_device() -> torch.device:
    """Where models train and write: the first visible GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_pretrained(
    kind: type, name: str | pathlib.Path, what: str, precision: torch.dtype = torch.float32
) -> transformers.PreTrainedModel:
    """`kind.from_pretrained(name)` from safetensors, its failures told in one sentence.

    Args:
        kind: an auto class of transformers, e.g. `AutoModel`.
        name: folder, or name of a hub model in the local cache.
        what: what the sentence calls it.
        precision: of the weights in memory, whatever they were saved in.

    Raises:
        InputError: the folder or name holds no such model, or no safetensors weights.
    """
    path = pathlib.Path(name)
    if path.is_dir() and not list(path.glob("*.safetensors")):
        raise InputError(
            f"{what}: folder {name} holds no .safetensors weights; expected a model saved by save_pretrained."
        )
    return _from_pretrained(kind, name, what, "safetensors", use_safetensors=True, dtype=precision)


def load_llm_configuration(name: str | pathlib.Path) -> transformers.PretrainedConfig:
    """The LLM's sizes, without its weights.

    Raises:
        InputError: the folder or name holds no configuration.
    """
    return _from_pretrained(transformers.AutoConfig, name, "LLM", "a configuration")


def load_tokenizer(name: str | pathlib.Path) -> transformers.PreTrainedTokenizerBase:
    """The LLM's tokenizer, where the end token also begins texts and fills rows if it has no tokens for that.

    LLaMA and Mistral have no padding token, Qwen has none that begins a text. Padding is masked, and what stands first
    is the same for every text, so that which token it is matters little [ours].

    Raises:
        InputError: the folder or name holds no tokenizer, or one without an end token.
    """
    tokenizer = _from_pretrained(transformers.AutoTokenizer, name, "LLM", "a tokenizer")
    if tokenizer.eos_token_id is None:
        raise InputError(f"LLM: the tokenizer of {name} has no end token (eos_token); set one in its configuration.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.eos_token
    return tokenizer


def _from_pretrained(kind: type, name: str | pathlib.Path, what: str, holding: str, **settings: object) -> Any:
    try:
        return kind.from_pretrained(name, **settings)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{what}: {name} cannot be loaded ({reason}); expected a folder or a cached hub name with {holding}."
        ) from error
