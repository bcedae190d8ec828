"""What updates give away: inversion where it must succeed, floors, scores, and what is refused."""

from __future__ import annotations

import pathlib

import pandas
import pytest
import torch
from family_vits import family_models
from small_pictures import small_inputs, small_profile, small_run
from torch import Tensor, nn

from fedmrg_core.data.pictures.picture import Subject
from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.defences import Defence, errors
from fedmrg_core.federation.curious.image_scores import MEAN_IMAGE, RANDOM_IMAGE, floors, likeness, matched
from fedmrg_core.federation.curious.inversion import Attack, total_variation
from fedmrg_core.federation.curious.perceptual import NETWORKS, unattacked_network
from fedmrg_core.federation.run import run_federation
from fedmrg_core.files.described_folders import read_description
from fedmrg_core.runs.configuration import Federation
from fedmrg_core.runs.methods import Losses, Method, Ownership, Payload, load_method
from fedmrg_core.tasks.visual_prompts.attacks.attacking import (
    COLUMNS,
    MATCHED,
    SOLVED,
    _rows,
    attack_run,
    match_pictures,
)
from fedmrg_core.tasks.visual_prompts.attacks.closed_form import has_closed_form, solve_patches
from fedmrg_core.tasks.visual_prompts.attacks.updates import update_of
from fedmrg_core.tasks.visual_prompts.backbones import TokenBackbone, load_token_backbone
from fedmrg_core.tasks.visual_prompts.base_model import new_vit
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel
from fedmrg_core.training.trained_model import TrainedModel

SIDE = 12
SUBJECT = Subject("several", ("here", "there"))


class Weights(Losses):
    square: float = 2.0


class Row(Method):
    modules: dict[str, Ownership]
    losses: Weights = Weights()


class Perceptron(TrainedModel):
    """Two layers on the pixels: the first one's gradient is its error times the picture."""

    def __init__(self, owner: str = "shared") -> None:
        super().__init__(Row(name="perceptron", description="", modules={"net": owner}))
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 48), nn.Sigmoid(), nn.Linear(48, 2))
        self.settle_ownership()

    def loss_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"square": (self.net(batch["pixels"]) - batch["truth"]).pow(2).mean()}


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor]:
    """Three smooth pictures (3, 1, 12, 12) with their truth."""
    line = torch.linspace(0, 1, SIDE)
    pictures = [line[:, None] * line, 1 - line[:, None].expand(SIDE, SIDE), (line * 6.3).sin().abs().expand(SIDE, SIDE)]
    return torch.stack(pictures)[:, None].clone(), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def perceptron(owner: str = "shared") -> Perceptron:
    torch.manual_seed(0)
    return Perceptron(owner)


def vit_of(method: str, prompts: int = 3) -> PromptedModel:
    """A small ViT with a row's modules, none trained: 16 patches of 8 x 8 pixels, 32 dimensions."""
    profile = small_profile(width=32, prompts=prompts)
    torch.manual_seed(0)
    vit = TokenBackbone(new_vit(profile.pictures, 32))
    row = load_method(method, task="visual_prompts")
    return PromptedModel(row, SUBJECT, profile.pictures, profile.adapter, vit).eval()


def test_one_step_is_the_gradient_and_more_are_steps_on_the_way(drawn):
    pixels, truth = drawn
    model = perceptron()
    before = {key: tensor.clone() for key, tensor in model.trainable().items()}
    model.zero_grad()
    (2 * model.loss_terms({"pixels": pixels, "truth": truth})["square"]).backward()
    once = update_of(model, pixels, truth)
    for key, tensor in model.trainable().items():
        torch.testing.assert_close(once[key], tensor.grad)
    twice = update_of(model, pixels, truth, steps=2, pace=0.1)
    with torch.no_grad():
        for key, tensor in model.trainable().items():
            tensor -= 0.1 * once[key]
    second = update_of(model, pixels, truth)
    for key in once:
        torch.testing.assert_close(twice[key], once[key] + second[key], atol=1e-5, rtol=1e-4)
    model.load_state(before)
    assert update_of(model, pixels, truth)[key].equal(once[key])  # the model itself is left as it was


def test_one_picture_of_a_network_that_travels_whole_comes_back(drawn):
    pixels, truth = drawn[0][:1], drawn[1][:1]
    model, start = perceptron(), torch.full((1, SIDE, SIDE), 0.5)
    attack = Attack(iterations=250, restarts=1, total_variation=1e-3)
    found = match_pictures(
        model, update_of(model, pixels, truth), truth, start, attack, torch.Generator().manual_seed(0)
    )
    assert likeness(found.pixels, pixels)["psnr"].item() > likeness(start[None], pixels)["psnr"].item() + 10
    assert found.distance < 0.01


def test_the_nearest_restart_counts(drawn, monkeypatch):
    pixels, truth = drawn
    model, start = perceptron(), pixels.mean(dim=0)
    seen = update_of(model, pixels, truth, steps=2)
    tried = {count: Attack(iterations=5, restarts=count, steps=2) for count in (1, 3)}
    generators = {count: torch.Generator().manual_seed(0) for count in tried}
    once, several = (match_pictures(model, seen, truth, start, tried[n], generators[n]) for n in tried)
    assert several.distance <= once.distance and several.pixels.shape == pixels.shape
    assert 0 <= several.pixels.min() and several.pixels.max() <= 1


