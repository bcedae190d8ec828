"""Small base models for the embedded default: a LLaMA with its own tokenizer and a ResNet, pretrained on public
text and images kept apart from every client's, and saved in the Hugging Face layout. All of it is ours [ours].

The small LLM also learns to be steered: most of its pretraining texts follow 14 vectors, one a finding,
each the mean embedding of words such as "cardiomegaly" and "positive". A large LLM follows such hints unasked; a
small one has to be shown. Diagnosis prompts start from the same phrase embeddings, for LLMs of every size.
"""

from __future__ import annotations

import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy
import pandas
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from fedmrg_core.data.findings import FINDINGS, STATES
from fedmrg_core.encoder import VisualEncoder
from fedmrg_core.errors import InputError
from fedmrg_core.prompts import phrase_embeddings
from fedmrg_core.runs.configuration import BaseModels
from fedmrg_core.seeds import numpy_stream, stream_seed
from fedmrg_core.tasks.reports.batch import INSTRUCTION, pad_reports
from fedmrg_core.training.augmentation import augmented
from fedmrg_core.training.length_batches import shuffled_by_length
from fedmrg_core.training.small_llm import byte_level_tokenizer, new_llm, optimise

STEERED_SHARE = 0.9  # of the pretraining batches
LOSS_STEPS = 20  # whose mean is one point of a stored loss curve


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer of reports, which knows the phrases of diagnosis prompts as well."""
    phrases = [f" {name}" for name in (*FINDINGS, *STATES)]
    return byte_level_tokenizer([*(f"{INSTRUCTION} {text}" for text in texts), *phrases], vocabulary)


def new_backbone(sizes: BaseModels, seed: int) -> transformers.ResNetModel:
    """A small ResNet for grey images with fresh weights; total stride 32."""
    config = transformers.ResNetConfig(
        num_channels=1,
        embedding_size=sizes.backbone_widths[0],
        hidden_sizes=list(sizes.backbone_widths),
        depths=list(sizes.backbone_depths),
        layer_type="basic",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "base", "backbone"))
        return transformers.ResNetModel(config)


def llm_loss(
    llm: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    texts: Sequence[str],
    states: Tensor | None,
) -> Tensor:
    """Mean next-token loss on `<s> [14 phrase vectors] Findings: text </s>`; states (B, 14) or None for no vectors."""
    rows = tokenizer([f"{INSTRUCTION} {text}" for text in texts], add_special_tokens=False).input_ids
    ids, mask = pad_reports([row + [tokenizer.eos_token_id] for row in rows], tokenizer.pad_token_id)
    ids, mask, embed = ids.to(llm.device), mask.to(llm.device), _embedding(llm)
    parts = [embed(torch.full((len(texts), 1), tokenizer.bos_token_id))]
    if states is not None:
        chosen = (torch.arange(len(FINDINGS)) * len(STATES) + states).to(llm.device)
        # An embedding's gradient is summed in a fixed order, an index's is not: training has to repeat to the byte.
        parts.append(functional.embedding(chosen, phrase_embeddings(tokenizer, embed)))  # (B, 14, D)
    prefix = torch.cat(parts, dim=1)
    embeddings = torch.cat([prefix, embed(ids[:, :-1])], dim=1)
    before = mask.new_ones(prefix.shape[:2])
    attention = torch.cat([before, mask[:, :-1]], dim=1).long()
    logits = llm(
        inputs_embeds=embeddings, attention_mask=attention, logits_to_keep=ids.shape[1], use_cache=False
    ).logits
    return functional.cross_entropy(logits[mask].float(), ids[mask])


def _embedding(llm: transformers.PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """The LLM's token embedding, of ids that lie anywhere."""
    embed = llm.get_input_embeddings()
    return lambda ids: embed(ids.to(llm.device))


def pretrain_llm(
    texts: Sequence[str], states: Tensor, sizes: BaseModels, seed: int, progress: bool = True
) -> tuple[transformers.LlamaForCausalLM, transformers.PreTrainedTokenizerFast, list[float]]:
    """Train tokenizer and LLM from nothing on public reports.

    Args:
        texts: N reports.
        states: (N, 14) what they say.
        sizes: widths, steps, learning rate.
        seed: root seed.
        progress: show a bar.

    Returns:
        The LLM, its tokenizer, and the training loss of every step.
    """
    tokenizer = train_tokenizer(texts, sizes.vocabulary)
    llm = new_llm(sizes, tokenizer, seed)
    generator = numpy_stream(seed, "base", "llm", "batches")
    batches = _endless_batches(tokenizer, texts, sizes.pretraining_batch_size, generator)

    def step() -> Tensor:
        chosen = next(batches)
        steered = states[chosen] if generator.random() < STEERED_SHARE else None
        return llm_loss(llm, tokenizer, [texts[i] for i in chosen], steered)

    steps = min(sizes.llm_steps, max(1, sizes.largest_epochs * len(texts) // sizes.pretraining_batch_size))
    losses = optimise(llm.parameters(), step, steps, sizes.pretraining_learning_rate, "LLM", progress)
    return llm.eval(), tokenizer, losses


def _endless_batches(
    tokenizer: transformers.PreTrainedTokenizerBase, texts: Sequence[str], size: int, generator: numpy.random.Generator
) -> Iterator[list[int]]:
    """Epoch after epoch of batches of indices: not sorted by length, nearly half to two thirds would be padding."""
    lengths = [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids]
    while True:
        yield from shuffled_by_length(lengths, size, generator)


def pretrain_backbone(
    images: Tensor, states: Tensor, sizes: BaseModels, seed: int, progress: bool = True
) -> tuple[transformers.ResNetModel, list[float]]:
    """Train the visual backbone from nothing to name the states of public images.

    Args:
        images: (M, 1, H, W) uint8.
        states: (M, 14).
        sizes: widths, steps, learning rate, and how images are changed.
        seed: root seed.
        progress: show a bar.

    Returns:
        The backbone, and the training loss of every step.
    """
    encoder = VisualEncoder(new_backbone(sizes, seed)).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "base", "head"))
        head = torch.nn.Linear(encoder.width, len(FINDINGS) * len(STATES))
    generator = numpy_stream(seed, "base", "backbone", "batches")

    def step() -> Tensor:
        chosen = generator.integers(len(images), size=sizes.pretraining_batch_size)
        seen = augmented(images[chosen].float() / 255, sizes, generator)
        logits = head(encoder(seen).pooled).unflatten(-1, (len(FINDINGS), len(STATES)))
        return functional.cross_entropy(logits.flatten(0, 1), states[chosen].flatten())

    parameters = [*encoder.parameters(), *head.parameters()]
    losses = optimise(parameters, step, sizes.backbone_steps, sizes.pretraining_learning_rate, "backbone", progress)
    return encoder.backbone.eval(), losses


