"""A frozen LLM and its tokenizer: decoding is the profile's, every token has an embedding, every place a position."""

import pathlib
import shutil

import pytest
import torch
from checkpoint_families import VOCABULARY, refused, save_llm, set_json
from small_model import PROFILE, small_model, small_studies

from fedmrg_core.errors import InputError
from fedmrg_core.tasks.reports.batch import Batch
from fedmrg_core.training.adapter_names import GENERIC
from fedmrg_core.training.language_models import load_language_model
from fedmrg_core.training.pretrained import load_tokenizer


def profile_of(base: dict | None = None, **sections):
    """PROFILE with other base models and other numbers in its sections."""
    changes = {name: getattr(PROFILE, name).model_copy(update=values) for name, values in sections.items()}
    return PROFILE.model_copy(
        update={**changes, "base_models": PROFILE.base_models.model_copy(update=base or {})}
    )  # fmt: skip


# ---- decoding is the profile's ----

DECODING = {
    "no_repeat_ngram_size": 1,
    "return_dict_in_generate": True,
    "output_scores": True,
    "stop_strings": ["e"],
    "do_sample": True,
    "temperature": 0.1,
    "max_length": 3,
    "min_new_tokens": 5,
    "suppress_tokens": [5, 6],
    "num_return_sequences": 2,
    "eos_token_id": [7, 8],
    "max_time": 0.0,
}


@pytest.mark.numerical
@pytest.mark.parametrize("row", ["fedmrg", "fed-prefix", "r2gengpt"])
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_how_a_checkpoint_would_decode_changes_no_report(row, file, base_models, tmp_path):
    source = pathlib.Path(shutil.copytree(base_models, tmp_path / "models"))
    pixels = small_studies().images([0, 1])
    before = small_model(base_models, row)
    set_json(source / "llm" / file, **DECODING)
    if file == "config.json":  # where it stood in older checkpoints
        (source / "llm" / "generation_config.json").unlink()
    after = small_model(source, row)
    for adapter in before.answers:
        expected, found = (model.generate(pixels, adapter, PROFILE.generation)[0] for model in (before, after))
        assert found == expected


def test_notebook_samples_are_not_decoded_as_the_checkpoint_says_either(llama):
    set_json(llama / "generation_config.json", **DECODING)
    llm, tokenizer = load_language_model(llama)
    special = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version"}
    assert llm.generation_config.to_diff_dict().keys() <= special
    assert llm.generation_config.eos_token_id == tokenizer.eos_token_id


# ---- tokens and positions ----


def test_a_token_without_an_embedding_is_refused(llama):
    tokenizer = load_tokenizer(llama)
    tokenizer.add_tokens(["cardiomegalic"])
    tokenizer.save_pretrained(llama)
    refused(llama, rf"'cardiomegalic' with id {VOCABULARY} and the LLM {VOCABULARY} embeddings \(1 tokens too many\)")


def test_a_special_token_that_no_text_has_needs_no_embedding(llama):
    tokenizer = load_tokenizer(llama)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(llama)
    load_language_model(llama)


def test_a_padding_token_without_an_embedding_is_refused(llama):
    tokenizer = load_tokenizer(llama)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(llama)
    refused(llama, r"'\[PAD\]' with id")


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_too_few_positions_are_refused_before_training(family, base_models, tmp_path):
    name = "n_positions" if family == "gpt2" else "max_position_embeddings"
    targets = {"target_modules": ("c_attn",)} if family == "gpt2" else {}

    def build(positions: int):
        folder = save_llm(tmp_path / str(positions), family, **{name: positions})
        return small_model(base_models, "fedmrg", profile_of({"llm": str(folder)}, adapter=targets))

    with pytest.raises(InputError, match=r"it has 12 positions \(max_position_embeddings\)") as found:
        build(12)
    needed = int(str(found.value).split(" needs ")[1].split(",")[0])
    with pytest.raises(InputError, match=rf"it has {needed - 1} positions"):
        build(needed - 1)
    model = build(needed)
    ids = torch.full((1, PROFILE.training.max_report_tokens), 5)
    batch = Batch(torch.rand(1, 1, 32, 32), torch.zeros(1, 14).long(), ids, torch.ones_like(ids).bool())
    model.report_logits(model.prefix(batch.images), batch, [GENERIC])  # the longest report there is


def test_virtual_tokens_take_positions_too(base_models):
    plain, prefix = (small_model(base_models, row).prefix_length(4) for row in ("fed-lora", "fed-prefix"))
    assert prefix == plain + 20