def test_positions_that_travel_give_the_picture_away_in_closed_form():
    torch.manual_seed(1)
    pixels, truth = torch.rand(1, 1, 32, 32), torch.tensor([[1.0, 0.0]])
    model = vit_of("full")
    found = solve_patches(model, update_of(model, pixels, truth))
    assert likeness(found, pixels)["psnr"].item() > 30
    for method in ("head", "static", "lora", "generator"):
        model = vit_of(method)
        with pytest.raises(InputError, match="positions and patches do not both travel"):
            solve_patches(model, update_of(model, pixels, truth))


@pytest.mark.parametrize("method", ["full", "head", "static", "lora", "generator"])
def test_the_update_of_every_row_can_be_matched(method):
    pixels, truth = torch.rand(2, 1, 32, 32), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    model, start = vit_of(method), torch.full((1, 32, 32), 0.5)
    seen = update_of(model, pixels, truth)
    assert {key.split("/")[0] for key in seen} == set(model.ownership)
    found = match_pictures(
        model, seen, truth, start, Attack(iterations=2, restarts=1), torch.Generator().manual_seed(0)
    )
    assert 0 <= found.distance < 2


# ---- scores and floors ----


def test_equal_pictures_are_alike_and_a_mean_is_less_so(drawn):
    pixels, _ = drawn
    same = likeness(pixels, pixels)
    assert same["psnr"].tolist() == [100.0] * 3 and same["ssim"].min() > 0.999
    off = likeness((pixels + 0.1), pixels)["psnr"]
    assert off.tolist() == pytest.approx([20.0] * 3, abs=1e-3)


def test_a_batch_is_matched_whatever_its_order(drawn):
    pixels, _ = drawn
    assert matched(pixels[[2, 0, 1]], pixels).equal(pixels)
    assert matched(torch.cat([1 - pixels, pixels]), pixels).equal(pixels)


def test_floors_know_nothing_of_the_update(drawn):
    pixels, _ = drawn
    known = torch.rand(7, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = floors(known, pixels, torch.Generator().manual_seed(0))
    assert found[MEAN_IMAGE][1].equal(known.mean(dim=0)) and found[RANDOM_IMAGE].shape == pixels.shape
    assert all(any(image.equal(other) for other in known) for image in found[RANDOM_IMAGE])


def test_variation_is_of_neighbours():
    assert total_variation(torch.zeros(1, 1, 4, 4)) == 0
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 1, 4, 4)
    assert total_variation(stripes) == 1


# ---- refused ----


def test_what_holds_nothing_is_refused(drawn):
    pixels, truth = drawn
    with pytest.raises(InputError, match="'perceptron' shares nothing, so no update gives anything away"):
        update_of(perceptron("personal"), pixels, truth)
    model = perceptron()
    nothing = {key: torch.zeros_like(tensor) for key, tensor in model.trainable().items()}
    with pytest.raises(InputError, match="the update is zero, so it holds nothing of a study; attack a later round"):
        match_pictures(model, nothing, truth, pixels[0], Attack(), torch.Generator())
    with pytest.raises(InputError, match="16 patches are more than 8 dimensions"):
        profile = small_profile(width=8)
        vit = TokenBackbone(new_vit(profile.pictures, 32))
        narrow = PromptedModel(
            load_method("full", task="visual_prompts"), SUBJECT, profile.pictures, profile.adapter, vit
        )
        solve_patches(narrow, update_of(narrow, torch.rand(1, 1, 32, 32), truth[:1]))


# ---- the table of a run ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Runs of one round."""
    root = small_inputs(tmp_path_factory.mktemp("attacked"))
    folders = {method: root / "runs" / method for method in ("full", "generator", "local", "centralised")}
    for method, folder in folders.items():
        once = small_profile().model_copy(update={"federation": Federation(rounds=1)})
        run_federation(folder, small_run(root, folder, "phantom_findings", method, profile=once), progress=False)
    return folders


def test_a_run_is_attacked_with_the_same_budget_whatever_travels(trained):
    attack = Attack(iterations=3, restarts=1)
    tables = {method: attack_run(trained[method], attack, (1, 3)) for method in ("full", "generator")}
    floors_of = {}
    for method, table in tables.items():
        assert list(table.columns) == list(COLUMNS) and set(table["method"]) == {method}
        rows = table.set_index(["batch", "rebuilt_by"])
        assert (SOLVED in rows.loc[1].index) == (method == "full") and SOLVED not in rows.loc[3].index
        assert rows.loc[(1, MATCHED), "distance"] >= 0 and table[["psnr", "ssim"]].notna().all(axis=None)
        floors_of[method] = rows.loc[[(batch, name) for batch in (1, 3) for name in (MEAN_IMAGE, RANDOM_IMAGE)]]
    pandas.testing.assert_frame_equal(*(each.drop(columns="method") for each in floors_of.values()))
    pandas.testing.assert_frame_equal(tables["generator"], attack_run(trained["generator"], attack, (1, 3)))


