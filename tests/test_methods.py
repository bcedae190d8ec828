"""Every row of methods.yaml as a model: what it trains, what leaves the hospital, one step, a report."""

import functools

import pytest
import torch
from small_model import PROFILE, small_model, small_studies

from fedmrg_core.runs.methods import Ownership, family_of, load_methods
from fedmrg_core.tasks.reports.batch import Contrast
from fedmrg_core.tasks.reports.local_training import ClientBatches
from fedmrg_core.training.adapter_kinds import VERA_RANK, VIRTUAL_TOKENS
from fedmrg_core.training.adapter_names import COPY, GENERIC
from fedmrg_core.training.trained_model import parameter_counts
from fedmrg_core.training.training_steps import total_loss
from figures import method_overview

METHODS = load_methods()
WITH_LLM = [name for name, row in METHODS.items() if row.model == "llm"]

WIDTH, LAYERS, RANK = PROFILE.base_models.llm_width, PROFILE.base_models.llm_layers, PROFILE.adapter.rank
ADAPTED = 2 * LAYERS  # q_proj and v_proj of every layer
FINDINGS, STATES = 14, 4
PROMPTS, HIDDEN = 16, 32  # of the rows of MRG-LLM: N, and the width of an affine network

BOOKS = ("static_book", "prompt_wise_book", "promptbook_wise_book", "generator_queries")

