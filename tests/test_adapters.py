"""Two adapters side by side: equal to one at a time, opened by plain PEFT; mutual boosting by hand."""

import copy
import math

import peft
import pytest
import torch
import transformers
from small_model import ones

from fedmrg_core.adapters import AdaptedLLM, mutual_boosting
from fedmrg_core.errors import InputError
from fedmrg_core.training.adapter_names import BOTH, COPY, GENERIC, HALVES, MIXTURE, SPECIALISED

pytestmark = pytest.mark.numerical


def adapted(llm, alpha: int = 8) -> AdaptedLLM:
    model = AdaptedLLM(llm, (GENERIC, SPECIALISED), rank=4, alpha=alpha)
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


@pytest.mark.parametrize("alpha", [4, 8])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_blocks_of_rows_give_the_numbers_of_peft_s_own_pass(llm, precision, alpha):
    model = adapted(llm.to(precision), alpha)
    assert "_mixed_batch_forward" in vars(peft.tuners.lora.LoraLayer)  # what PEFT calls; another name would go unused
    layers = [layer for layer in model.peft.modules() if "_mixed_batch_forward" in vars(layer)]
    assert len(layers) == 2 * len(model.peft.get_base_model().model.layers)
    embeddings, mask = torch.randn(3, 7, 32), torch.ones(3, 7, dtype=torch.long)

    def logits_and_gradients() -> list[torch.Tensor]:
        logits = model(embeddings, mask, 4, (GENERIC, SPECIALISED))
        model.zero_grad()
        sum(each.square().sum() for each in logits).backward()
        return [*logits, *(p.grad.clone() for name in model.names for p in model.parameters_of(name).values())]

    in_blocks = logits_and_gradients()
    for layer in layers:
        del layer._mixed_batch_forward
    for ours, theirs in zip(in_blocks, logits_and_gradients(), strict=True):
        assert torch.equal(ours, theirs)


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


def test_both_is_an_llm_whose_weights_moved_by_half_of_each_update(llm, tmp_path):
    embeddings, mask = torch.randn(3, 7, 32), torch.ones(3, 7, dtype=torch.long)
    moved = copy.deepcopy(llm)
    model = adapted(llm)
    trainable = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    for name in model.names:
        part = model.parameters_of(name)
        for path in {key.rpartition(".")[0] for key in part}:
            moved.get_submodule(path).weight.data += part[f"{path}.lora_B"] @ part[f"{path}.lora_A"]  # 8 / 4 * 1 / 2
    assert model.answers == (GENERIC, SPECIALISED, BOTH)
    model.save(GENERIC, tmp_path / "generic")
    for _ in range(2):  # made anew each time, also after saving
        with model.active(BOTH) as both, torch.no_grad():
            logits = both(inputs_embeds=embeddings, attention_mask=mask).logits
        torch.testing.assert_close(logits, moved(inputs_embeds=embeddings, attention_mask=mask).logits)
    assert {key: parameter.requires_grad for key, parameter in model.named_parameters()} == trainable
    assert len(model(embeddings, mask, 4, (GENERIC, SPECIALISED))) == 2


def test_an_llm_with_one_adapter_or_none_has_one_answer(llm):
    assert AdaptedLLM(copy.deepcopy(llm), (GENERIC,), rank=4).answers == (GENERIC,)
    assert AdaptedLLM(llm, ()).answers == (GENERIC,)


def test_gradients_reach_each_adapter_from_its_own_rows_only(llm):
    model = adapted(llm)
    generic, _ = model(torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.long), 5, (GENERIC, SPECIALISED))
    generic.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters_of(GENERIC).values())
    assert all(p.grad is None or not p.grad.any() for p in model.parameters_of(SPECIALISED).values())


def test_no_adapter_leaves_the_llm_as_it_is(llm, tmp_path):
    embeddings = torch.randn(2, 5, 32)
    expected = llm(inputs_embeds=embeddings).logits[:, -3:]
    model = AdaptedLLM(llm, ())
    assert model.names == (GENERIC,) and model.parameters_of(GENERIC) == {}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model(embeddings, ones(embeddings), 3, (GENERIC,))[0], expected)
    assert model.generate(embeddings, GENERIC, 2, max_new_tokens=4, pad_token_id=0).shape == (2, 4)
    with pytest.raises(InputError, match="'generic_adapter' is unknown; expected one of none"):
        model.save(GENERIC, tmp_path)


