"""A frozen LLM and its tokenizer from a checkpoint, and whether a run can use the two: asked before it begins."""

from __future__ import annotations

import math
import pathlib

import torch
import transformers
from torch import Tensor

from fedmrg_core.errors import InputError
from fedmrg_core.training.pretrained import load_configuration, load_pretrained, load_tokenizer, told

# How a checkpoint that reads images as well names the tensors of its language model, and how a plain one does.
TEXT_PART = {r"^(model\.)?language_model\.lm_head": "lm_head", r"^(model\.)?language_model\.(model\.)?": "model."}
# How far logits may differ, relative to the largest, when the same tokens come as ids and as embeddings: rounding only.
ROUNDING = 0.02


def load_language_model(
    name: str | pathlib.Path, precision: torch.dtype = torch.float32
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase]:
    """A causal LM and its tokenizer; of a checkpoint that reads images as well (Gemma 3), the language model alone.

    How the checkpoint would like to be decoded is forgotten: the profile says how reports are written.

    Args:
        name: folder, or name of a hub model in the local cache.
        precision: of the weights in memory.

    Raises:
        InputError: see `load_pretrained` and `load_tokenizer`; or the two do not fit, or it cannot read embeddings.
    """
    whole = load_configuration(name, "LLM")
    text, settings = whole.get_text_config(), {}
    if text is not whole and type(text) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        text._name_or_path = str(name)
        settings = {"config": text, "key_mapping": TEXT_PART}
    llm = load_pretrained(transformers.AutoModelForCausalLM, name, "LLM", precision, **settings)
    tokenizer = load_tokenizer(name)
    forget_decoding(llm, tokenizer)
    _check_tokens(llm, tokenizer, name)
    _check_embeddings(llm, tokenizer, name)
    return llm, tokenizer


def forget_decoding(llm: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """Keep nothing of how a checkpoint would like to be decoded but the tokenizer's special tokens."""
    llm.generation_config = transformers.GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )


def check_positions(llm: transformers.PretrainedConfig, prefix: int, report: int) -> None:
    """Whether the LLM has a position for every token of a run.

    Args:
        llm: its configuration; one without a limit says nothing.
        prefix: tokens it reads before a report.
        report: tokens of the longest report of the profile; the last is written and not read.

    Raises:
        InputError: it has fewer.
    """
    wanted = prefix + report - 1
    if (free := free_positions(llm, prefix, report)) < 0:
        raise InputError(
            f"LLM: it has {wanted + free} positions (max_position_embeddings) and this profile needs {wanted}, "
            f"{prefix} of them before the report; expected another LLM, smaller images (image_size), or shorter "
            "reports (training.max_report_tokens, generation.max_new_tokens)."
        )


def free_positions(llm: transformers.PretrainedConfig, prefix: int, report: int) -> float:
    """Positions of the LLM that such a run leaves over, below 0 where it has too few; see `check_positions`."""
    positions = getattr(llm.get_text_config(), "max_position_embeddings", None)
    return math.inf if positions is None else positions - (prefix + report - 1)


def _check_tokens(
    llm: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase, name: str | pathlib.Path
) -> None:
    """Every token that a text can have needs an embedding; a special token that no text has (an image's) needs none."""
    rows = llm.get_input_embeddings().weight.shape[0]
    used = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special} - used
    beyond = {index: token for token, index in tokenizer.get_vocab().items() if index >= rows and index not in special}
    if beyond:
        first = min(beyond)
        raise InputError(
            f"LLM: the tokenizer of {name} has the token {beyond[first]!r} with id {first} and the LLM {rows} "
            f"embeddings ({len(beyond)} tokens too many); expected the tokenizer that the LLM was trained with."
        )


@torch.no_grad()
def _check_embeddings(
    llm: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase, name: str | pathlib.Path
) -> None:
    """Whether given embeddings mean what token ids mean."""
    text = tokenizer(" The lungs are clear.", add_special_tokens=False).input_ids[:6]
    ids = torch.tensor([[tokenizer.bos_token_id, *text]], device=llm.device)
    mask = torch.ones_like(ids)
    try:
        embeddings = llm.get_input_embeddings()(ids).to(llm.dtype)
        expected, found = (
            llm(**given, attention_mask=mask, logits_to_keep=ids.shape[1], use_cache=False).logits.float()
            for given in ({"input_ids": ids}, {"inputs_embeds": embeddings})
        )
    except Exception as error:  # what a model cannot do ends in errors of any class
        raise InputError(
            f"LLM: {name} cannot read embeddings ({told(error)}); expected a causal LM that takes inputs_embeds."
        ) from error
    _check_logits(expected, found, name)


def _check_logits(expected: Tensor, found: Tensor, name: str | pathlib.Path) -> None:
    if not expected.isfinite().all():
        raise InputError(f"LLM: {name} answers with numbers that are not finite; expected whole weights.")
    if (expected - found).abs().max() > ROUNDING * expected.abs().max():
        raise InputError(
            f"LLM: {name} reads token ids otherwise than their embeddings; expected a causal LM that does with "
            "inputs_embeds all it does with input_ids."
        )