def perplexity(
    llm: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    texts: Sequence[str],
    states: Tensor | None = None,
) -> float:
    """Token perplexity of the LLM on texts, the instruction included; with states, under their phrase vectors."""
    total = tokens = 0.0
    with torch.no_grad():
        for start in range(0, len(texts), 32):
            part = texts[start : start + 32]
            rows = tokenizer([f"{INSTRUCTION} {text}" for text in part], add_special_tokens=False).input_ids
            count = sum(map(len, rows)) + len(rows)
            hints = None if states is None else states[start : start + 32]
            total += llm_loss(llm, tokenizer, part, hints).item() * count
            tokens += count
    return math.exp(total / tokens)


def sample_reports(
    llm: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase, count: int, seed: int
) -> list[str]:
    """Reports the frozen LLM writes on its own, sampled at temperature 0.7."""
    ids = tokenizer(INSTRUCTION, add_special_tokens=False).input_ids
    inputs = torch.tensor([[tokenizer.bos_token_id, *ids]] * count, device=llm.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "decoding", "samples"))
        out = llm.generate(
            inputs, attention_mask=torch.ones_like(inputs), do_sample=True, temperature=0.7, max_new_tokens=96,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    return [" ".join(t.split()) for t in tokenizer.batch_decode(out[:, inputs.shape[1] :], skip_special_tokens=True)]


def steered_reports(
    llm: transformers.PreTrainedModel, tokenizer: transformers.PreTrainedTokenizerBase, states: Tensor
) -> list[str]:
    """Reports the frozen LLM writes, greedily, under the phrase vectors of given states (B, 14).

    What the labeller reads from them, held against the states, tells how well the LLM follows prompts.
    """
    embed = _embedding(llm)
    with torch.no_grad():
        phrases = phrase_embeddings(tokenizer, embed).unflatten(0, (len(FINDINGS), len(STATES)))
        words = torch.tensor([tokenizer.bos_token_id, *tokenizer(INSTRUCTION, add_special_tokens=False).input_ids])
        start, instruction = (embed(part).expand(len(states), -1, -1) for part in (words[:1], words[1:]))
        prompts = phrases[torch.arange(len(FINDINGS)), states.to(llm.device)]
        inputs = torch.cat([start, prompts, instruction], dim=1)
        out = llm.generate(
            inputs_embeds=inputs, attention_mask=torch.ones_like(inputs[..., 0], dtype=torch.long), do_sample=False,
            max_new_tokens=96, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    return [" ".join(text.split()) for text in tokenizer.batch_decode(out, skip_special_tokens=True)]


def save_base_models(
    folder: pathlib.Path,
    llm: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    backbone: transformers.PreTrainedModel,
    description: dict[str, object],
    losses: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Save `folder/llm`, `folder/backbone` and `folder/description.json`, whole or not at all.

    Args:
        folder: what was there is replaced.
        llm: the frozen LLM.
        tokenizer: its tokenizer.
        backbone: the visual backbone.
        description: what they were made from.
        losses: the training loss of every step, by model; kept in `losses.csv` as means of `LOSS_STEPS` steps.
    """
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    llm.save_pretrained(part / "llm")
    tokenizer.save_pretrained(part / "llm")
    backbone.save_pretrained(part / "backbone")
    preprocessing = {"image_mean": [0.5], "image_std": [0.25], "do_normalize": True}
    (part / "backbone" / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1))
    (part / "description.json").write_text(json.dumps(description, indent=1, sort_keys=True))
    _loss_curves(losses or {}).to_csv(part / "losses.csv", index=False, lineterminator="\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def _loss_curves(losses: Mapping[str, Sequence[float]]) -> pandas.DataFrame:
    rows = [
        {"model": name, "step": start + LOSS_STEPS, "loss": float(numpy.mean(values[start : start + LOSS_STEPS]))}
        for name, values in losses.items()
        for start in range(0, len(values), LOSS_STEPS)
    ]
    return pandas.DataFrame(rows, columns=["model", "step", "loss"]).round(5)


def saved_description(folder: pathlib.Path) -> dict[str, object] | None:
    """The description of base models already saved in `folder`, None if there are none."""
    path = folder / "description.json"
    return json.loads(path.read_text()) if path.is_file() else None


def check_sizes(sizes: BaseModels) -> None:
    """Refuse sizes no model can be built from.

    Raises:
        InputError: naming the parameter.
    """
    if sizes.llm_width % 32:
        raise InputError(f"base_models.llm_width: {sizes.llm_width} is no multiple of 32, the width of a head.")
    if len(sizes.backbone_widths) != len(sizes.backbone_depths):
        raise InputError("base_models: backbone_widths and backbone_depths must have one entry a stage each.")
