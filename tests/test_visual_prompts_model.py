"""Frozen vision models that take prompts: shares, families, SAM's parity, what is trained and what is refused."""

from __future__ import annotations

import math
import pathlib

import pytest
import torch
import transformers
from family_vits import SMALL, family_models
from small_pictures import small_profile

from fedmrg_core.data.pictures.picture import Subject
from fedmrg_core.errors import InputError
from fedmrg_core.prompts.generator import CrossAttentionBlock
from fedmrg_core.runs.methods import Ownership, load_method, load_methods
from fedmrg_core.tasks.visual_prompts.backbones import TokenBackbone, load_token_backbone
from fedmrg_core.tasks.visual_prompts.base_model import new_sam, new_vit, save_base_model
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel, build_prompted_model, shares
from fedmrg_core.tasks.visual_prompts.sam import SamBackbone, load_sam
from fedmrg_core.training.trained_model import parameter_counts

CLASSES, MASKS = Subject("one", ("left", "right", "none")), Subject("masks", ("lungs", "heart"))


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small ViT and SAM, not trained."""
    root, profile = tmp_path_factory.mktemp("stored"), small_profile()
    torch.manual_seed(0)
    for name, make in (("vit", new_vit), ("sam", new_sam)):
        save_base_model(root / name, name, make(profile.pictures, profile.image_size), {})
    return root


def model_of(stored: pathlib.Path, method: str, subject: Subject = CLASSES, **numbers: object) -> PromptedModel:
    name, data = ("sam", "phantom_masks") if subject.kind == "masks" else ("vit", "phantom_findings")
    row = load_method(method, task="visual_prompts")
    return build_prompted_model(small_profile(data, **numbers), row, subject, stored / name / name, 0)


# ---- the shares that the published account names [derived] ----


def test_one_block_is_8_26_per_cent_of_vit_b():
    with torch.device("meta"):
        block = CrossAttentionBlock(768, 12)
        vit = TokenBackbone(transformers.ViTModel(transformers.ViTConfig()))
    assert count(block) == 7_087_872
    assert round(100 * count(block) / count(vit), 2) == 8.26


def test_of_sam_b_the_lower_share_comes_nearest_without_feed_forward():
    with torch.device("meta"):
        block, sam = CrossAttentionBlock(768, 12), transformers.SamModel(transformers.SamConfig())
    decoder = count(sam.mask_decoder)
    whole = count(block) + decoder
    attention = count(block.attention) + decoder
    assert (round(100 * whole / count(sam), 1), round(100 * whole / (count(sam) + count(block)), 1)) == (11.9, 11.1)
    assert round(100 * attention / (count(sam) + count(block.attention)), 2) == 6.68  # 6.55 does not come out


# ---- families ----


@pytest.mark.parametrize("family", ["vit", "dinov2", "dinov2_with_registers", "siglip_vision_model"])
def test_without_prompts_a_family_sees_what_it_always_saw(family, tmp_path):
    model = family_models()[family].eval()
    model.save_pretrained(tmp_path / family)
    backbone, image = load_token_backbone(tmp_path / family).eval(), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        hidden = model(pixel_values=backbone.pixels(image)).last_hidden_state
        tokens = backbone.embed(image)
        found, prompted = backbone.run(tokens), backbone.run(tokens, torch.ones(2, 3, 16))
    expected = hidden[:, 0] if backbone.own else hidden.mean(dim=1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert prompted.shape == found.shape and not torch.allclose(prompted, found)
    assert backbone.patches(tokens).shape == (2, 16, 16) and backbone.positions == 16


def test_a_family_without_tokens_is_refused(tmp_path):
    settings = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    transformers.ResNetModel(transformers.ResNetConfig(**settings)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a resnet, whose tokens take no prompts here; expected one of vit"):
        load_token_backbone(tmp_path)


# ---- SAM ----


def spread(sam: transformers.SamModel) -> transformers.SamModel:
    """With relative positions, which start at zero."""
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_()
    return sam.eval()


def test_sam_without_prompts_is_hugging_face_s():
    sam = spread(new_sam(small_profile().pictures, 32))
    backbone, image = SamBackbone(sam), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = sam.vision_encoder(backbone.pixels(image)).last_hidden_state
        assert torch.allclose(backbone.run(backbone.embed(image)), expected, atol=1e-5)
        changed = backbone.run(backbone.embed(image), torch.ones(2, 3, 16))
    assert changed.shape == expected.shape and not torch.allclose(changed, expected, atol=1e-3)


def test_the_decoder_gives_each_region_a_mask(stored):
    model, image = model_of(stored, "generator", MASKS).eval(), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        seen = model(image)
    assert seen.logits.shape == (2, 2, 32, 32) and seen.attention.shape == (2, 3, 16)
    sam = transformers.SamModel.from_pretrained(stored / "sam" / "sam").eval()
    with torch.no_grad():
        row = model_of(stored, "head", MASKS).eval()
        expected = sam(row.backbone.pixels(image), multimask_output=True).pred_masks[:, 0, :2]
        found = row.head(row.backbone.run(row.backbone.embed(image)), row.backbone.places, row.backbone.no_mask)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("regions", [("polyp",), ("lungs", "heart")])
def test_what_no_region_reads_of_the_decoder_does_not_travel(regions, stored):
    model = model_of(stored, "head", Subject("masks", regions))
    truth = torch.rand(2, len(regions), 32, 32).round()
    sum(model.loss_terms({"pixels": torch.rand(2, 1, 32, 32), "truth": truth}).values()).backward()
    still = [key for key, parameter in model.trainable().items() if parameter.grad is None or not parameter.grad.any()]
    assert still == [] and not any("iou_prediction_head" in key for key in model.trainable())


def test_a_sam_without_its_mask_decoder_is_refused(stored, tmp_path):
    sam = transformers.SamModel.from_pretrained(stored / "sam" / "sam")
    transformers.SamVisionModel(sam.config.vision_config).save_pretrained(tmp_path / "vision")
    kept = {key: tensor for key, tensor in sam.state_dict().items() if not key.startswith("mask_decoder.")}
    sam.save_pretrained(tmp_path / "cut", state_dict=kept)
    for name in ("vision", "cut"):
        with pytest.raises(InputError, match="holds an image encoder without a mask decoder; expected a whole Sam"):
            load_sam(tmp_path / name, 1)
    with pytest.raises(InputError, match="is a vit; expected a SamModel"):
        load_sam(stored / "vit" / "vit", 1)
    with pytest.raises(InputError, match="makes 3 masks and the data have 4 regions"):
        load_sam(stored / "sam" / "sam", 4)


# ---- what a row trains ----


@pytest.mark.parametrize("subject", [CLASSES, MASKS], ids=["classes", "masks"])
@pytest.mark.parametrize("method", list(load_methods(task="visual_prompts")))
def test_a_row_learns_what_it_names_and_nothing_else(method, subject, stored):
    model = model_of(stored, method, subject)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    truth = torch.zeros(2, 2, 32, 32) if subject.kind == "masks" else torch.eye(3)[:2]
    optimiser = torch.optim.SGD(list(model.trainable().values()), lr=1.0)
    for _ in range(2):  # the generator's last layers are zero at the start
        sum(model.loss_terms({"pixels": torch.rand(2, 1, 32, 32), "truth": truth}).values()).backward()
        optimiser.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    learning = {id(parameter) for parameter in model.trainable().values()}
    named = {name for name, parameter in model.named_parameters() if id(parameter) in learning}
    assert changed and changed <= named
    touched = {key.partition("/")[0] for key, tensor in model.trainable().items() if tensor.grad is not None}
    assert touched == set(model.method.modules)
    counts = parameter_counts(model)
    assert counts["trainable"] == sum(tensor.numel() for tensor in model.trainable().values())


def test_prompts_start_as_the_static_ones_and_then_follow_the_image(stored):
    model, images = model_of(stored, "generator").eval(), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        first = model(images).prompts
        assert torch.equal(first[0], model.global_prompt.weight) and torch.equal(first[0], first[1])
        model.generator.feed_forward[-1].weight.normal_()
        model.generator.attention.out_proj.weight.normal_()
        seen = model(images)
    assert not torch.allclose(seen.prompts[0], seen.prompts[1])
    assert torch.allclose(seen.attention.sum(dim=2), torch.ones(2, 3))


def test_a_static_prompt_travels_in_kilobytes(stored):
    sent = {
        method: sum(tensor.numel() for tensor in model_of(stored, method).state(Ownership.SHARED).values())
        for method in ("static", "generator", "full", "head")
    }
    assert sent["head"] < sent["static"] < sent["generator"] < sent["full"]
    assert sent["static"] - sent["head"] == 3 * 16


def test_the_share_that_travels_is_one_of_the_foundation_model(stored):
    found = {method: shares(model_of(stored, method)) for method in ("generator", "lora", "full", "small-network")}
    size = count(TokenBackbone(transformers.ViTModel.from_pretrained(stored / "vit" / "vit")))
    assert {found[method]["foundation"] for method in ("generator", "lora", "full")} == {size}
    assert found["full"]["share"] == (size + 3 * 16 + 3) / size and math.isnan(found["small-network"]["share"])
    whole = shares(model_of(stored, "full", MASKS))
    assert whole["share"] == 1  # encoder and mask decoder are what there is


def test_colours_reach_a_grey_model_and_grey_a_coloured_one(tmp_path):
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(**SMALL, intermediate_size=32)).save_pretrained(tmp_path)
    backbone = load_token_backbone(tmp_path)
    grey = torch.rand(1, 1, 32, 32)
    assert torch.equal(backbone.embed(grey), backbone.embed(grey.expand(-1, 3, -1, -1)))
    backbone.pixels.channels = 1
    assert torch.allclose(backbone.pixels(grey.expand(-1, 3, -1, -1)), backbone.pixels(grey), atol=1e-5)


# ---- refused before anything is trained ----


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"prompts": 17}, "17 prompts are more than the 16 positions that the model has for patches"),
        ({"heads": 3}, "pictures.heads: 3 does not divide 16"),
    ],
)
def test_numbers_that_do_not_fit_the_model_are_refused(numbers, expected, stored):
    with pytest.raises(InputError, match=expected):
        model_of(stored, "generator", **numbers)


def test_pictures_of_another_size_than_the_model_s_are_refused(stored):
    row = load_method("head", task="visual_prompts")
    for subject, name, size in ((MASKS, "sam", 64), (CLASSES, "vit", 36)):
        profile = small_profile().model_copy(update={"image_size": size})
        with pytest.raises(InputError, match=f"image_size: {size}"):
            build_prompted_model(profile, row, subject, stored / name / name, 0)
    larger = small_profile().model_copy(update={"image_size": 64})  # a ViT fits its positions to them
    model = build_prompted_model(larger, row, CLASSES, stored / "vit" / "vit", 0)
    assert model(torch.rand(1, 1, 64, 64)).logits.shape == (1, 3)


def test_layers_for_lora_that_the_model_lacks_are_refused(stored):
    profile = small_profile("phantom_findings")
    row = load_method("lora", task="visual_prompts")
    with pytest.raises(InputError, match="adapter.target_modules: q_proj, v_proj not found .* expected some of .*qkv"):
        build_prompted_model(profile, row, MASKS, stored / "sam" / "sam", 0)


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ({"generator": "shared", "head": "shared"}, "a generator needs global_prompt"),
        ({"global_prompt": "shared"}, "modules must hold head, or network"),
        ({"network": "shared", "head": "shared"}, "modules must hold head, or network"),
        ({"backbone": "shared", "adapter": "shared", "head": "shared"}, "leave one of them out"),
    ],
)
def test_rows_that_make_no_model_are_refused(modules, expected):
    row = load_method("head", task="visual_prompts")
    with pytest.raises(ValueError, match=expected):
        type(row)(**{**row.whole(), "modules": modules})
