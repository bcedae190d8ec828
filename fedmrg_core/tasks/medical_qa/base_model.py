"""The small causal LM of the embedded world: pretrained on its language and its layouts, and on none of its facts.

Flow of Knowledge adapts published LLMs [secondary]; where there is none, this one stands in for them [ours]. That it
knows no fact is measured: the floor "base" of every run is the untouched model.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence

import torch
import transformers
from torch import Tensor
from torch.nn import functional

from fedmrg_core.files.described_folders import write_description
from fedmrg_core.files.whole_files import partial_folder, replace_folder
from fedmrg_core.runs.configuration import BaseModels
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.training.length_batches import shuffled_by_length
from fedmrg_core.training.small_llm import byte_level_tokenizer, new_llm, optimise


def pretrain(
    texts: Sequence[str], sizes: BaseModels, seed: int, progress: bool = True
) -> tuple[transformers.LlamaForCausalLM, transformers.PreTrainedTokenizerFast, list[float]]:
    """Train tokenizer and LLM from nothing.

    Args:
        texts: of the corpus.
        sizes: widths, steps, learning rate.
        seed: root seed.
        progress: show a bar.

    Returns:
        The LLM, its tokenizer, and the training loss of every step.
    """
    tokenizer = byte_level_tokenizer(texts, sizes.vocabulary)
    llm = new_llm(sizes, tokenizer, seed)
    ids = [[tokenizer.bos_token_id, *row, tokenizer.eos_token_id] for row in tokenizer(list(texts)).input_ids]
    generator = numpy_stream(seed, "base", "question llm", "batches")
    batches: list[list[int]] = []

    def step() -> Tensor:
        if not batches:
            batches.extend(shuffled_by_length([len(row) for row in ids], sizes.pretraining_batch_size, generator))
        return language_loss(llm, [ids[index] for index in batches.pop()])

    steps = min(sizes.llm_steps, math.ceil(sizes.largest_epochs * len(ids) / sizes.pretraining_batch_size))
    losses = optimise(llm.parameters(), step, steps, sizes.pretraining_learning_rate, "LLM", progress)
    return llm.eval(), tokenizer, losses


def language_loss(llm: transformers.PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Mean next-token loss over token ids of any lengths."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    logits = llm(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=False).logits
    wanted = mask[:, 1:].bool()
    return functional.cross_entropy(logits[wanted].float(), ids[:, 1:][wanted])


def save_base_model(
    folder: pathlib.Path,
    llm: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    description: dict[str, object],
) -> None:
    """Save `folder/llm` and `folder/description.json`, whole or not at all."""
    partial = partial_folder(folder)
    llm.save_pretrained(partial / "llm")
    tokenizer.save_pretrained(partial / "llm")
    write_description(partial, description)
    replace_folder(partial, folder)
