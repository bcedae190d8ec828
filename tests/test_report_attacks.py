"""What an update of a report model gives away: words where they must come back, statistics, floors, refusals."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
import types

import pytest
import torch
import transformers
from small_model import PROFILE, small_base_models, small_model, small_studies
from torch import nn

from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.defences import DEFENCES
from fedmrg_core.federation.curious.inversion import Attack
from fedmrg_core.federation.curious.recomputed import recomputed_update, sent_by
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.runs.configuration import Federation
from fedmrg_core.runs.methods import load_method
from fedmrg_core.tasks.reports.attacks import finding_table, image_table, word_table, words
from fedmrg_core.tasks.reports.attacks.attacked import Attacked, BatchLoss, Case, open_attacked
from fedmrg_core.tasks.reports.attacks.crafted import craft_start
from fedmrg_core.tasks.reports.attacks.words import find_readers, in_the_span, token_strengths
from fedmrg_core.tasks.reports.client_batches import ClientBatches
from fedmrg_core.training.adapter_names import GENERIC

WIDE = PROFILE.model_copy(update={"base_models": PROFILE.base_models.model_copy(update={"llm_width": 96})})


# ---- the two ways to find tokens ----


@pytest.fixture
def read() -> tuple[torch.Tensor, torch.Tensor]:
    """A vocabulary of 100 tokens in 40 dimensions, and 8 rows made of tokens 3, 14 and 15."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(100, 40, generator=generator)
    return inputs, torch.randn(8, 3, generator=generator) @ inputs[[3, 14, 15]]


def test_few_tokens_are_found_by_sparse_regression(read):
    inputs, rows = read
    before = torch.randn(4, 40, generator=torch.Generator().manual_seed(1))  # a tenth of all directions is left out
    unknown = torch.randn(8, 4, generator=torch.Generator().manual_seed(2)) @ before
    strengths = token_strengths(rows + unknown, inputs, before, torch.ones(100))
    assert set(strengths.topk(3).indices.tolist()) == {3, 14, 15}
    assert strengths.topk(4).values[3] < 0.2 * strengths.topk(3).values[2]


def test_a_frequent_token_needs_less_evidence(read):
    inputs, rows = read
    prior = torch.ones(100)
    prior[3] = 0.01
    strengths = token_strengths(rows, inputs, torch.zeros(1, 40), prior)
    assert strengths[3] < strengths[14]


def test_tokens_lie_in_the_span_of_a_whole_matrix(read):
    inputs, rows = read
    near = in_the_span(rows, inputs)
    assert set(near.topk(3).indices.tolist()) == {3, 14, 15} and near.topk(3).values.min() > 1 - 1e-5
    assert near.topk(4).values[3] < 0.9
    assert in_the_span(torch.eye(40), inputs) is None  # as many directions as there are: everything lies within
    assert in_the_span(torch.eye(40) * 1e-3 + rows[0], inputs, error=1.0) is not None  # noise alone is left out


# ---- a whole model ----


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    """An LLM 96 wide whose adapter has moved; nothing of it was trained."""
    folder = tmp_path_factory.mktemp("wide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("small_model.PROFILE", WIDE)
        model = small_model(small_base_models(folder), profile=WIDE).eval()
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.llm.parameters_of(GENERIC).items():
        if name.endswith("lora_B"):
            tensor.data = 0.3 * torch.randn(tensor.shape, generator=generator)
    task = types.SimpleNamespace(configuration=types.SimpleNamespace(method=load_method("fedmrg")))
    return Attacked(task, model, *(ClientBatches(model, small_studies(10, seed), WIDE) for seed in (0, 1)))


def test_the_words_of_one_report_come_back_whole_from_a_whole_llm(attacked):
    case = Case(batch=1, steps=1, draw=0, seed=0, pace=0.01)
    rows = {row["sent"]: row for row in word_table._rows(attacked, case, DEFENCES["none"])}
    assert rows["whole LLM"]["tokens"] == 1
    assert 0 <= rows["adapter"]["tokens"] <= 1 and rows["nothing"]["tokens"] < 1
    weights = word_table._matrices(attacked.model)
    assert not any(weight.requires_grad for weight in weights.values())  # the LLM is frozen again


def test_layers_whose_input_depends_on_the_token_alone(attacked):
    assert {reader.name for reader in attacked.readers} == {
        "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
    }  # fmt: skip
    alone = attacked.readers[0].inputs[7]
    norm = attacked.model.llm.peft.get_base_model().model.layers[0].input_layernorm
    assert torch.allclose(alone, norm(attacked.model.llm.embed(torch.tensor([7]))[0]), atol=1e-6)


def test_learned_positions_are_refused():
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=16)
    llm = transformers.GPT2LMHeadModel(config).eval()

    def call(embeddings, mask, length, names):
        return llm(inputs_embeds=embeddings, attention_mask=mask).logits

    call.embed, call.peft = llm.get_input_embeddings(), types.SimpleNamespace(get_base_model=lambda: llm)
    model = types.SimpleNamespace(llm=call, tokenizer=range(50), adapters=(GENERIC,))
    with pytest.raises(InputError, match="no adapted layer of this LLM reads a token alike wherever it stands"):
        find_readers(model, torch.zeros(3, 32), ["transformer.h.0.attn.c_attn"])


