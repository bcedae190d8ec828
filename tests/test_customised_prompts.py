"""MRG-LLM's prompts: static, customised in two forms, generated, joined; each against a direct computation."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from checkpoint_families import save_llm
from small_model import PROFILE, small_base_models, small_model, small_studies
from torch.nn import functional

from fedmrg_core.errors import InputError
from fedmrg_core.files.strict_yaml import validated
from fedmrg_core.prompts import source_named
from fedmrg_core.prompts.generator import CrossAttentionBlock
from fedmrg_core.prompts.prompt_wise import AffineNetwork, PromptWise
from fedmrg_core.prompts.promptbook_wise import PromptbookWise
from fedmrg_core.runs.configuration import apply_variant
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.training.training_steps import total_loss

WIDTH = PROFILE.base_models.llm_width
CUSTOMISED = {"prompt-wise": PromptWise, "promptbook-wise": PromptbookWise}
JOINED = "diagnosis+prompt-wise"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_base_models(tmp_path_factory.mktemp("base") / "models")


def row_with(prompts: str, name: str = "mine", **changes) -> ReportMethod:
    """A row that trains encoder, projection and a source's own modules."""
    modules = dict.fromkeys(("encoder", "projection", *source_named(prompts).own_modules), "shared")
    row = {"name": name, "description": "", "prompts": prompts, "modules": modules}
    return validated(ReportMethod, {**row, **changes}, "row")


def model_of(folder, prompts: str, profile=PROFILE, **changes):
    return small_model(folder, row_with(prompts, **changes), profile)


def seen(count: int = 3, tokens: int = 5, width: int = WIDTH, visual: int = 16):
    generator = torch.Generator().manual_seed(3)
    images = 0.02 * torch.randn(count, tokens, width, generator=generator)
    return images, torch.randn(count, visual, generator=generator)


def disturbed(source):
    """The source as training might leave it: nothing is zero or one any more."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return source


# ---- the forms, one number at a time ----


def plain_pair(network: AffineNetwork, place: int, g: list[float]) -> tuple[list[float], list[float]]:
    """(gamma, beta) of MLP_i in plain numbers: a norm, a layer with a threshold, a layer."""
    mean = sum(g) / len(g)
    spread = math.sqrt(sum((x - mean) ** 2 for x in g) / len(g) + 1e-5)
    entered = [(x - mean) / spread for x in g]
    width = network.leave.shape[1]
    rows = range(place * width, (place + 1) * width)
    enter, start = network.enter.weight.tolist(), network.enter.bias.tolist()
    hidden = [max(0.0, start[row] + sum(a * x for a, x in zip(enter[row], entered, strict=True))) for row in rows]
    leave, bias = network.leave[place].tolist(), network.bias[place].tolist()
    out = [bias[j] + sum(h * leave[k][j] for k, h in enumerate(hidden)) for j in range(2 * len(g))]
    return [1 + u for u in out[: len(g)]], [network.scale * v for v in out[len(g) :]]


@pytest.mark.numerical
@pytest.mark.parametrize("name", CUSTOMISED)
def test_an_affine_form_is_its_equation(name):
    count, width = 4, 6
    kind = CUSTOMISED[name]
    book = torch.nn.Embedding(count, width)
    source = disturbed(kind(book, AffineNetwork(kind.pairs(count), width, 5, scale=0.02)))
    tokens, pooled = seen(width=width)
    output = source(tokens, pooled)
    assert output.prompts.shape == (3, count, width)
    for image in range(3):
        g = [sum(column) / len(column) for column in zip(*tokens[image].tolist(), strict=True)]
        for i, prompt in enumerate(book.weight.tolist()):
            gamma, beta = plain_pair(source.network, i if name == "prompt-wise" else 0, g)
            expected = [a * p + b for a, p, b in zip(gamma, prompt, beta, strict=True)]
            torch.testing.assert_close(output.prompts[image, i], torch.tensor(expected), atol=1e-5, rtol=1e-4)
    pairs = count if name == "prompt-wise" else 1
    assert output.auxiliary["gamma"].shape == output.auxiliary["beta"].shape == (3, pairs, width)


@pytest.mark.numerical
def test_a_generated_prompt_is_its_equation():
    """One head, so that attention is a softmax of one product."""
    block = disturbed(CrossAttentionBlock(6, 1, scale=0.5))
    queries, (tokens, _) = torch.randn(4, 6), seen(width=6)
    prompts, attention = block(queries, tokens)
    weight, bias = block.attention.in_proj_weight.split(6), block.attention.in_proj_bias.split(6)
    asked = functional.layer_norm(queries, (6,), block.query_norm.weight, block.query_norm.bias)
    for image in range(3):
        read = functional.layer_norm(tokens[image], (6,))
        q, k, v = (x @ w.T + b for x, w, b in zip((asked, read, read), weight, bias, strict=True))
        shares = (q @ k.T / math.sqrt(6)).softmax(dim=-1)
        found = shares @ v @ block.attention.out_proj.weight.T + block.attention.out_proj.bias
        middle = queries + 0.5 * found
        expected = middle + 0.5 * block.feed_forward(block.feed_norm(middle))
        torch.testing.assert_close(prompts[image], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(attention[image], shares, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(3, 4))


def test_the_block_is_as_large_as_the_published_share_says():
    """7.088 M numbers at a ViT-B/16's width [derived]."""
    block = CrossAttentionBlock(768, 12)
    assert sum(parameter.numel() for parameter in block.parameters()) == 7_087_872


