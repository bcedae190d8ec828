"""Two adapters side by side: equal to one at a time, opened by plain PEFT; mutual boosting by hand."""

import math

import peft
import pytest
import torch
import transformers

from fedmrg_core.adapters import GENERIC, SPECIALISED, AdaptedLLM, mutual_boosting
from fedmrg_core.errors import InputError


@pytest.fixture
def llm() -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50
    )
    return transformers.LlamaForCausalLM(config)


def adapted(llm) -> AdaptedLLM:
    model = AdaptedLLM(llm, (GENERIC, SPECIALISED), rank=4, alpha=8)
    for name in model.names:
        for parameter in model.parameters_of(name).values():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_both_adapters_in_one_pass_equal_one_at_a_time(llm):
    model = adapted(llm)
    embeddings, mask = torch.randn(3, 7, 32), torch.ones(3, 7, dtype=torch.long)
    together = model(embeddings, mask, 4, (GENERIC, SPECIALISED))
    for name, logits in zip((GENERIC, SPECIALISED), together, strict=True):
        with model.active(name) as active, torch.no_grad():
            alone = active(inputs_embeds=embeddings, attention_mask=mask).logits[:, -4:]
        torch.testing.assert_close(logits, alone)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_adapter_is_the_low_rank_product(llm):
    model = adapted(llm)
    path = "model.layers.0.self_attn.q_proj"
    part = model.parameters_of(GENERIC)
    layer = model.peft.base_model.model.get_submodule(path)
    x = torch.randn(2, 32)
    update = 8 / 4 * x @ part[f"{path}.lora_A"].T @ part[f"{path}.lora_B"].T
    with model.active(GENERIC):
        torch.testing.assert_close(layer(x), layer.base_layer(x) + update)


def test_only_adapters_are_trainable_before_and_after_generation(llm):
    model = adapted(llm)
    expected = {id(p) for name in model.names for p in model.parameters_of(name).values()}
    for _ in range(2):
        assert {id(p) for p in model.parameters() if p.requires_grad} == expected
        with model.active(SPECIALISED):
            pass


def test_gradients_reach_each_adapter_from_its_own_rows_only(llm):
    model = adapted(llm)
    generic, _ = model(torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.long), 5, (GENERIC, SPECIALISED))
    generic.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters_of(GENERIC).values())
    assert all(p.grad is None or not p.grad.any() for p in model.parameters_of(SPECIALISED).values())


def test_saved_adapter_opens_with_plain_peft(llm, tmp_path):
    llm.save_pretrained(tmp_path / "llm")
    model = adapted(llm)
    embeddings = torch.randn(1, 5, 32)
    expected = model(embeddings, torch.ones(1, 5, dtype=torch.long), 5, (GENERIC,))[0]
    model.save(GENERIC, tmp_path / "generic")
    plain = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llm"), tmp_path / "generic"
    )
    torch.testing.assert_close(plain(inputs_embeds=embeddings).logits, expected)
    assert sorted(p.name for p in (tmp_path / "generic").glob("*.safetensors")) == ["adapter_model.safetensors"]


def test_unknown_layers_are_named(llm):
    with pytest.raises(InputError, match="target_modules: no_such_layer"):
        AdaptedLLM(llm, (GENERIC,), target_modules=("no_such_layer",))


def test_mutual_boosting_by_hand():
    generic, specialised = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    temperature, expected = 3.0, [0.0, 0.0]
    for b, t in ((0, 0), (0, 1), (1, 0)):
        p, q = ([math.exp(v / temperature) for v in logits[b, t].tolist()] for logits in (generic, specialised))
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        expected[0] += temperature**2 * sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)) / 3
        expected[1] += temperature**2 * sum(y * math.log(y / x) for x, y in zip(p, q, strict=True)) / 3
    measured = mutual_boosting(generic, specialised, mask, temperature)
    assert [value.item() for value in measured] == pytest.approx(expected, rel=1e-9)


def test_each_direction_teaches_its_student_only():
    mask = torch.ones(1, 2, dtype=torch.bool)
    for direction, student in ((0, "specialised"), (1, "generic")):
        logits = {name: torch.randn(1, 2, 4, requires_grad=True) for name in ("generic", "specialised")}
        mutual_boosting(logits["generic"], logits["specialised"], mask, 2.0)[direction].backward()
        assert {name for name, tensor in logits.items() if tensor.grad is not None} == {student}


def test_student_gradient_against_finite_differences():
    teacher, mask = torch.randn(1, 2, 4, dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool)
    student = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: mutual_boosting(teacher, x, mask, 3.0)[0], student)