def test_where_a_stays_no_start_can_be_crafted(tmp_path):
    model = small_model(small_base_models(tmp_path), "ffa-lora")
    with pytest.raises(InputError, match="method 'ffa-lora' keeps its adapter's A, so its start cannot be crafted"):
        craft_start(model)


def test_a_crafted_start_leaves_words_alone_in_the_update(attacked):
    model = copy.deepcopy(attacked.model)
    other = dataclasses.replace(attacked, model=model)
    craft_start(model)
    batch = attacked.own.batch([0])
    with torch.no_grad():
        before = model.prefix(batch.images, batch.states).embeddings[0]
    known = [position for position in range(len(before)) if before[position].any()]
    assert len(known) == 1 + len(model.instruction_ids)  # <s> and the instruction
    case = Case(batch=1, steps=1, draw=0, seed=0, pace=0.01)
    found = {
        name: next(row for row in word_table._rows(each, case, DEFENCES["none"]) if row["sent"] == "adapter")
        for name, each in (("honest", attacked), ("crafted", other))
    }
    assert found["crafted"]["tokens"] >= max(0.8, found["honest"]["tokens"])


# ---- findings ----


@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 3), (4, 1)])
def test_the_prompts_that_moved_name_every_state_of_the_batch(attacked, batch, steps):
    case = Case(batch=batch, steps=steps, draw=0, seed=0, pace=0.01)
    loss, studies = BatchLoss(attacked), case.studies(attacked)
    update = recomputed_update(loss, sent_by(attacked.model), (studies,), steps, case.pace)
    read = finding_table.states_read(update[finding_table.TABLE_KEY])
    assert torch.equal(read, finding_table.state_counts(studies.states) > 0)
    rows = {row["rebuilt_by"]: row for row in finding_table.finding_rows(attacked, case, DEFENCES["none"])}
    assert rows["table of prompts"]["occurring"] == 1 and "counted" not in rows["table of prompts"]
    if batch == 1:
        assert rows["bias of the head"]["occurring"] == rows["bias of the head"]["counted"] == 1
    assert {"mean of another hospital", "random studies"} < rows.keys()


@pytest.mark.parametrize("count", [1, 5, 16])
def test_the_bias_counts_states_where_the_guess_is_right(count):
    generator = torch.Generator().manual_seed(count)
    logits = torch.randn(count, 14, 4, generator=generator)
    states = torch.randint(4, (count, 14), generator=generator)
    bias = torch.zeros(14, 4, requires_grad=True)
    nn.functional.cross_entropy((logits + bias).flatten(0, 1), states.flatten()).backward()
    guessed = logits.softmax(dim=-1).mean(dim=0)
    counts = finding_table.counted_states(bias.grad.flatten(), guessed, count)
    assert torch.equal(counts, finding_table.state_counts(states))


def test_noise_alone_names_no_state():
    change = 0.1 * torch.randn(56, 96, generator=torch.Generator().manual_seed(0))
    assert not finding_table.states_read(change, noise=0.1).any()
    change[7] += 1.0
    assert finding_table.states_read(change, noise=0.1).flatten().nonzero().tolist() == [[7]]


def test_agreement_counts_what_both_have():
    agreement = finding_table.agreement
    assert agreement(torch.zeros(14), torch.zeros(14)) == 1
    assert agreement(torch.tensor([3, 0, 1]), torch.tensor([1, 2, 1])) == 2 * 2 / (4 + 4)
    assert agreement(torch.tensor([True, False]), torch.tensor([False, True])) == 0


def test_a_row_without_diagnosis_prompts_shows_no_findings(tmp_path):
    model = small_model(small_base_models(tmp_path), "fed-lora")
    with pytest.raises(InputError, match="method 'fed-lora' shares no diagnosis prompts, so no update shows its find"):
        finding_table._check_sent(model)


# ---- images ----


