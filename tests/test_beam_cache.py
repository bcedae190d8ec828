"""The cache of a beam search: what Transformers' own holds, and the same reports."""

from __future__ import annotations

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from fedmrg_core.training import beam_cache
from fedmrg_core.training.beam_cache import BeamLayer

STUDIES, BEAMS, HEADS, WIDTH = 3, 2, 2, 4
CONFIGURATIONS = {
    "llama": transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    ),
    "gpt2": transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=128),
    "mistral": transformers.MistralConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    ),  # fmt: skip
}


@settings(max_examples=60, deadline=None)
@given(
    read=st.integers(1, 5),
    steps=st.lists(st.lists(st.integers(0, BEAMS - 1), min_size=STUDIES * BEAMS, max_size=STUDIES * BEAMS), max_size=9),
    spare=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_it_holds_what_transformers_own_holds(read, steps, spare, seed):
    generator = torch.Generator().manual_seed(seed)
    own, theirs = BeamLayer(), DynamicLayer()
    first = torch.randn(STUDIES, HEADS, read, WIDTH, generator=generator).repeat_interleave(BEAMS, dim=0)
    states = [first, first + 1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beam_cache, "SPARE", spare)
        for beams in steps:
            for kept, expected in zip(own.update(*states), theirs.update(*states), strict=True):
                assert torch.equal(kept, expected)
            assert own.get_seq_length() == theirs.get_seq_length()
            order = torch.arange(STUDIES).repeat_interleave(BEAMS) * BEAMS + torch.tensor(beams)
            own.reorder_cache(order)
            theirs.reorder_cache(order)
            assert torch.equal(own.keys, theirs.keys) and torch.equal(own.values, theirs.values)
            new = torch.randn(STUDIES * BEAMS, HEADS, 1, WIDTH, generator=generator)
            states = [new, new * 2]


@pytest.mark.parametrize("kind", CONFIGURATIONS)
@pytest.mark.parametrize("padded", [False, True])
def test_a_beam_search_writes_the_same_with_it(kind, padded):
    torch.manual_seed(0)
    configuration = CONFIGURATIONS[kind]
    model = transformers.AutoModelForCausalLM.from_config(configuration).eval()
    mask = torch.ones(4, 6, dtype=torch.long)
    mask[1, : 3 if padded else 0] = 0
    given = {"inputs_embeds": torch.randn(4, 6, 16), "attention_mask": mask}
    search = transformers.GenerationConfig(
        num_beams=3, min_new_tokens=70, max_new_tokens=80, do_sample=False, eos_token_id=1, pad_token_id=0,
        bos_token_id=2, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    cache = beam_cache.beam_cache(configuration)
    own = model.generate(**given, generation_config=search, past_key_values=cache)
    theirs = model.generate(**given, generation_config=search, past_key_values=DynamicCache(config=configuration))
    assert torch.equal(own.sequences, theirs.sequences) and torch.equal(own.sequences_scores, theirs.sequences_scores)
    assert own.sequences.shape[1] >= 70 > beam_cache.SPARE


def test_layers_of_a_window_keep_transformers_own():
    kinds = {type(layer) for layer in beam_cache.beam_cache(CONFIGURATIONS["mistral"]).layers}
    assert kinds == {DynamicSlidingWindowLayer}
    assert {type(layer) for layer in beam_cache.beam_cache(CONFIGURATIONS["llama"]).layers} == {BeamLayer}


@pytest.mark.parametrize("asked", ["crop", "batch_repeat_interleave", "batch_select_indices", "offload", "prefetch"])
def test_what_it_does_not_support_is_refused(asked):
    with pytest.raises(TypeError, match="take DynamicCache"):
        getattr(beam_cache.beam_cache(CONFIGURATIONS["gpt2"]).layers[0], asked)(torch.tensor([1]))
