"""The composed model: loss parts against direct computations, strict states, generation."""

import pytest
import torch
from small_model import PROFILE, small_model, small_studies
from torch.nn import functional

from fedmrg_core.adapters import mutual_boosting
from fedmrg_core.errors import InputError
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.reports.batch import Contrast, encode_reports, language_loss, pad_reports
from fedmrg_core.tasks.reports.local_training import ClientBatches
from fedmrg_core.tasks.reports.methods import ReportLosses
from fedmrg_core.training.adapter_names import BOTH, COPY, GENERIC, MIXTURE, SPECIALISED
from fedmrg_core.training.training_steps import total_loss

pytestmark = pytest.mark.numerical


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("base") / "models"


@pytest.fixture
def model(folder):
    return small_model(folder).eval()


def contrast_for(model, rows: int) -> Contrast:
    return Contrast(torch.randn(rows, model.llm.width), torch.randn(3, model.llm.width), own=1)


def test_language_loss_by_hand(model):
    logits, ids = torch.randn(2, 3, 7), torch.randint(0, 7, (2, 3))
    mask = torch.tensor([[True, True, True], [True, False, False]])
    picked = [
        (-functional.log_softmax(logits[b, t], -1)[ids[b, t]]).item() for b, t in ((0, 0), (0, 1), (0, 2), (1, 0))
    ]
    assert language_loss(logits, ids, mask).item() == pytest.approx(sum(picked) / 4, rel=1e-5)


def test_padding_changes_no_logit(model):
    """A report's logits are the same alone and padded beside a longer one."""
    batches = ClientBatches(model, small_studies(), PROFILE)
    pair, alone = batches.batch([0, 1]), batches.batch([1])
    together = model.report_logits(model.prefix(pair.images, pair.states), pair, (GENERIC,))[0][1]
    single = model.report_logits(model.prefix(alone.images, alone.states), alone, (GENERIC,))[0][0]
    length = int(alone.report_mask.sum())
    torch.testing.assert_close(together[:length], single[:length], rtol=1e-4, atol=1e-5)


def test_teacher_forced_logits_equal_step_by_step_reading(model):
    """Position t's logits are what the LLM says after reading the prefix and the first t report tokens."""
    batch = ClientBatches(model, small_studies(), PROFILE).batch([2])
    prefix = model.prefix(batch.images, batch.states)
    logits = model.report_logits(prefix, batch, (GENERIC,))[0][0]
    for t in (0, 3):
        seen = torch.cat([prefix.embeddings, model.llm.embed(batch.report_ids[:, :t])], dim=1)
        with model.llm.active(GENERIC) as active:
            torch.testing.assert_close(active(inputs_embeds=seen).logits[0, -1], logits[t], rtol=1e-4, atol=1e-5)


# Terms of other models: of those without an LLM, and of AdaLoRA.
FOREIGN_TERMS = {"image_report_contrast", "orthogonality"}


def test_a_weight_of_zero_switches_a_term_off(model):
    batch = ClientBatches(model, small_studies(), PROFILE).batch(range(4))
    contrast, weights = contrast_for(model, 4), torch.full((14,), 0.5)
    everything = dict.fromkeys(ReportLosses.model_fields, 0.7)
    full = model.loss_terms(batch, ReportLosses(**everything), weights, contrast)
    assert set(full) == set(ReportLosses.model_fields) - FOREIGN_TERMS
    for name in ("classification", "contrast_inter", "contrast_intra"):
        assert set(full) - set(
            model.loss_terms(batch, ReportLosses(**{**everything, name: 0.0}), weights, contrast)
        ) == {name}
    for name in full:
        less = total_loss(full, ReportLosses(**{**everything, name: 0.0}))
        assert (total_loss(full, ReportLosses(**everything)) - less).item() == pytest.approx(
            0.7 * full[name].item(), abs=1e-4
        )


def test_adalora_has_a_term_of_its_own(folder):
    model = small_model(folder, "fed-adalora").eval()
    batch, weights = ClientBatches(model, small_studies(), PROFILE).batch(range(4)), torch.full((14,), 0.5)
    terms = model.loss_terms(batch, model.method.losses, weights, None)
    assert set(terms) == {"language", "orthogonality"}
    assert terms["orthogonality"].item() == pytest.approx(model.llm.orthogonality().item())
    assert terms["orthogonality"] > 0
    assert set(model.loss_terms(batch, ReportLosses(), weights, None)) == {"language"}


