"""Likelihoods of answers: in a batch as one by one, and against a plain computation by transformers."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.nn import functional

from fedmrg_core.adapters import AdaptedLLM
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import torch_stream
from fedmrg_core.tasks.medical_qa.scoring import Reading, normalised, padded, score_readings
from fedmrg_core.training.adapter_names import BASE, BOTH, GENERIC, SPECIALISED

READINGS = [
    Reading([1, 5, 9, 12], [7, 8]),
    Reading([1, 4], [6, 11, 3, 9, 20]),
    Reading([1, 13, 2, 8, 30, 31, 5], [10]),
    Reading([1, 13, 2, 8, 30, 31, 5], [10, 14, 15]),
]
SHAPE = {"vocab_size": 40, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
FAMILIES = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16}),
    "gpt2": (transformers.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}),
}
TARGETS = {"gpt2": ["c_attn"]}


def small_llm(family: str) -> transformers.PreTrainedModel:
    kind, further = FAMILIES[family]
    sizes = {} if family == "gpt2" else {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "intermediate_size": 48,
    }  # fmt: skip
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(kind(**SHAPE, **sizes, **further)).eval()


def adapted(family: str, names: tuple[str, ...] = (GENERIC, SPECIALISED)) -> AdaptedLLM:
    llm = AdaptedLLM(small_llm(family), names, 4, 4, TARGETS.get(family, ["q_proj", "v_proj"]))
    with torch.no_grad():
        for name in names:
            for key, parameter in llm.parameters_of(name).items():
                parameter.normal_(std=0.2, generator=torch_stream(0, name, key))
    return llm


def plain_score(llm: torch.nn.Module, reading: Reading) -> float:
    """One text, no padding, token ids instead of embeddings."""
    ids = torch.tensor([[*reading.question, *reading.answer]])
    with torch.no_grad():
        logits = llm(input_ids=ids).logits[0, len(reading.question) - 1 : -1]
    found = functional.log_softmax(logits, dim=-1).gather(-1, torch.tensor(reading.answer)[:, None])
    return float(found.sum())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapter", [GENERIC, SPECIALISED, BOTH, BASE])
def test_questions_score_in_a_batch_as_one_by_one(family, adapter):
    llm = adapted(family)
    alone = torch.cat([score_readings(llm, [reading], adapter, 0) for reading in READINGS])
    torch.testing.assert_close(score_readings(llm, READINGS, adapter, 0), alone, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(score_readings(llm, READINGS, adapter, 17, size=3), alone, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_untouched_model_scores_as_transformers_has_it(family):
    expected = torch.tensor([plain_score(small_llm(family), reading) for reading in READINGS])
    torch.testing.assert_close(score_readings(adapted(family), READINGS, BASE, 0), expected, atol=2e-5, rtol=1e-5)


def test_an_adapter_scores_as_peft_has_it_and_training_goes_on_afterwards():
    llm = adapted("llama")
    before = {key for key, parameter in llm.named_parameters() if parameter.requires_grad}
    scores = score_readings(llm, READINGS, SPECIALISED, 0)
    assert not torch.allclose(scores, score_readings(llm, READINGS, BASE, 0), atol=1e-3)
    assert {key for key, parameter in llm.named_parameters() if parameter.requires_grad} == before
    with llm.active(SPECIALISED) as model:
        expected = torch.tensor([plain_score(model, reading) for reading in READINGS])
    torch.testing.assert_close(scores, expected, atol=2e-5, rtol=1e-5)


def test_normalisation_changes_which_answer_is_the_likeliest():
    scores, lengths = torch.tensor([-3.0, -4.0, -5.0]), [(1, 4), (2, 4), (2, 20)]
    best = {name: int(normalised(scores, lengths, name).argmax()) for name in ("sum", "per_token", "per_character")}
    assert best == {"sum": 0, "per_token": 1, "per_character": 2}


@pytest.mark.parametrize("reading", [Reading([], [1]), Reading([1], [])])
def test_an_empty_question_or_answer_is_refused(reading):
    with pytest.raises(InputError, match="reading 0: the question or its answer has no token"):
        padded([reading], 0)