# Parameters of one adapter of each kind, written down from the publications' formulae.
ADAPTER_SIZES = {
    "lora": ADAPTED * RANK * (WIDTH + WIDTH),
    "adalora": ADAPTED * (3 * RANK // 4) * (WIDTH + WIDTH + 1),
    "loha": ADAPTED * 2 * RANK * (WIDTH + WIDTH),
    "vera": ADAPTED * (WIDTH + VERA_RANK),
    "prefix": VIRTUAL_TOKENS * 2 * LAYERS * WIDTH,
    "p-tuning": VIRTUAL_TOKENS * WIDTH + 3 * (WIDTH * WIDTH + WIDTH),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("base") / "models"


def built(folder, name: str):
    if METHODS[name].model != "llm":
        pytest.importorskip("fedmrg_core.tasks.reports.baselines")
    return small_model(folder, name)


@pytest.fixture(scope="module")
def standing(folder):
    """Each row's model, built once, for tests that change nothing."""
    return functools.cache(functools.partial(built, folder))


def module_size(model, module: str) -> int:
    """Trained numbers of a module of a row with an LLM."""
    if module.endswith(("_a", "_b")):
        return ADAPTER_SIZES["lora"] // 2
    affine = WIDTH * HIDDEN + HIDDEN + HIDDEN * 2 * WIDTH + 2 * WIDTH  # one MLP: D to its hidden layer to 2 D
    return {
        "encoder": sum(p.numel() for p in model.encoder.backbone.parameters()),
        "projection": model.encoder.width * WIDTH + 3 * WIDTH,  # weight and bias, then LayerNorm's two
        "diagnosis_head": (model.encoder.width + 1) * FINDINGS * STATES,
        "prompt_table": FINDINGS * STATES * WIDTH,
        **dict.fromkeys(BOOKS, PROMPTS * WIDTH),
        "prompt_wise_network": PROMPTS * affine,
        "promptbook_wise_network": affine,
        # Attention with four matrices, two layers of 4 D, two norms, and a bias for each.
        "generator_block": (4 + 8) * WIDTH**2 + (4 + 5) * WIDTH + 2 * 2 * WIDTH,
    }.get(module, ADAPTER_SIZES[model.method.adapter_kind])


def loss_of(model, batch):
    """The whole loss of a batch, with something to contrast it with."""
    generator = torch.Generator().manual_seed(5)
    h_global, prototypes = (torch.randn(n, WIDTH, generator=generator) for n in (len(batch.images), 3))
    terms = model.loss_terms(batch, model.method.losses, torch.full((14,), 0.5), Contrast(h_global, prototypes, 1))
    return total_loss(terms, model.method.losses)


def everything(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def test_every_module_has_its_place_in_the_overview():
    assert {module for row in METHODS.values() for module in row.modules} <= method_overview.PLACES.keys()


@pytest.mark.parametrize("name", METHODS)
def test_what_is_trained_is_what_the_row_declares(standing, name):
    model, row = standing(name), METHODS[name]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    declared = {module for module, owner in row.modules.items() if owner is not Ownership.FROZEN}
    owned = {id(t) for module in declared for t in model.tensors_of(module).values() if t.requires_grad}
    assert trainable == owned == {id(p) for p in model.trainable().values()}
    assert {key.split("/")[0] for key in model.trainable()} == declared


@pytest.mark.parametrize("name", METHODS)
def test_what_leaves_is_what_the_row_declares(standing, name):
    model, row = standing(name), METHODS[name]
    for ownership in Ownership:
        modules = [module for module, owner in row.modules.items() if owner is ownership]
        expected = [f"{module}/{key}" for module in modules for key in model.tensors_of(module)]
        assert list(model.state(ownership)) == expected
        assert {key.split("/")[0] for key in expected} == set(modules)
    leaving = {tensor.data_ptr() for tensor in model.state(Ownership.SHARED).values()}
    staying = {tensor.data_ptr() for tensor in model.state(Ownership.PERSONAL).values()}
    assert not leaving & staying
    assert not any(COPY in key for key in model.state(Ownership.SHARED))


@pytest.mark.parametrize("name", WITH_LLM)
def test_names_of_what_leaves_an_adapter(standing, name):
    parts = {
        "lora": {"lora_A", "lora_B"},
        "adalora": {"lora_A", "lora_B", "lora_E"},
        "loha": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
        "vera": {"vera_lambda_b", "vera_lambda_d"},
        "prefix": {"embedding.weight"},
        "p-tuning": {"embedding.weight"} | {f"mlp_head.{i}.{part}" for i in (0, 2, 4) for part in ("weight", "bias")},
    }
    row = METHODS[name]
    kind = parts[row.adapter_kind]
    layers = [
        f"model.layers.{i}.self_attn.{layer}_proj." if row.adapter_kind not in ("prefix", "p-tuning") else ""
        for i in range(LAYERS)
        for layer in "qv"
    ]
    expected = {
        f"{module}/{layer}{part}"
        for module, owner in row.modules.items()
        if owner is Ownership.SHARED and module.startswith("generic_adapter")
        for layer in layers
        for part in kind
        if not module.endswith(("_a", "_b")) or part[-1].lower() == module[-1]
    }
    shared = standing(name).state(Ownership.SHARED)
    assert {key for key in shared if "adapter" in key} == expected


@pytest.mark.parametrize("name", WITH_LLM)
def test_parameter_counts_by_formula(standing, name):
    model, row = standing(name), METHODS[name]
    counts = parameter_counts(model)
    for ownership in (Ownership.SHARED, Ownership.PERSONAL):
        modules = [module for module, owner in row.modules.items() if owner is ownership]
        assert counts[ownership.value] == sum(module_size(model, module) for module in modules)
    assert counts["trainable"] == counts["shared"] + counts["personal"]
    assert counts["trainable"] + counts["frozen"] == counts["total"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in WITH_LLM])
def test_parameter_counts_of_a_model_trained_whole(standing, name):
    model = standing(name)
    counts = parameter_counts(model)
    assert counts["trainable"] == counts["shared"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counts["personal"] == 0


@pytest.mark.parametrize("name", METHODS)
def test_steps_lower_the_loss_and_touch_only_what_is_trained(folder, name):
    model = built(folder, name)
    batch = ClientBatches(model, small_studies(), PROFILE).batch([0, 1, 2, 3])
    before, trained = everything(model), {id(p) for p in model.trainable().values()}
    model.remember_shared()
    model.train()
    optimiser, losses = torch.optim.AdamW(list(model.trainable().values()), lr=3e-3), []
    for step in range(4):
        optimiser.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimiser.step()
        model.after_step(step / 4)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for key, parameter in model.named_parameters():
        if id(parameter) not in trained:
            assert torch.equal(parameter, before[key]) or COPY in key, key
    untouched = [key for key, p in model.trainable().items() if not p.grad.any()]
    assert untouched == []


@pytest.mark.parametrize("name", METHODS)
def test_every_way_to_write_gives_reports(standing, name):
    model = standing(name).eval()
    images = small_studies().pixels[:3]
    assert model.adapters[0] == GENERIC
    for adapter in model.adapters:
        texts, _ = model.generate(images, adapter, PROFILE.generation)
        assert len(texts) == 3 and all(isinstance(text, str) for text in texts)
        assert texts == model.generate(images, adapter, PROFILE.generation)[0]
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in model.trainable().values()}


@pytest.mark.parametrize("name", METHODS)
def test_a_state_that_leaves_comes_back(standing, name):
    model = standing(name)
    sent = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}
    with torch.no_grad():
        for tensor in model.state(Ownership.SHARED).values():
            tensor += 1
    model.load_state(sent)
    assert all(torch.equal(tensor, sent[key]) for key, tensor in model.state(Ownership.SHARED).items())


@pytest.mark.parametrize("name", METHODS)
def test_the_seed_alone_decides_how_a_model_starts(standing, folder, name):
    one = everything(standing(name))
    torch.manual_seed(2)
    other = everything(built(folder, name))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_frozen_modules_are_counted_as_frozen(standing):
    model = standing("ffa-lora")
    whole = standing("fed-lora")
    half = ADAPTER_SIZES["lora"] // 2
    assert parameter_counts(model)["frozen"] == parameter_counts(whole)["frozen"] + half


def test_a_method_belongs_to_the_row_that_it_is_like(tmp_path):
    assert family_of("fedmrg-without-dual") == family_of("fedmrg-compressed") == family_of("fedmrg") == "fedmrg"
    assert family_of("fedprox") == family_of("fed-lora") and family_of("no-row") == "no-row"
    circle = tmp_path / "methods.yaml"
    circle.write_text("a: {like: b}\nb: {like: a}\n")
    assert family_of("a", circle) in ("a", "b")  # ends; `load_methods` refuses it
