"""Real checkpoints by folder: tokenizers that lack a token, LLMs of other families, a frozen LLM in bfloat16."""

import pytest
import torch
import transformers
from small_model import PROFILE, TEXTS, small_model, small_studies

from fedmrg_core.errors import InputError
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.reports.base_models import train_tokenizer
from fedmrg_core.tasks.reports.local_training import ClientBatches
from fedmrg_core.training.adapter_names import GENERIC, SPECIALISED
from fedmrg_core.training.pretrained import load_tokenizer
from fedmrg_core.training.training_steps import total_loss

# One row for each way in which weights meet the frozen LLM.
ROWS = ("fedmrg", "r2gengpt", "fed-adalora", "fedpara", "fed-prefix", "fed-prompt", "fed-vera", "feddat")


def profile_of(**base_models: str):
    return PROFILE.model_copy(update={"base_models": PROFILE.base_models.model_copy(update=base_models)})


@pytest.fixture(scope="module")
def other_family(tmp_path_factory):
    """A Qwen as it is published: grouped queries, bfloat16 on disk, no token that begins a text or fills a row."""
    folder = tmp_path_factory.mktemp("qwen")
    tokenizer = train_tokenizer(TEXTS * 5, 300)
    sizes = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    transformers.Qwen2ForCausalLM(sizes).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.bos_token = tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def one_step(model, profile) -> float:
    """The loss of a batch, after its gradients have reached everything trained."""
    model.train()
    batch = ClientBatches(model, small_studies(), profile).batch([0, 1, 2])
    loss = total_loss(model.loss_terms(batch, model.method.losses, torch.full((14,), 0.5), None), model.method.losses)
    loss.backward()
    return loss.item()


def test_missing_tokens_are_the_end_token(other_family):
    tokenizer = load_tokenizer(other_family)
    assert tokenizer.bos_token_id == tokenizer.pad_token_id == tokenizer.eos_token_id is not None


def test_tokens_that_are_there_stay(base_models):
    tokenizer = load_tokenizer(base_models / "llm")
    assert len({tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id}) == 3


def test_a_tokenizer_that_cannot_end_a_report_is_named(other_family, tmp_path):
    tokenizer = load_tokenizer(other_family)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=rf"{tmp_path.name} has no end token \(eos_token\)"):
        load_tokenizer(tmp_path)


def test_no_tokenizer_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"LLM: .*{tmp_path.name} cannot be loaded .* with a tokenizer\."):
        load_tokenizer(tmp_path)


@pytest.mark.numerical
@pytest.mark.parametrize("row", ["fedmrg", "transformer"])
def test_another_family_trains_and_writes(row, other_family, base_models):
    profile = profile_of(llm=str(other_family))
    model = small_model(base_models, row, profile)
    assert torch.isfinite(torch.tensor(one_step(model, profile)))
    adapter = SPECIALISED if row == "fedmrg" else GENERIC
    texts, _ = model.generate(small_studies().images([0, 1]), adapter, profile.generation)
    assert len(texts) == 2


@pytest.mark.numerical
@pytest.mark.parametrize("row", ROWS)
def test_a_frozen_llm_in_bfloat16_teaches_float32_weights(row, base_models):
    whole, half = (profile_of(precision=precision) for precision in ("float32", "bfloat16"))
    expected = one_step(small_model(base_models, row, whole), whole)
    model = small_model(base_models, row, half)
    assert model.llm.precision == torch.bfloat16
    assert one_step(model, half) == pytest.approx(expected, rel=0.02)
    trainable = model.trainable()
    assert {parameter.dtype for parameter in trainable.values()} == {torch.float32}
    assert all(torch.isfinite(parameter.grad).all() for parameter in trainable.values() if parameter.grad is not None)
    for adapter in model.answers:
        texts, _ = model.generate(small_studies().images([0, 1]), adapter, half.generation)
        assert len(texts) == 2


def test_an_unknown_precision_is_refused(base_models):
    with pytest.raises(ValueError, match="float32"):
        type(PROFILE.base_models)(precision="float8")


def test_precision_changes_nothing_that_travels(base_models):
    def sent(precision: str) -> dict[str, tuple]:
        state = small_model(base_models, "fedmrg", profile_of(precision=precision)).state(Ownership.SHARED)
        return {key: (tensor.shape, tensor.dtype) for key, tensor in state.items()}

    assert sent("bfloat16") == sent("float32")
