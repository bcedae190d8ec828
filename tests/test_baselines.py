"""The models trained whole: sizes, writing against teacher forcing, training, and bad rows."""

import math

import pytest
import torch
from small_model import PROFILE, small_studies

from fedmrg_core.errors import InputError
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.tasks.reports.baselines.findings_graph import NODES
from fedmrg_core.tasks.reports.baselines.image_report_contrast import image_report_contrast, negative_weights
from fedmrg_core.tasks.reports.baselines.transformer import IMAGE_LAYERS
from fedmrg_core.tasks.reports.build import build_report_generator, build_whole_model
from fedmrg_core.tasks.reports.local_training import ClientBatches, first_state, train_client, validate_client
from fedmrg_core.tasks.reports.methods import ReportLosses
from fedmrg_core.training.optimisation import adamw
from fedmrg_core.training.training_steps import total_loss

pytestmark = pytest.mark.numerical

ROWS = ("transformer", "r2gen", "wcl", "dcl")
STEPS = 100  # to learn eight studies by heart
LIVELY = {"rtol": 1e-4, "atol": 1e-4}  # float32 errs by 5e-6 under weights as large as `lively` makes them
GENERATION = PROFILE.generation


def build(base_models, row, changes=None, seed=0):
    method = load_method(row)
    return build_whole_model(PROFILE, method.model_copy(update=changes or {}), base_models, seed)


def lively(base_models, row):
    """A model that writes differently from image to image and word to word, as a fresh one does not."""
    model = build(base_models, row).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            large = "layers" in name and parameter.dim() == 2  # so that the words read do not outweigh the rest
            parameter.add_(torch.randn(parameter.shape, generator=generator) * (0.5 if large else 0.1))
    return model


def decode(model, seen, **changes):
    return model.decoder.report.write(seen, GENERATION.model_copy(update=changes))


def something_seen(count=6):
    return torch.randn(count, 5, 32, generator=torch.Generator().manual_seed(1))


# ---- building ----


@pytest.mark.parametrize("row", ROWS)
def test_every_row_builds_and_writes_like_a_report_generator(base_models, row):
    model = build_report_generator(PROFILE, load_method(row), base_models, seed=0).eval()
    pixels = small_studies(3).pixels
    texts, prompts = model.generate(pixels, "generic_adapter", GENERATION)
    assert len(texts) == 3 and prompts.auxiliary == {} and prompts.prompts.shape[1] == 0
    assert model.features(pixels).shape == (3, 32) and model.adapters == ("generic_adapter",)
    assert {key.split("/")[0] for key in model.state(Ownership.SHARED)} == {"encoder", "decoder"}


@pytest.mark.parametrize("row", ROWS)
def test_the_seed_sets_every_parameter(base_models, row):
    one, same, other = (build(base_models, row, seed=seed).state(Ownership.SHARED) for seed in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["decoder/projection.0.weight"], other["decoder/projection.0.weight"])


def test_parameters_of_the_transformer_by_formula(base_models):
    model = build(base_models, "transformer")
    tokens = model.encoder.eval()(small_studies(1).pixels).tokens.shape[1]
    width, layers, report_tokens = 32, 2, 17
    attention, feed_forward, norm = 4 * width**2 + 4 * width, 8 * width**2 + 5 * width, 2 * width
    image = IMAGE_LAYERS * (attention + feed_forward + 2 * norm) + 2 * norm + (tokens + 2) * width
    report = layers * (2 * attention + feed_forward + 3 * norm) + 2 * norm + (report_tokens + 2) * width
    expected = image + report + len(model.tokenizer) * width + 16 * width + width + norm  # the last three: projection
    assert sum(p.numel() for p in model.decoder.parameters()) == expected
    assert sum(t.numel() for key, t in model.trainable().items() if key.startswith("decoder/")) == expected


def test_bad_rows_are_refused(base_models, tmp_path):
    with pytest.raises(InputError, match="transformer.*losses.image_report_contrast"):
        build(base_models, "transformer", {"losses": ReportLosses(image_report_contrast=0.2)})
    with pytest.raises(InputError, match="prompts"):
        build(base_models, "wcl", {"prompts": "diagnosis"})
    with pytest.raises(InputError, match="modules.projection"):
        build(base_models, "dcl", {"modules": {**load_method("dcl").modules, "projection": Ownership.SHARED}})
    with pytest.raises(InputError, match="not trained whole"):
        build(base_models, "r2gen", {"model": "llm"})
    with pytest.raises(InputError, match="notebook 05"):
        build(tmp_path / "nowhere", "r2gen")
    with pytest.raises(InputError, match="trained whole"):
        build(base_models, "r2gen").save_adapter("generic_adapter", tmp_path)