def test_statistics_that_travel_are_those_of_the_batch(attacked):
    layers = image_table._norm_layers(attacked)
    batch = attacked.own.batch([0, 1, 2])
    layer = layers[0]
    before = layer.running_mean.clone(), layer.running_var.clone()
    for each in layers:
        each.train()
    with torch.no_grad():
        attacked.model.encoder(batch.images)
    told = [
        start + (now - start) / layer.momentum
        for start, now in zip(before, (layer.running_mean, layer.running_var), strict=True)
    ]
    with image_table._as_in_training(layers):
        mean, variance = image_table._statistics(attacked, layers, batch.images)[0]
    assert torch.allclose(told[0], mean, atol=1e-4) and torch.allclose(told[1], variance, rtol=1e-3)
    prior = image_table._statistics_prior(attacked, layers, batch.images)
    assert prior(batch.images) < 1e-6 < prior(1 - batch.images)


# ---- tables of a run ----


@pytest.fixture(scope="module")
def trained(workspace: pathlib.Path) -> dict[str, pathlib.Path]:
    """Runs of one round."""
    folders = {}
    for method in ("fedmrg", "ffa-lora", "transformer", "r2gengpt"):
        folders[method] = workspace / "attacked" / method
        folders[method].mkdir(parents=True)
        once = PROFILE.model_copy(update={"federation": Federation(rounds=1)})
        settings = configure_run(
            folders[method], profile=once, method=load_method(method), data="phantom", partition="random", clients=2,
            prepared=workspace / "prepared", base_models=workspace / "base_models", threads=1,
        )  # fmt: skip
        run_federation(folders[method], settings, progress=False)
    return folders


@pytest.mark.parametrize("method", ["fedmrg", "ffa-lora"])
def test_the_table_of_words(trained, method, monkeypatch):
    monkeypatch.setattr(words, "ITERATIONS", 20)
    tables = [
        word_table.attack_words(trained[method], batches=(1, 2), steps=(2,), draws=1, defences=("none", "8 bits"))
        for _ in range(2)
    ]
    table = tables[0]
    assert list(table.columns) == list(word_table.COLUMNS) and set(table["method"]) == {method}
    assert len(table) == 2 * 2 * 4 and table["tokens"].between(0, 1).all()
    floors = table[table.sent == "nothing"]
    assert floors.groupby(["batch", "rebuilt_by"])["tokens"].nunique().eq(1).all()  # no update, no difference
    assert tables[1].equals(table)


def test_the_table_of_findings(trained):
    arguments = {"batches": (1, 2), "steps": (1, 2), "draws": 2, "defences": ("none", "8 bits", "noise .01")}
    table = finding_table.attack_findings(trained["fedmrg"], **arguments)
    assert list(table.columns) == list(finding_table.COLUMNS) and set(table["method"]) == {"fedmrg"}
    assert len(table) == 2 * 2 * 3 * 4 and table["occurring"].between(0, 1).all()
    assert (table["counted"].isna() == (table["rebuilt_by"] == "table of prompts")).all()
    plain = table[table["defence"] == "none"].set_index(["batch", "steps", "rebuilt_by"])["occurring"]
    assert (plain.xs("table of prompts", level="rebuilt_by") == 1).all()  # whatever the batch, and after two steps
    assert plain[1, 1, "bias of the head"] == 1
    assert finding_table.attack_findings(trained["fedmrg"], **arguments).equals(table)


def test_the_table_of_images(trained):
    table = image_table.attack_images(trained["fedmrg"], Attack(iterations=2, restarts=1), batches=(1, 2))
    assert list(table.columns) == list(image_table.COLUMNS)
    assert list(table[table.batch == 1].rebuilt_by) == [
        "matching", "matching, statistics", "mean image", "random training image"
    ]  # fmt: skip
    assert table[["psnr", "ssim", "perceptual"]].notna().all(axis=None) and table.perceptual.between(0, 2).all()
    model = open_attacked(trained["fedmrg"]).model
    assert not any(layer.training for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))


def test_what_cannot_be_attacked_is_refused(trained):
    with pytest.raises(InputError, match="expected a finished run of reports whose row has a frozen LLM"):
        word_table.attack_words(trained["transformer"])
    with pytest.raises(InputError, match="method 'r2gengpt' shares no adapter, so no update shows its words"):
        word_table.attack_words(trained["r2gengpt"], batches=(1,))
    with pytest.raises(InputError, match="a hospital has fewer than 999 training studies; ask for fewer"):
        word_table.attack_words(trained["fedmrg"], batches=(999,))
    with pytest.raises(InputError, match="a hospital has fewer than 999 training studies; ask for fewer"):
        image_table.attack_images(trained["fedmrg"], Attack(), batches=(999,))
    with pytest.raises(InputError, match="a hospital has fewer than 999 training studies; ask for fewer"):
        finding_table.attack_findings(trained["fedmrg"], batches=(999,))
    attacks = word_table.attack_words, finding_table.attack_findings
    for attack in (*attacks, lambda run, **given: image_table.attack_images(run, Attack(), **given)):
        with pytest.raises(InputError, match="defence 'mask' is unknown; expected one of none, 8 bits"):
            attack(trained["fedmrg"], defences=("mask",))