# ---- the start, shapes, gradients ----


@pytest.mark.parametrize("name", ["prompt-wise", "promptbook-wise", "generator"])
@pytest.mark.parametrize("count", [4, 64])
def test_at_the_start_the_prompts_are_the_static_book(folder, name, count):
    """To the bit, and the same book as the static source's: words of the LLM, drawn from the same stream."""
    tokens, pooled = seen()
    static = model_of(folder, "static", prompt_settings={"count": count}).prompt_source
    source = model_of(folder, name, prompt_settings={"count": count}).prompt_source
    prompts = source(tokens, pooled).prompts
    assert prompts.shape == (3, count, WIDTH) and source.count == count
    assert torch.equal(prompts, static(tokens, pooled).prompts)
    after = disturbed(source)(tokens, pooled).prompts
    assert not torch.equal(after[0], after[1])  # and then each image has its own
    assert torch.equal(static.book.weight, static(tokens, pooled).prompts[2])


def test_a_book_starts_as_words_of_the_llm(folder):
    model = model_of(folder, "static", prompt_settings={"count": 64})
    table = model.llm.embed(torch.arange(len(model.tokenizer)))
    same = (model.prompt_source.book.weight[:, None] == table).all(dim=-1)  # (64, vocabulary)
    drawn = same.int().argmax(dim=1).tolist()
    assert same.any(dim=1).all() and len(set(drawn)) == 64
    assert not set(drawn) & set(model.tokenizer.all_special_ids)


@pytest.mark.parametrize("name", ["static", "prompt-wise", "promptbook-wise", "generator", JOINED])
def test_a_report_is_written_with_as_many_prompts_as_the_row_says(folder, name):
    model = model_of(folder, name, prompt_settings={"count": 5}).eval()
    texts, output = model.generate(small_studies().pixels[:2], "generic_adapter", PROFILE.generation)
    count = 5 + (14 if "diagnosis" in name else 0)
    assert len(texts) == 2 and output.prompts.shape == (2, count, WIDTH)
    assert model.prefix_length(4) == 1 + 4 + count + len(model.instruction_ids)