def test_feddat_trains_the_generic_adapter_and_the_mixture(folder):
    model = small_model(folder, "feddat").eval()
    with torch.no_grad():
        for name in (GENERIC, SPECIALISED):
            for parameter in model.llm.parameters_of(name).values():
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    model.remember_shared()
    with torch.no_grad():
        for parameter in model.llm.parameters_of(GENERIC).values():
            parameter += 0.05
    batch, weights = ClientBatches(model, small_studies(), PROFILE).batch(range(4)), torch.full((14,), 0.5)
    terms = model.loss_terms(batch, model.method.losses, weights, None)
    assert set(terms) == {"language", "generic_to_specialised", "specialised_to_generic"}
    generic, mixture = model.report_logits(model.prefix(batch.images), batch, (GENERIC, MIXTURE))
    expected = mutual_boosting(generic, mixture, batch.report_mask, 3.0)
    assert terms["generic_to_specialised"].item() == pytest.approx(expected[0].item(), rel=1e-4)
    assert terms["specialised_to_generic"].item() == pytest.approx(expected[1].item(), rel=1e-4)
    language = sum(language_loss(x, batch.report_ids, batch.report_mask) for x in (generic, mixture))
    assert terms["language"].item() == pytest.approx(language.item(), rel=1e-5)
    total_loss(terms, model.method.losses).backward()
    assert all(p.grad is None for p in model.llm.parameters_of(COPY).values())
    assert all(p.grad is not None for p in model.llm.parameters_of(SPECIALISED).values())
    assert model.method.losses.generic_to_specialised == model.method.losses.language == 1.0  # task and KL alike
    assert model.validated == (GENERIC, BOTH) and set(model.answers) == {GENERIC, SPECIALISED, BOTH}


OWNERS = {"fed-lora": "shared", "fedper": "personal", "ffa-lora": "shared", "fedsa-lora": "personal", "r2gengpt": None}


@pytest.mark.parametrize(("row", "owner"), OWNERS.items())
def test_the_owner_of_an_adapter(folder, row, owner):
    assert small_model(folder, row).adapter_owner(GENERIC) == owner


def test_factors_are_halves_of_one_adapter_and_start_alike_everywhere(folder):
    model, again = small_model(folder, "ffa-lora"), small_model(folder, "ffa-lora")
    a, b = (model.tensors_of(f"generic_adapter_{factor}") for factor in "ab")
    assert {**a, **b}.keys() == model.llm.parameters_of(GENERIC).keys() and not a.keys() & b.keys()
    assert all(torch.equal(a[key], again.tensors_of("generic_adapter_a")[key]) and a[key].any() for key in a)
    assert not any(tensor.any() for tensor in b.values())


def test_state_round_trip_and_ownership(model, folder):
    other = small_model(folder)
    with torch.no_grad():
        for tensor in (*other.state(Ownership.SHARED).values(), *other.state(Ownership.PERSONAL).values()):
            tensor.add_(0.5)
    model.load_state({**other.state(Ownership.SHARED), **other.state(Ownership.PERSONAL)})
    for ownership in (Ownership.SHARED, Ownership.PERSONAL):
        for name, tensor in other.state(ownership).items():
            assert torch.equal(model.state(ownership)[name], tensor), name


def test_strict_state(model):
    shared = model.state(Ownership.SHARED)
    name = next(iter(shared))
    with pytest.raises(InputError, match="missing or unknown"):
        model.load_state({key: value for key, value in shared.items() if key != name})
    with pytest.raises(InputError, match="has shape"):
        model.load_state({**shared, name: torch.zeros(1, 2, 3, 4, 5)})
    with pytest.raises(InputError, match="module 'llm' is unknown"):
        model.load_state({"llm/weight": torch.zeros(1)})


def test_generation_is_repeatable_and_adapter_dependent(model):
    images = small_studies().pixels[:3]
    with torch.no_grad():
        for parameter in model.llm.parameters_of(SPECIALISED).values():
            parameter.normal_(std=3.0, generator=torch.Generator().manual_seed(1))
    first, out = model.generate(images, GENERIC, PROFILE.generation)
    again, _ = model.generate(images, GENERIC, PROFILE.generation)
    special, _ = model.generate(images, SPECIALISED, PROFILE.generation)
    assert first == again and len(first) == 3 and first != special
    assert out.auxiliary["states"].shape == (3, 14)


def test_end_bias_makes_reports_longer(model):
    images, settings = small_studies().pixels[:3], PROFILE.generation.model_copy(update={"beams": 1})
    length = lambda bias: sum(  # noqa: E731
        len(text) for text in model.generate(images, GENERIC, settings.model_copy(update={"end_bias": bias}))[0]
    )
    with torch.no_grad():  # make it end at once
        head = model.llm.peft.get_output_embeddings()
        kept, end = head.weight.clone(), model.tokenizer.eos_token_id
        hidden = []
        handle = head.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0][:, -1].mean(dim=0)))
        model.generate(images, GENERIC, settings)
        handle.remove()
        head.weight[end] = hidden[0] / hidden[0].norm() * 10
        assert length(0.0) < length(-1000.0)
        head.weight.copy_(kept)


def test_reports_are_cut_for_training_only_at_the_limit(model):
    rows = encode_reports(model.tokenizer, ["word " * 100, "short"], PROFILE.training)
    assert len(rows[0]) == PROFILE.training.max_report_tokens and rows[0][-1] == model.tokenizer.eos_token_id
    ids, mask = pad_reports(rows, model.tokenizer.pad_token_id)
    assert ids.shape == mask.shape == (2, 16) and mask[1].sum() == len(rows[1])


def test_missing_base_models_are_named(tmp_path):
    with pytest.raises(InputError, match="run notebook 05_base_models first"):
        from fedmrg_core.runs.methods import load_method
        from fedmrg_core.tasks.reports.build import build_report_generator

        build_report_generator(PROFILE, load_method("fedmrg"), tmp_path / "nothing", 0)
