"""LLMs of the families people have, on very small models: what they read, the size of image tokens, and adapters."""

import peft
import pytest
import torch
import transformers
from checkpoint_families import GEMMA, LAYERS, LLMS, SIGLIP_VISION, save_configured, save_llm
from small_model import PROFILE, small_model, small_studies
from test_pretrained import one_step

from fedmrg_core.errors import InputError
from fedmrg_core.training.adapter_names import GENERIC
from fedmrg_core.training.language_models import load_language_model

pytestmark = pytest.mark.numerical

# Families that enlarge what their table of embeddings holds, and some that do not.
SCALED = ("gemma", "gemma2", "gemma3", "biogpt")
PLAIN = ("llama", "gpt2", "opt", "granite")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    folders = {family: save_llm(root / family, family) for family in LLMS}
    folders["opt-350m"] = save_llm(root / "opt-350m", "opt", word_embed_proj_dim=16, do_layer_norm_before=False)
    text = {**GEMMA, "query_pre_attn_scalar": 8, "vocab_size": 300}
    fields = {"text_config": text, "vision_config": SIGLIP_VISION, "mm_tokens_per_image": 4}
    folders["gemma3-with-images"] = save_configured(root / "medgemma", transformers.Gemma3Config, fields)
    return folders


def profile_of(folder, layers=("q_proj", "v_proj")):
    return PROFILE.model_copy(
        update={
            "base_models": PROFILE.base_models.model_copy(update={"llm": str(folder)}),
            "adapter": PROFILE.adapter.model_copy(update={"target_modules": layers}),
        }
    )


def model_of(family, base_models, folders, row="fedmrg"):
    profile = profile_of(folders[family], LAYERS.get(family, ("q_proj", "v_proj")))
    return small_model(base_models, row, profile), profile


@torch.no_grad()
def read_by_first_layer(llm, **given) -> torch.Tensor:
    """(B, L, D): what the first layer of a LLM gets to read."""
    layers = next(module for module in llm.modules() if isinstance(module, torch.nn.ModuleList) and len(module))
    found = []

    def watch(layer, places, names):
        found.append(places[0] if places else names["hidden_states"])

    handle = layers[0].register_forward_pre_hook(watch, with_kwargs=True)
    llm(**given)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("family", [*SCALED, *PLAIN, "opt-350m", "gemma3-with-images"])
def test_a_text_means_the_same_as_ids_and_as_our_embeddings(family, base_models, folders):
    model, _ = model_of(family, base_models, folders)
    plain, tokenizer = load_language_model(folders[family])
    ids = torch.tensor([tokenizer("The lungs are clear.").input_ids])
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
        (found,) = model.llm(model.llm.embed(ids), torch.ones_like(ids), ids.shape[1], [GENERIC])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [*SCALED, *PLAIN, "opt-350m", "gemma3-with-images"])
def test_image_tokens_are_as_large_as_text_tokens(family, base_models, folders):
    """At the first layer too, where learned positions stand on both."""
    model, _ = model_of(family, base_models, folders)
    tokens = model.projection(model.encoder(small_studies().images([0, 1])).tokens)
    ids = torch.arange(20, 280)[None]
    words = model.llm.embed(ids)
    assert (tokens.norm(dim=-1).mean() / words.norm(dim=-1).mean()).item() == pytest.approx(1, abs=0.1)
    llm, length = model.llm.peft.get_base_model(), tokens.shape[1]
    seen = read_by_first_layer(llm, inputs_embeds=tokens.detach())
    read = read_by_first_layer(llm, input_ids=ids[:, :length])
    assert (seen.norm(dim=-1).mean() / read.norm(dim=-1).mean()).item() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("family", PLAIN)
def test_the_scale_of_plain_embeddings_is_their_spread_to_the_byte(family, base_models, folders):
    model, _ = model_of(family, base_models, folders)
    assert model.llm.embedding_scale() == model.llm.peft.get_input_embeddings().weight.float().std().item()


