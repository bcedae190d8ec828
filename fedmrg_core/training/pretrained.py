"""Pretrained checkpoints by folder or cached hub name: every weight of the model comes from safetensors, or none does.

Nothing here runs code that a checkpoint brings, and nothing unpickles. What transformers would fill with random numbers
or leave out in silence is refused in one sentence.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
import transformers
from torch import nn

from fedmrg_core.errors import InputError
from fedmrg_core.training.checkpoint_folders import EXPECTED, check_folder

# Tensors a file may hold that no forward pass here reads: what pretraining puts in a hidden patch's place.
UNREAD = ("mask_token",)
# Tensors a file may lack: a counter that only BatchNorm without momentum reads.
COUNTERS = ("num_batches_tracked",)


def compute_device() -> torch.device:
    """Where models train and write: the first visible GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_pretrained(
    kind: type,
    name: str | pathlib.Path,
    what: str,
    precision: torch.dtype = torch.float32,
    needed: Callable[[nn.Module, Collection[str]], Collection[str]] | None = None,
    **settings: object,
) -> transformers.PreTrainedModel:
    """`kind.from_pretrained(name)` from safetensors, with every weight that is used from the file.

    Args:
        kind: an auto class of transformers, e.g. `AutoModel`.
        name: folder, or name of a hub model in the local cache.
        what: what the sentences call it.
        precision: of the weights in memory, whatever they were saved in.
        needed: given the model and the tensors that the file lacks, those of them that are used; None: all are.
        settings: further arguments of `from_pretrained`.

    Raises:
        InputError: there is no such model or no safetensors weights, a file is damaged, a tensor is missing, has
            another shape than the configuration says, or has no place in the model's layers.
    """
    check_folder(name, what)
    settings = {**settings, "use_safetensors": True, "dtype": precision}
    judged = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # they are told in our own words below
    model, found = _from_pretrained(kind, name, what, "safetensors", **settings, **judged)
    _check_shapes(found["mismatched_keys"], name, what)
    missing = {key for key in found["missing_keys"] if not key.endswith(COUNTERS)}
    if missing and needed is not None:
        missing = set(needed(model, missing))
    _check_missing(model, missing, found["unexpected_keys"], name, what)
    _check_left_over(model, found["unexpected_keys"], name, what)
    return model


def load_configuration(name: str | pathlib.Path, what: str, weights: bool = True) -> transformers.PretrainedConfig:
    """A model's sizes, without its weights.

    Args:
        name: folder, or name of a hub model in the local cache.
        what: what the sentences call it.
        weights: there have to be weights beside it.

    Raises:
        InputError: the folder or name holds no configuration, or no weights.
    """
    check_folder(name, what, weights)
    return _from_pretrained(transformers.AutoConfig, name, what, "a configuration")


def load_tokenizer(name: str | pathlib.Path) -> transformers.PreTrainedTokenizerBase:
    """The LLM's tokenizer, where the end token also begins texts and fills rows if it has no tokens for that.

    LLaMA and Mistral have no padding token, Qwen has none that begins a text. Padding is masked, and what stands first
    is the same for every text, so that which token it is matters little [ours].

    Raises:
        InputError: the folder or name holds no tokenizer, or one without an end token.
    """
    check_folder(name, "LLM", weights=False)
    tokenizer = _from_pretrained(transformers.AutoTokenizer, name, "LLM", "a tokenizer")
    if tokenizer.eos_token_id is None:
        raise InputError(f"LLM: the tokenizer of {name} has no end token (eos_token); set one in its configuration.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.eos_token
    return tokenizer


def told(error: Exception) -> str:
    """The first words of an error of transformers, in one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _from_pretrained(kind: type, name: str | pathlib.Path, what: str, holding: str, **settings: object) -> Any:
    try:
        with _quiet():
            return kind.from_pretrained(name, trust_remote_code=False, **settings)
    except Exception as error:  # a damaged file or a missing package ends in errors of any class
        own_code = "trust_remote_code" in str(error)
        reason = "it wants to run code of its own, which is never done here" if own_code else told(error)
        raise InputError(
            f"{what}: {name} cannot be loaded ({reason}); expected a folder or a cached hub name with {holding}."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' table of missing tensors, which are judged here."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _check_shapes(mismatched: Collection[tuple], name: str | pathlib.Path, what: str) -> None:
    for key, there, expected in sorted(mismatched, key=lambda row: row[0]):
        raise InputError(
            f"{what}: {key} in the weights of {name} has shape {tuple(there)}, its config.json says {tuple(expected)} "
            f"({len(mismatched)} such); expected weights and config.json of one model."
        )


def _check_missing(
    model: nn.Module, missing: Collection[str], unexpected: Collection[str], name: str | pathlib.Path, what: str
) -> None:
    if not missing:
        return
    first = next((key for key in model.state_dict() if key in missing), min(missing))
    others = f", and holds {min(unexpected)} instead" if unexpected else ""
    raise InputError(
        f"{what}: the weights of {name} lack {first} ({len(missing)} missing){others}; {EXPECTED}, with the names that "
        "transformers gives its tensors."
    )


def _check_left_over(model: nn.Module, unexpected: Collection[str], name: str | pathlib.Path, what: str) -> None:
    """A head or a text tower may be left aside; what belongs into the model's own layers may not."""
    lists = [path for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    stems = [f"{prefix}{path}." for path in lists for prefix in ("", f"{model.base_model_prefix}.")]
    left = sorted(key for key in unexpected if key.startswith(tuple(stems)) and not key.endswith(UNREAD))
    if left:
        raise InputError(
            f"{what}: the weights of {name} hold {left[0]} ({len(left)} such), for which its config.json has no place; "
            "expected weights and config.json of one model, adapters merged."
        )