# ---- writing ----


@pytest.mark.parametrize("row", ROWS)
def test_greedy_writing_is_what_teacher_forcing_says(base_models, row):
    model = lively(base_models, row)
    seen = something_seen()
    ids = decode(model, seen, beams=1)[:, 1:]
    with torch.no_grad():
        said = model.decoder.report.logits(seen, ids).argmax(dim=-1)
    ends = (ids == model.tokenizer.eos_token_id).long()
    before_end = ends.cumsum(dim=1) == ends
    assert torch.equal(ids[before_end], said[before_end])
    assert len(ids.unique()) > 4 and len({tuple(row) for row in ids.tolist()}) > 1  # neither dull nor blind


@pytest.mark.parametrize("row", ROWS)
def test_beams_with_and_without_cache_agree(base_models, row):
    model = lively(base_models, row)
    seen, settings = something_seen(), GENERATION.model_copy(update={"beams": 4})
    cached, anew = (model.decoder.report.write(seen, settings, cached=cached) for cached in (True, False))
    assert torch.equal(cached, anew)
    assert not torch.equal(cached, decode(model, seen, beams=1))


@pytest.mark.parametrize("row", ROWS)
def test_as_many_beams_as_words_find_the_likeliest_report(base_models, row):
    model = lively(base_models, row)
    seen, words, end = something_seen(1), len(model.tokenizer), model.tokenizer.eos_token_id
    with torch.no_grad():
        pairs = torch.stack([torch.arange(words), torch.zeros(words, dtype=torch.long)], dim=1)
        likely = model.decoder.report.logits(seen.expand(words, -1, -1), pairs).log_softmax(dim=-1)
    both = likely[0, 0][:, None] + likely[:, 1]  # (first, second)
    both[end] = -math.inf
    both[end, 0] = likely[0, 0, end]  # a report of nothing
    best = divmod(both.argmax().item(), words)
    found = decode(model, seen, beams=words, max_new_tokens=2, length_penalty=0.0)[0, 1:].tolist()
    assert found == list(best[:1] if best[0] == end else best)


def test_repetition_penalty_and_length_are_honoured(base_models):
    model = lively(base_models, "r2gen")
    ids = decode(model, something_seen(), beams=2, max_new_tokens=5, repetition_penalty=1e6)[:, 1:]
    assert ids.shape[1] <= 5
    for row in ids.tolist():
        written = [word for word in row if word != model.tokenizer.pad_token_id]
        assert len(set(written)) == len(written)
    with pytest.raises(InputError, match="max_new_tokens"):
        decode(model, something_seen(), max_new_tokens=50)


@pytest.mark.parametrize("row", ROWS)
def test_state_round_trip_writes_the_same(base_models, row):
    first, second = lively(base_models, row), build(base_models, row, seed=9).eval()
    pixels = small_studies(4).pixels
    second.load_state({key: tensor.clone() for key, tensor in first.state(Ownership.SHARED).items()})
    assert first.generate(pixels, "", GENERATION)[0] == second.generate(pixels, "", GENERATION)[0]


@pytest.mark.parametrize("row", ROWS)
def test_later_words_do_not_change_earlier_logits(base_models, row):
    model = lively(base_models, row)
    seen, ids = something_seen(2), torch.randint(5, 200, (2, 7), generator=torch.Generator().manual_seed(0))
    changed = ids.clone()
    changed[:, 4:] = 7
    with torch.no_grad():
        one, other = model.decoder.report.logits(seen, ids), model.decoder.report.logits(seen, changed)
    torch.testing.assert_close(one[:, :5], other[:, :5], **LIVELY)
    assert not torch.allclose(one[:, 5], other[:, 5])


# ---- training ----


@pytest.mark.parametrize("row", ROWS)
def test_eight_studies_can_be_learnt_by_heart(base_models, row):
    model = build(base_models, row).train()
    studies = small_studies(8)
    batch = ClientBatches(model, studies, PROFILE).batch(range(8))
    optimiser = adamw([*model.trainable().values()], lr=1e-2)
    # The rate falls to nothing. At a steady one the last steps throw a study out and in again, and the last bits of a
    # processor's sums decide which texts come back; now every word of every study has more than half the probability.
    pace = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, total_iters=STEPS)
    losses = []
    for _ in range(STEPS):
        terms = model.loss_terms(batch, model.method.losses, torch.ones(14), None)
        optimiser.zero_grad()
        total_loss(terms, model.method.losses).backward()
        optimiser.step()
        pace.step()
        losses.append({name: value.item() for name, value in terms.items()})
    assert all(losses[-1][name] < 0.1 * losses[0][name] for name in terms)
    with torch.no_grad():
        for _ in range(40):
            model.encoder(studies.pixels)  # BatchNorm's statistics lag behind
    longer = GENERATION.model_copy(update={"max_new_tokens": 16})
    known = [model.tokenizer.decode(ids[:-1]) for ids in ClientBatches(model, studies, PROFILE).report_ids]
    assert model.eval().generate(studies.pixels, "generic_adapter", longer)[0] == [text.strip() for text in known]


