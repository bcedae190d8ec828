"""Adapters of every kind: opened by plain PEFT, generation equal to teacher forcing, each against its formula."""

import json

import peft
import pytest
import torch
import transformers
from small_model import ones

from fedmrg_core.adapters import AdaptedLLM
from fedmrg_core.errors import InputError
from fedmrg_core.training.adapter_kinds import ADALORA_INTERVAL, KINDS, PREFIX_START, VIRTUAL_TOKENS, orthogonality
from fedmrg_core.training.adapter_names import GENERIC

pytestmark = pytest.mark.numerical


def of_kind(llm, kind: str, **settings) -> AdaptedLLM:
    """One adapter of a kind, far enough from its start to be felt."""
    model = AdaptedLLM(llm, (GENERIC,), rank=4, alpha=8, kind=kind, settings=settings)
    with torch.no_grad():
        for parameter in model.parameters_of(GENERIC).values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_saved_adapter_opens_with_plain_peft(llm, tmp_path, kind):
    llm.save_pretrained(tmp_path / "llm")
    llm = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    model = of_kind(llm, kind)
    embeddings = torch.randn(2, 5, 32)
    expected = model(embeddings, ones(embeddings), 5, (GENERIC,))[0]
    model.save(GENERIC, tmp_path / "generic")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    without = base(inputs_embeds=embeddings).logits
    plain = peft.PeftModel.from_pretrained(base, tmp_path / "generic")
    measured = plain(inputs_embeds=embeddings, attention_mask=ones(embeddings)).logits[:, -5:]
    torch.testing.assert_close(measured, expected)
    assert (measured - without).abs().max() > 1e-3
    assert sorted(p.name for p in (tmp_path / "generic").glob("*.safetensors")) == ["adapter_model.safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_saved_file_says_where_the_llm_lay(llm, tmp_path, kind):
    llm.save_pretrained(tmp_path / "llm")
    model = of_kind(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "llm"), kind)
    model.save(GENERIC, tmp_path / "generic")
    for path in (tmp_path / "generic").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    written = json.loads((tmp_path / "generic" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "base_models/llm"
    assert written.get("target_modules") in (None, ["q_proj", "v_proj"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_and_teacher_forcing_agree(llm, kind, beams):
    """What greedy search writes is the most likely token at each position of the teacher-forced pass; what beam search
    writes has the score that the teacher-forced log-probabilities give it."""
    model, embeddings, length = of_kind(llm, kind), torch.randn(2, 5, 32), 6
    out = model.generate(
        embeddings, GENERIC, beams, max_new_tokens=length, min_new_tokens=length, pad_token_id=0, eos_token_id=49,
        return_dict_in_generate=True, output_scores=True, output_logits=True,
    )  # fmt: skip
    seen = torch.cat([embeddings, model.embed(out.sequences[:, :-1])], dim=1)
    logits = model(seen, ones(seen), length, (GENERIC,))[0].detach()
    if beams == 1:
        torch.testing.assert_close(torch.stack(out.logits, dim=1), logits, rtol=1e-4, atol=1e-4)
        assert torch.equal(logits[..., :49].argmax(-1), out.sequences)
    else:
        logged = logits.log_softmax(-1).gather(-1, out.sequences[..., None]).sum((1, 2))
        torch.testing.assert_close(out.sequences_scores, logged / length, rtol=1e-4, atol=1e-4)


def test_every_row_of_a_beam_search_is_read_alone(llm):
    for kind in KINDS:
        model, embeddings = of_kind(llm, kind), torch.randn(3, 5, 32)
        settings = {"max_new_tokens": 5, "pad_token_id": 0, "eos_token_id": 49}
        together = model.generate(embeddings, GENERIC, 2, **settings)
        alone = model.generate(embeddings[1:2], GENERIC, 2, **settings)
        assert together[1, : alone.shape[1]].tolist() == alone[0].tolist()
        llm = model.peft.get_base_model() if kind in ("prefix", "p-tuning") else model.peft.unload()


def test_a_prefix_of_the_keys_and_values_of_words_is_as_those_words_read_before(llm):
    """An independent way to say that positions, mask and cache are right."""
    model, embeddings = AdaptedLLM(llm, (GENERIC,), kind="prefix"), torch.randn(2, 5, 32)
    words = llm.get_input_embeddings()(torch.randint(50, (1, VIRTUAL_TOKENS)))
    with torch.no_grad():
        cache = llm(inputs_embeds=words, use_cache=True).past_key_values
    peft.initialize_kv_prefix_from_past_key_values(model.peft, adapter_name=GENERIC, past_key_values=cache)
    expected = llm(inputs_embeds=torch.cat([words.expand(2, -1, -1), embeddings], dim=1)).logits[:, -5:]
    torch.testing.assert_close(model(embeddings, ones(embeddings), 5, (GENERIC,))[0], expected, rtol=1e-4, atol=1e-5)


def test_a_prefix_starts_small(llm):
    start = AdaptedLLM(llm, (GENERIC,), kind="prefix").parameters_of(GENERIC)["embedding.weight"]
    assert start.std().item() == pytest.approx(PREFIX_START, rel=0.1)


@pytest.mark.parametrize("kind", ["lora", "adalora", "loha", "vera"])
def test_an_adapter_of_layers_starts_as_no_change(llm, kind):
    embeddings = torch.randn(2, 5, 32)
    expected = llm(inputs_embeds=embeddings).logits
    model = AdaptedLLM(llm, (GENERIC,), rank=4, kind=kind)
    torch.testing.assert_close(model(embeddings, ones(embeddings), 5, (GENERIC,))[0], expected)


def test_loha_is_fedparas_product(llm):
    model, path = of_kind(llm, "loha"), "model.layers.0.self_attn.q_proj"
    part = model.parameters_of(GENERIC)
    first, second = (part[f"{path}.hada_w{i}_a"] @ part[f"{path}.hada_w{i}_b"] for i in (1, 2))
    layer, x = model.peft.base_model.model.get_submodule(path), torch.randn(2, 32)
    torch.testing.assert_close(layer(x), layer.base_layer(x) + x @ (8 / 4 * first * second).T)


def test_vera_trains_two_vectors_around_matrices_that_every_process_draws_alike(llm):
    config, models = llm.config, []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(of_kind(transformers.LlamaForCausalLM(config), "vera", r=7))
    one, other = (model.peft.base_model for model in models)
    assert torch.equal(one.vera_A[GENERIC], other.vera_A[GENERIC])
    assert torch.equal(one.vera_B[GENERIC], other.vera_B[GENERIC])
    part, path = models[0].parameters_of(GENERIC), "model.layers.0.self_attn.q_proj"
    assert {key.split(".")[-1] for key in part} == {"vera_lambda_b", "vera_lambda_d"}
    layer, x = one.model.get_submodule(path), torch.randn(2, 32)
    inner = x @ one.vera_A[GENERIC][:, :32].T * part[f"{path}.vera_lambda_d"]
    update = inner @ one.vera_B[GENERIC][:32].T * part[f"{path}.vera_lambda_b"]
    torch.testing.assert_close(layer(x), layer.base_layer(x) + update)


def test_orthogonality_is_what_peft_adds_to_its_own_loss(llm):
    model, ids = of_kind(llm, "adalora", orth_reg_weight=0.7), torch.randint(50, (2, 6))
    with_term = model.peft(input_ids=ids, labels=ids).loss
    model.peft.peft_config[GENERIC].orth_reg_weight = 0.0
    without = model.peft(input_ids=ids, labels=ids).loss
    assert (with_term - without).item() == pytest.approx(0.7 * model.orthogonality().item(), rel=1e-4)


def test_orthogonality_gradient_against_finite_differences():
    factors = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: orthogonality({"x.lora_A": a, "x.lora_B": b.T}), factors)


def adalora_steps(model: AdaptedLLM, progress: list[float]) -> list[int]:
    """Train on noise; how many singular values are left after each step."""
    model.remember_shared()
    optimiser = torch.optim.AdamW(list(model.parameters_of(GENERIC).values()), lr=1e-2)
    generator, left = torch.Generator().manual_seed(0), []
    for share in progress:
        embeddings = torch.randn(2, 5, 32, generator=generator)
        optimiser.zero_grad()
        model(embeddings, ones(embeddings), 5, (GENERIC,))[0].square().mean().backward()
        optimiser.step()
        model.after_step(share)
        values = [p for key, p in model.parameters_of(GENERIC).items() if key.endswith("lora_E")]
        left.append(sum(int(value.count_nonzero()) for value in values))
    return left


def test_adalora_takes_ranks_away_as_the_run_goes_on(llm):
    model = of_kind(llm, "adalora")
    whole, final = 4 * 3, 4 * 2  # four layers, ranks 3/4 and 1/2 of 4
    assert adalora_steps(model, [0.05] * 2 * ADALORA_INTERVAL) == [whole] * 2 * ADALORA_INTERVAL
    on_the_way = adalora_steps(model, [0.2] * ADALORA_INTERVAL)[-1]
    assert final < on_the_way < whole
    assert adalora_steps(model, [0.9] * 2 * ADALORA_INTERVAL)[ADALORA_INTERVAL - 1 :] == [final] * (
        ADALORA_INTERVAL + 1
    )


def test_adalora_keeps_nothing_from_one_round_to_the_next(llm):
    model = of_kind(llm, "adalora")
    start = {key: parameter.detach().clone() for key, parameter in model.parameters_of(GENERIC).items()}
    ends = []
    for before in ([], [0.95] * 7):
        adalora_steps(model, before)  # another client's round in the same process
        with torch.no_grad():
            for key, parameter in model.parameters_of(GENERIC).items():
                parameter.copy_(start[key])
        adalora_steps(model, [0.5] * 7)
        ends.append({key: parameter.detach().clone() for key, parameter in model.parameters_of(GENERIC).items()})
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in start)


def test_unknown_layers_are_named(llm):
    with pytest.raises(InputError, match="target_modules: no_such_layer"):
        AdaptedLLM(llm, (GENERIC,), target_modules=("q_proj", "no_such_layer"))


@pytest.mark.parametrize("kind", ["lora", "adalora", "loha"])
def test_a_rank_above_the_width_is_refused(llm, kind):
    with pytest.raises(InputError, match="adapter.rank: 33 is above 32"):
        AdaptedLLM(llm, (GENERIC,), rank=33, kind=kind)


def test_a_rows_own_rank_above_the_width_is_refused(llm):
    with pytest.raises(InputError, match="adapter.rank: 500 is above 32"):
        AdaptedLLM(llm, (GENERIC,), rank=4, settings={"r": 500})


@pytest.mark.parametrize("settings", [{"no_such_field": 1}, {"tinit": 2000}])
def test_settings_that_peft_refuses_are_named(llm, settings):
    with pytest.raises(
        InputError, match=f"adapter_settings: {next(iter(settings))} not accepted .* peft.AdaLoraConfig"
    ):
        AdaptedLLM(llm, (GENERIC,), rank=4, kind="adalora", settings=settings)
