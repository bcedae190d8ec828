"""A small LLaMA and its tokenizer from nothing, for the base models that tasks build themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy
import tokenizers
import torch
import transformers
from torch import Tensor
from tqdm.auto import tqdm

from fedmrg_core.runs.configuration import BaseModels
from fedmrg_core.seeds import stream_seed
from fedmrg_core.training.optimisation import adamw

BEGIN, END, PADDING, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"


def byte_level_tokenizer(texts: Sequence[str], vocabulary: int) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in the LLaMA manner; bytes make every text encodable."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=UNKNOWN))
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END, PADDING, UNKNOWN],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BEGIN, eos_token=END, pad_token=PADDING, unk_token=UNKNOWN
    )


def new_llm(
    sizes: BaseModels, tokenizer: transformers.PreTrainedTokenizerBase, seed: int
) -> transformers.LlamaForCausalLM:
    """A small LLaMA with fresh weights; heads are 32 wide, the feed-forward part 8/3 of the width."""
    config = transformers.LlamaConfig(
        hidden_size=sizes.llm_width,
        num_hidden_layers=sizes.llm_layers,
        num_attention_heads=sizes.llm_width // 32,
        intermediate_size=sizes.llm_width * 8 // 3 // 16 * 16,
        vocab_size=len(tokenizer),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "base", "llm"))
        return transformers.LlamaForCausalLM(config)


def optimise(
    parameters: Iterable[Tensor],
    step: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
    name: str,
    progress: bool,
) -> list[float]:
    """AdamW with a one-cycle learning rate; `step()` gives the loss of a fresh batch."""
    parameters = list(parameters)
    optimiser = adamw(parameters, lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    losses = []
    with tqdm(range(steps), desc=f"pretraining {name}", disable=not progress) as bar:
        for _ in bar:
            loss = step()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{numpy.mean(losses[-20:]):.3f}")
    return losses