@pytest.mark.parametrize("row", ROWS)
def test_a_step_reaches_every_parameter_and_nothing_frozen(base_models, row):
    frozen = {"encoder": Ownership.FROZEN, "decoder": Ownership.PERSONAL}
    model = build(base_models, row, {"modules": frozen})
    encoder = {key: tensor.clone() for key, tensor in model.state(Ownership.FROZEN).items()}
    assert model.initial_personal.keys() == model.state(Ownership.PERSONAL).keys()
    update = train_client(
        model, small_studies(), {}, None, {}, client="a", round_number=1, profile=PROFILE, method=model.method,
        seed=0, progress=False,
    )  # fmt: skip
    assert all(torch.equal(tensor, encoder[key]) for key, tensor in model.state(Ownership.FROZEN).items())
    moved = update.state.part("personal")
    still = {key for key, tensor in moved.items() if torch.equal(tensor, model.initial_personal[key])}
    assert moved.keys() == model.initial_personal.keys() and not still


@pytest.mark.parametrize("row", ROWS)
def test_a_client_s_update_repeats_to_the_byte(base_models, row):
    model = build(base_models, row)
    start = {key: tensor.clone() for key, tensor in model.state(Ownership.SHARED).items()}

    def update():
        return train_client(
            model, small_studies(), start, None, {}, client="a", round_number=1, profile=PROFILE, method=model.method,
            seed=0, progress=False,
        )  # fmt: skip

    first, again = update(), update()
    assert first.metrics == again.metrics
    assert all(torch.equal(first.shared[key], again.shared[key]) for key in start)
    assert ("train_image_report_contrast" in first.metrics) == (row in ("wcl", "dcl"))
    state = first_state(model, small_studies())
    measures, _ = validate_client(
        model, small_studies(), start, state, client="a", profile=PROFILE, method=model.method
    )
    assert measures["validation_loss"] == pytest.approx(measures["validation_language_loss_generic_adapter"])


# ---- WCL and DCL ----


def test_only_wcl_weighs_negatives(base_models):
    studies = small_studies(8)
    studies.states[:] = 1  # every negative is as hard as can be
    terms = {}
    for row in ("wcl", "dcl"):
        model = build(base_models, row).eval()
        batch = ClientBatches(model, studies, PROFILE).batch(range(8))
        seen = model.prefix(batch.images).embeddings.mean(dim=1)
        read = model.decoder.report.read(batch.report_ids, batch.report_mask)
        heads = (model.decoder.contrast.image(seen), model.decoder.contrast.report(read))
        weights = negative_weights(batch.states, batch.report_ids, 2.0 if row == "wcl" else 1.0)
        terms[row] = weights.max().item()
        expected = image_report_contrast(*heads, weights, PROFILE.training.contrast_temperature)
        got = model.loss_terms(batch, model.method.losses, torch.ones(14), None)["image_report_contrast"]
        torch.testing.assert_close(got, expected)
    assert terms == {"wcl": 2.0, "dcl": 1.0}


def test_a_report_is_read_without_its_padding_and_without_the_image(base_models):
    model = lively(base_models, "wcl")
    batch = ClientBatches(model, small_studies(4), PROFILE).batch(range(4))
    together = model.decoder.report.read(batch.report_ids, batch.report_mask)
    for row in range(4):
        ids = batch.report_ids[row][batch.report_mask[row]][None]
        alone = model.decoder.report.read(ids, torch.ones_like(ids))[0]
        torch.testing.assert_close(alone, together[row], **LIVELY)


def test_the_decoder_attends_to_the_graph(base_models):
    model = lively(base_models, "dcl")
    images, ids = small_studies(2).pixels, torch.full((2, 4), 9)
    with torch.no_grad():
        seen = model.prefix(images).embeddings
        assert seen.shape[1] == model.encoder(images).tokens.shape[1] + NODES
        changed = seen.clone()
        changed[:, -NODES:] += 1.0
        one, other = model.decoder.report.logits(seen, ids), model.decoder.report.logits(changed, ids)
    assert not torch.allclose(one, other)