def test_what_is_frozen_stays_frozen_after_generation(llm):
    model = adapted(llm)
    frozen = model.parameters_of(GENERIC)["model.layers.0.self_attn.q_proj.lora_A"]
    frozen.requires_grad_(False)
    model.generate(torch.randn(1, 3, 32), SPECIALISED, 1, max_new_tokens=2, pad_token_id=0)
    assert not frozen.requires_grad


def test_the_copy_is_the_shared_adapter_as_it_came_and_learns_nothing(llm, tmp_path):
    llm.save_pretrained(tmp_path / "llm")
    model = AdaptedLLM(llm, (GENERIC, SPECIALISED), rank=4, copied=True)
    embeddings = torch.randn(2, 5, 32)
    with torch.no_grad():
        for parameter in model.parameters_of(GENERIC).values():
            parameter.normal_(std=0.2)
    model.remember_shared()
    before = model(embeddings, ones(embeddings), 5, (GENERIC,))[0].detach()
    with torch.no_grad():
        for parameter in model.parameters_of(GENERIC).values():
            parameter += 0.1
    generic, copied = model(embeddings, ones(embeddings), 5, (GENERIC, COPY))
    torch.testing.assert_close(copied, before)
    assert (generic - copied).abs().max() > 1e-3
    assert not any(parameter.requires_grad for parameter in model.parameters_of(COPY).values())
    model.save(GENERIC, tmp_path / "generic")  # and it is not in what is saved
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    plain = peft.PeftModel.from_pretrained(base, tmp_path / "generic")
    torch.testing.assert_close(plain(inputs_embeds=embeddings).logits, generic)


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


def mixing(llm) -> AdaptedLLM:
    """Two adapters and a copy, none of them alike."""
    model = AdaptedLLM(llm, (GENERIC, SPECIALISED), rank=4, alpha=8, copied=True)
    with torch.no_grad():
        for name in (GENERIC, SPECIALISED, COPY):
            for parameter in model.parameters_of(name).values():
                parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize("mixture", [MIXTURE, BOTH])
def test_a_mixture_is_half_of_each_update_in_every_layer(llm, mixture):
    plain = copy.deepcopy(llm)
    model, embeddings = mixing(llm), torch.randn(2, 5, 32)
    with torch.no_grad():
        for name in HALVES[mixture]:
            factors = model.parameters_of(name)
            for key in factors:
                if key.endswith("lora_A"):
                    path = key.removesuffix(".lora_A")
                    update = factors[f"{path}.lora_B"] @ factors[key]
                    plain.get_submodule(path.removeprefix("base_model.model.")).weight += 0.5 * (8 / 4) * update
    generic, mixed = model(embeddings, ones(embeddings), 5, (GENERIC, mixture))
    torch.testing.assert_close(mixed, plain(inputs_embeds=embeddings).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(generic, model(embeddings, ones(embeddings), 5, (GENERIC,))[0])
    torch.testing.assert_close(mixed, model(embeddings, ones(embeddings), 5, (mixture,))[0])
    specialised = model(embeddings, ones(embeddings), 5, (SPECIALISED,))[0]  # its scale is what it was
    factors = model.parameters_of(SPECIALISED)
    assert (specialised - mixed).abs().max() > 1e-3
    assert {parameter.requires_grad for parameter in factors.values()} == {True}


def test_a_mixture_trains_the_specialised_adapter_and_not_the_copy(llm):
    alone, model, embeddings = mixing(copy.deepcopy(llm)), mixing(llm), torch.randn(2, 5, 32)
    generic, mixed = model(embeddings, ones(embeddings), 5, (GENERIC, MIXTURE))
    (generic.square().mean() + mixed.square().mean()).backward()
    found = {
        name: {p.grad is not None for p in model.parameters_of(name).values()} for name in (GENERIC, SPECIALISED, COPY)
    }
    assert found == {GENERIC: {True}, SPECIALISED: {True}, COPY: {False}}
    alone.load_state_dict(model.state_dict())
    alone(embeddings, ones(embeddings), 5, (GENERIC,))[0].square().mean().backward()
    for key, parameter in alone.parameters_of(GENERIC).items():  # the mixture adds nothing to it
        torch.testing.assert_close(parameter.grad, model.parameters_of(GENERIC)[key].grad)
