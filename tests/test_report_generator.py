"""The composed model: loss parts against direct computations, strict states, generation."""

import pytest
import torch
from small_model import PROFILE, small_model, small_studies
from torch.nn import functional

from fedmrg_core.adapters import GENERIC, SPECIALISED
from fedmrg_core.configuration import Losses, Ownership, load_methods
from fedmrg_core.errors import InputError
from fedmrg_core.local_training import ClientBatches
from fedmrg_core.report_generator import Contrast, encode_reports, language_loss, pad_reports, total_loss


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


def test_a_weight_of_zero_switches_a_term_off(model):
    batch = ClientBatches(model, small_studies(), PROFILE).batch(range(4))
    contrast, weights = contrast_for(model, 4), torch.full((14,), 0.5)
    everything = dict.fromkeys(Losses.model_fields, 0.7)
    full = model.loss_terms(batch, Losses(**everything), weights, contrast)
    assert set(full) == set(Losses.model_fields)
    for name in ("classification", "contrast_inter", "contrast_intra"):
        assert set(full) - set(model.loss_terms(batch, Losses(**{**everything, name: 0.0}), weights, contrast)) == {
            name
        }
    for name in Losses.model_fields:
        less = total_loss(full, Losses(**{**everything, name: 0.0}))
        assert (total_loss(full, Losses(**everything)) - less).item() == pytest.approx(
            0.7 * full[name].item(), abs=1e-4
        )


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


@pytest.mark.parametrize("method", load_methods())
def test_each_method_shares_what_its_row_says(method, folder):
    row = load_methods()[method]
    built = small_model(folder, method)
    for ownership in (Ownership.SHARED, Ownership.PERSONAL):
        declared = {name for name, owner in row.modules.items() if owner is ownership}
        assert {key.split("/")[0] for key in built.state(ownership)} == declared
    trainable = {id(p) for p in built.parameters() if p.requires_grad}
    owned = {id(t) for name in row.modules for t in built.tensors_of(name).values() if t.requires_grad}
    assert trainable == owned


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


def test_reports_are_cut_for_training_only_at_the_limit(model):
    rows = encode_reports(model.tokenizer, ["word " * 100, "short"], PROFILE.training)
    assert len(rows[0]) == PROFILE.training.max_report_tokens and rows[0][-1] == model.tokenizer.eos_token_id
    ids, mask = pad_reports(rows, model.tokenizer.pad_token_id)
    assert ids.shape == mask.shape == (2, 16) and mask[1].sum() == len(rows[1])


def test_missing_base_models_are_named(tmp_path):
    with pytest.raises(InputError, match="run notebook 05_base_models first"):
        from fedmrg_core.configuration import load_method
        from fedmrg_core.report_generator import build_report_generator

        build_report_generator(PROFILE, load_method("fedmrg"), tmp_path / "nothing", 0)