@pytest.mark.parametrize("name", ["mrg-llm-prompt-wise", "mrg-llm-generator-dual", "mrg-llm-diagnosis-prompt-wise"])
def test_gradients_reach_only_what_the_row_trains(folder, name):
    frozen = {module: "frozen" for module in ("encoder", "projection")}
    row = load_method(name)
    for changes in ({}, frozen):
        content = row.model_dump(mode="json")
        content["modules"] |= changes
        model = small_model(folder, validated(ReportMethod, content, "row"))
        disturbed(model.prompt_source)
        batch = ClientBatches(model, small_studies(), PROFILE).batch([0, 1, 2, 3])
        terms = model.loss_terms(batch, model.method.losses, torch.full((14,), 0.5), None)
        total_loss(terms, model.method.losses).backward()
        reached = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        trained = {id(parameter): key for key, parameter in model.trainable().items()}
        names = {trained.get(id(p)) for key, p in model.named_parameters() if key in reached}
        assert None not in names
        modules = {module for module in model.ownership if module not in changes}
        assert {key.partition("/")[0] for key in names} == modules


# ---- joined ----


@pytest.mark.parametrize("name", [JOINED, "generator+static", "prompt-wise+promptbook-wise"])
def test_joined_sources_equal_their_parts(folder, name):
    model = model_of(folder, name)
    joined, studies = disturbed(model.prompt_source).eval(), small_studies()
    tokens, pooled = seen(visual=model.encoder.width)
    output = joined(tokens, pooled, studies.states[:3])
    alone = [part(tokens, pooled, studies.states[:3]) for part in joined.parts]
    assert torch.equal(output.prompts, torch.cat([part.prompts for part in alone], dim=1))
    for part, own in zip(alone, output.parts, strict=True):
        assert own.auxiliary.keys() == part.auxiliary.keys() <= output.auxiliary.keys()
        assert all(torch.equal(own.auxiliary[key], part.auxiliary[key]) for key in part.auxiliary)
    names = [kind for part in name.split("+") for kind in source_named(part).own_modules]
    assert list(source_named(name).own_modules) == names
    sizes = [sum(p.numel() for p in model.tensors_of(module).values()) for module in names]
    assert sum(sizes) == sum(p.numel() for p in joined.parameters())


def test_joined_sources_keep_losses_paces_and_numbers(folder):
    row = load_method("mrg-llm-diagnosis-prompt-wise")
    assert row.prompt_type.own_losses == ("classification",)
    assert row.pace_of("diagnosis_head", PROFILE.training) == PROFILE.training.learning_rate
    assert row.pace_of("prompt_wise_network", PROFILE.training) == PROFILE.training.adapter_learning_rate
    model = small_model(folder, row)
    batch = ClientBatches(model, small_studies(), PROFILE).batch([0, 1, 2, 3])
    terms = model.loss_terms(batch, row.losses, torch.full((14,), 0.5), None)
    assert set(terms) == {"language", "classification"}
    head = model.prompt_source.parts[0]
    assert head.soft is False and model.prompt_source.parts[1].network.leave.shape[:2] == (16, 32)
    assert model_of(folder, "soft-diagnosis+static").prompt_source.parts[0].soft
    mixed = row_with(JOINED, predicted_prompts=0.3)
    assert small_model(folder, mixed).prompt_source.parts[0].predicted_share == 0.3
    both = model_of(folder, "prompt-wise+generator", prompt_settings={"count": 4, "heads": 2}).prompt_source
    assert [part.count for part in both.parts] == [4, 4] and both.parts[1].block.attention.num_heads == 2


def test_the_code_of_every_part_is_part_of_what_a_run_is():
    place = "fedmrg_core.prompts"
    assert load_method("mrg-llm-diagnosis-prompt-wise").picked_code() == (f"{place}.prompt_wise",)
    assert row_with("generator+static").picked_code() == (f"{place}.generator", f"{place}.static")
    assert load_method("mrg-llm-none").picked_code() == load_method("fedmrg").picked_code() == ()


# ---- rows ----