def test_prompts_start_as_words_are_read(base_models, folders):
    model, _ = model_of("gemma", base_models, folders)
    words = model.llm.embed(torch.arange(20, 280))
    raw = model.llm.peft.get_input_embeddings().weight
    table = model.prompt_source.table.weight
    assert table.norm(dim=-1).mean() > raw.norm(dim=-1).mean()
    assert 0.3 < (table.norm(dim=-1).mean() / words.norm(dim=-1).mean()).item() < 1.1  # means of a few words


@pytest.mark.parametrize("family", [*LLMS, "opt-350m", "gemma3-with-images"])
def test_every_family_trains_and_writes(family, base_models, folders):
    model, profile = model_of(family, base_models, folders)
    assert torch.isfinite(torch.tensor(one_step(model, profile)))
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.llm.parameters_of(GENERIC).values())
    for answer in model.answers:
        assert len(model.generate(small_studies().images([0, 1]), answer, profile.generation)[0]) == 2


@pytest.mark.parametrize("row", ["fed-prompt", "fed-prefix", "fed-vera", "fed-adalora", "feddat", "transformer"])
def test_narrow_embeddings_work_with_every_kind_of_adapter(row, base_models, folders):
    model, profile = model_of("opt-350m", base_models, folders, row)
    assert torch.isfinite(torch.tensor(one_step(model, profile)))
    assert len(model.generate(small_studies().images([0]), GENERIC, profile.generation)[0]) == 1


@pytest.mark.parametrize("row", ["fed-vera", "fed-adalora", "feddat"])
def test_layers_of_gpt2_take_every_kind_of_adapter_that_knows_them(row, base_models, folders):
    model, profile = model_of("gpt2", base_models, folders, row)
    assert torch.isfinite(torch.tensor(one_step(model, profile)))


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("gpt2", "c_attn, c_proj, c_fc"),
        ("phi3", "o_proj, qkv_proj, gate_up_proj, down_proj"),
        ("bloom", "query_key_value, dense, dense_h_to_4h, dense_4h_to_h"),
        ("falcon", "query_key_value, dense, dense_h_to_4h, dense_4h_to_h"),
    ],
)
def test_the_layers_there_are_are_listed(family, layers, base_models, folders):
    with pytest.raises(InputError, match=r"adapter\.target_modules: q_proj, v_proj not found") as found:
        small_model(base_models, "fedmrg", profile_of(folders[family]))
    listed = str(found.value).split("expected some of ")[1].rstrip(".").split(", ")
    assert sorted(listed) == sorted(layers.split(", "))


def test_an_adapter_that_a_llm_cannot_carry_is_refused_before_training(base_models, folders):
    with pytest.raises(InputError, match=r"method 'fed-prefix': its adapter .*adapter_kind prefix.* does not work"):
        model_of("falcon", base_models, folders, "fed-prefix")


def test_a_llm_that_reads_embeddings_otherwise_is_refused(folders, monkeypatch):
    forward = transformers.LlamaForCausalLM.forward

    def larger(self, input_ids=None, inputs_embeds=None, **settings):
        given = None if inputs_embeds is None else inputs_embeds + 1
        return forward(self, input_ids=input_ids, inputs_embeds=given, **settings)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", larger)
    with pytest.raises(InputError, match="reads token ids otherwise than their embeddings"):
        load_language_model(folders["llama"])


def test_the_text_part_of_a_checkpoint_with_images_reads_as_the_whole(folders):
    whole = transformers.AutoModelForCausalLM.from_pretrained(folders["gemma3-with-images"])
    part, tokenizer = load_language_model(folders["gemma3-with-images"])
    assert type(part) is transformers.Gemma3ForCausalLM
    ids = torch.tensor([tokenizer("The lungs are clear.").input_ids])
    with torch.no_grad():
        torch.testing.assert_close(part(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_an_adapter_on_layers_of_gpt2_opens_without_this_package(base_models, folders, tmp_path):
    model, _ = model_of("gpt2", base_models, folders)
    for parameter in model.llm.parameters_of(GENERIC).values():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_adapter(GENERIC, tmp_path / "adapter")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folders["gpt2"])
    opened = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    ids = torch.arange(20, 28)[None]
    with torch.no_grad():
        (expected,) = model.llm(model.llm.embed(ids), torch.ones_like(ids), 8, [GENERIC])
        torch.testing.assert_close(opened(input_ids=ids).logits, expected)