def test_runs_that_cannot_be_attacked_are_refused(trained):
    for method, sentence in {
        "local": "method 'local' shares nothing",
        "centralised": "it has one client, so no other centre's pictures to begin from",
        "full": "centre-a has fewer than 99 training pictures; ask for fewer",
    }.items():
        with pytest.raises(InputError, match=sentence):
            attack_run(trained[method], Attack(), (99,) if method == "full" else (1,))


def test_a_defence_is_seen_in_what_comes_back(trained):
    attack = Attack(iterations=1, restarts=1)
    table = attack_run(trained["full"], attack, (1,), defences=["none", "8 bits", "noise .0001", "noise .01"])
    solved = table[table.rebuilt_by == SOLVED].set_index("defence").psnr
    assert solved["none"] > max(solved.drop("none")) and solved["noise .0001"] > solved["noise .01"]
    with pytest.raises(InputError, match="defence 'wall' is unknown; expected one of none"):
        attack_run(trained["full"], attack, (1,), defences=["wall"])


def test_noise_has_the_deviation_that_it_says():
    update = {"a/w": torch.full((300, 100), 0.02), "a/b": torch.zeros(50)}
    length = torch.cat([change.flatten() for change in update.values()]).norm().item()
    sent = Defence(noise=0.1).sent(update, torch.Generator().manual_seed(0))
    assert (sent["a/w"] - update["a/w"]).std().item() == pytest.approx(0.1 * length, rel=0.02)
    assert errors(update, sent)["a/w"] == pytest.approx(0.1 * length, rel=0.02)
    assert Defence().sent(update, torch.Generator()) is update


def test_what_rounding_changed_is_told_tensor_by_tensor():
    update = {"a/large": torch.full((64, 64), 5.0), "a/small": torch.rand(64, 64, generator=torch.Generator()) * 1e-3}
    sent = Defence(payload=Payload(bits=8)).sent(update, torch.Generator())
    told = errors(update, sent)
    assert told["a/small"] == pytest.approx((sent["a/small"] - update["a/small"]).square().mean().sqrt().item())
    assert 0 < told["a/small"] < 1e-5  # of 8 bits of 1e-3, whatever the other tensor's scale is


def test_few_bits_of_a_picture_are_no_wall():
    """With the largest number's error for all tensors, as it was, most of the system was left out, and the picture."""
    model = vit_of("full")
    pixels = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    start = torch.full((1, 32, 32), 0.5)
    update = update_of(model, pixels, torch.tensor([[1.0, 0.0]]))
    sent = Defence(payload=Payload(bits=8)).sent(update, torch.Generator())
    largest = max(change.abs().max().item() for change in update.values()) / 127

    def found(told: dict[str, float]) -> float:
        return likeness(solve_patches(model, sent, start, told), pixels).psnr[0]

    assert found(errors(update, sent)) > found(dict.fromkeys(update, largest))


def test_what_noise_has_drowned_is_the_prior_s():
    model, start = vit_of("full"), torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(1))
    update = update_of(model, torch.rand(1, 1, 32, 32), torch.tensor([[1.0, 0.0]]))
    sent = Defence(noise=10.0).sent(update, torch.Generator().manual_seed(0))
    found = solve_patches(model, sent, start, errors(update, sent))
    assert torch.allclose(found[0], start, atol=1e-3)


@pytest.mark.parametrize("family", ["vit", "dinov2", "siglip_vision_model"])
def test_a_closed_form_is_asked_only_of_what_has_one(family, tmp_path):
    row, profile = load_method("full", task="visual_prompts"), small_profile(width=16, prompts=3)
    family_models()[family].save_pretrained(tmp_path)
    torch.manual_seed(0)
    model = PromptedModel(row, SUBJECT, profile.pictures, profile.adapter, load_token_backbone(tmp_path)).eval()
    assert has_closed_form(model, 32) == (family != "siglip_vision_model")
    assert not has_closed_form(model, 64)  # there positions are interpolated
    attacked = {"pixels": torch.rand(1, 1, 32, 32), "truth": torch.tensor([[1.0, 0.0]])}
    attack = Attack(iterations=1, restarts=1)
    rows = list(_rows(model, likeness, attacked, torch.rand(2, 1, 32, 32), 1, attack, 0, Defence()))
    assert (SOLVED in [each["rebuilt_by"] for each in rows]) == (family != "siglip_vision_model")


@pytest.mark.parametrize("attacked", sorted(NETWORKS))
def test_what_is_attacked_is_not_what_looks(attacked):
    described = {name: read_description(place.parent) for name, place in NETWORKS.items()}
    assert described["reports"]["model"] == "vit" and described["pictures"]["profile"]["backbone_widths"]
    look, image = unattacked_network(attacked), torch.rand(2, 1, 48, 48)
    with torch.no_grad():
        colours = look(image.expand(-1, 3, -1, -1))
        assert torch.allclose(look(image), colours, atol=1e-4) and len(colours) == 2