@pytest.mark.parametrize(
    ("changes", "clue"),
    [
        ({"prompts": "prompt-wize"}, r"prompts: prompt source 'prompt-wize' is unknown; expected one of .*static"),
        ({"prompts": "static+prompt-wize"}, r"prompts: prompt source 'prompt-wize' is unknown; .*joined by \+"),
        ({"prompts": "static+"}, r"prompts: prompt source '' is unknown"),
        ({"prompts": "static+static"}, r"prompts: static\+static joins static with itself"),
        ({"prompts": "static+none"}, r"prompts: static\+none joins a source with none"),
        ({"prompts": "diagnosis+soft-diagnosis"}, "both bring the module diagnosis_head; expected one of them"),
        ({"prompt_settings": {"count": 3}}, r"prompt_settings: prompts prompt-wise: count: .*or equal to 4"),
        ({"prompt_settings": {"count": 65}}, r"prompt-wise: count: .*less than or equal to 64"),
        ({"prompt_settings": {"width": 0}}, r"prompt-wise: width: .*greater than 0 \(got '0'\)"),
        ({"prompt_settings": {"width": -8}}, r"prompt-wise: width: .*greater than 0"),
        ({"prompt_settings": {"heads": 2}}, r"prompt-wise: heads is unknown; expected count, width"),
        ({"prompts": "generator+prompt-wise", "prompt_settings": {"hat": 2}}, "hat is unknown; expected .*width"),
        (
            {"modules": {"encoder": "shared", "projection": "shared", "prompt_wise_book": "shared"}},
            "prompts: prompt-wise needs the modules prompt_wise_book and prompt_wise_network",
        ),
        ({"prompts": "static"}, r"modules\.prompt_wise_book is none of prompts: static"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_is_told_in_one_sentence(changes, clue):
    content = {**load_method("mrg-llm-prompt-wise").model_dump(mode="json"), "prompt_settings": {}, **changes}
    with pytest.raises(InputError, match=f"^row: .*{clue}") as told:
        validated(ReportMethod, content, "row")
    assert "\n" not in str(told.value)


def test_more_prompts_than_the_llm_has_positions_for_are_refused(folder, tmp_path):
    llm = save_llm(tmp_path / "llm", "llama", max_position_embeddings=60)
    profile = PROFILE.model_copy(update={"base_models": PROFILE.base_models.model_copy(update={"llm": str(llm)})})
    with pytest.raises(
        InputError, match=r"method 'mine': prompts: static takes 64 positions .* has (\d+) left"
    ) as told:
        model_of(folder, "static", profile, prompt_settings={"count": 64})
    left = int(str(told.value).split(" has ")[1].split()[0])
    assert 4 <= left < 60
    assert model_of(folder, "static", profile, prompt_settings={"count": left}).prompt_source.count == left
    with pytest.raises(InputError, match=rf"takes {left + 1} positions"):
        model_of(folder, "static", profile, prompt_settings={"count": left + 1})


def test_heads_that_do_not_divide_the_width_are_refused(folder):
    with pytest.raises(InputError, match="method 'mine': prompt_settings.heads: 5 does not divide 32"):
        model_of(folder, "generator", prompt_settings={"heads": 5})


def test_numbers_of_a_source_are_varied_by_name():
    _, row = apply_variant(
        PROFILE, load_method("mrg-llm-prompt-wise"), "prompt_settings.count=4,prompt_settings.width=8"
    )
    assert row.prompt_settings == {"count": 4, "width": 8}
    assert yaml.safe_load(yaml.safe_dump(row.model_dump(mode="json")))["prompt_settings"] == {"count": 4, "width": 8}


def test_everything_that_mrg_llm_trains_travels():
    for name in ("none", "static", "prompt-wise", "promptbook-wise", "generator", "diagnosis", "diagnosis-prompt-wise"):
        row = load_method(f"mrg-llm-{name}")
        assert set(row.modules.values()) == {Ownership.SHARED} and not any(
            "adapter" in module for module in row.modules
        )
        if name not in ("none", "diagnosis"):
            for under in ("lora", "dual"):
                other = load_method(f"mrg-llm-{name}-{under}")
                assert (other.prompts, other.prompt_settings) == (row.prompts, row.prompt_settings)
                assert row.modules.keys() < other.modules.keys()
