"""Image backbones of the families people have: towers, feature maps, other image sizes, masks, grey levels."""

import json

import pytest
import safetensors.torch
import torch
import transformers
from checkpoint_families import SIGLIP_TEXT, SIGLIP_VISION, save_backbone, save_llm
from small_model import PROFILE, small_model, small_studies
from test_pretrained import one_step

from fedmrg_core.encoder import load_encoder, token_count
from fedmrg_core.errors import InputError
from fedmrg_core.training.adapter_names import GENERIC
from fedmrg_core.training.grey_levels import grey_levels

pytestmark = pytest.mark.numerical

VIT = {**SIGLIP_VISION}
TEXT = {**SIGLIP_TEXT, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
MAE = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
EFFICIENT = {"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128, "image_size": 64}

# Configuration, class that is saved, tokens of a 32-pixel image, their width.
BACKBONES = {
    "clip": (transformers.CLIPConfig(text_config=TEXT, vision_config=VIT), None, 17, 16),
    "siglip": (transformers.SiglipConfig(text_config=TEXT, vision_config=VIT), None, 16, 16),
    "siglip-vision": (transformers.SiglipVisionConfig(**VIT), None, 16, 16),
    "vit": (transformers.ViTConfig(**VIT), transformers.ViTForImageClassification, 17, 16),
    "vit-masked": (transformers.ViTConfig(**VIT, encoder_stride=8), transformers.ViTForMaskedImageModeling, 17, 16),
    "vit-mae": (transformers.ViTMAEConfig(**VIT, **MAE), transformers.ViTMAEForPreTraining, 17, 16),
    "deit": (transformers.DeiTConfig(**VIT), transformers.DeiTForImageClassification, 18, 16),
    "dinov2": (transformers.Dinov2Config(**VIT), None, 17, 16),
    "efficientnet": (
        transformers.EfficientNetConfig(**EFFICIENT),
        transformers.EfficientNetForImageClassification,
        1,
        128,
    ),
    "mobilenet-v2": (
        transformers.MobileNetV2Config(depth_multiplier=0.1, image_size=64),
        transformers.MobileNetV2ForImageClassification,
        1,
        1280,
    ),
    "convnext": (
        transformers.ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2),
        transformers.ConvNextForImageClassification,
        16,
        12,
    ),
    "resnet": (
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
        transformers.ResNetForImageClassification,
        16,
        16,
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("backbones")
    return {name: save_backbone(root / name, config, kind) for name, (config, kind, _, _) in BACKBONES.items()}


def with_backbone(folder):
    base = PROFILE.base_models.model_copy(update={"backbone": str(folder)})
    return PROFILE.model_copy(update={"base_models": base})


@pytest.mark.parametrize("name", BACKBONES)
def test_tokens_and_their_width(name, folders):
    encoder, (_, _, count, width) = load_encoder(folders[name]), BACKBONES[name]
    assert (token_count(encoder, 32), encoder.width) == (count, width)
    images = torch.rand(2, 1, 32, 32)
    first, again = (encoder(images).tokens for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize("name", ["clip", "siglip", "vit-mae", "efficientnet", "mobilenet-v2"])
@pytest.mark.parametrize("row", ["fedmrg", "transformer"])
def test_it_trains_and_writes(name, row, folders, base_models):
    profile = with_backbone(folders[name])
    model = small_model(base_models, row, profile)
    assert torch.isfinite(torch.tensor(one_step(model, profile)))
    model.eval()
    assert len(model.generate(small_studies().images([0, 1]), GENERIC, profile.generation)[0]) == 2


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_image_tower_reads_as_in_the_whole_model(name, folders):
    whole = transformers.AutoModel.from_pretrained(folders[name])
    encoder = load_encoder(folders[name])
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(
        encoder.backbone(pixel_values=pixels).last_hidden_state,
        whole.vision_model(pixel_values=pixels).last_hidden_state,
    )


def test_a_masked_autoencoder_is_read_whole_and_in_order(folders):
    config = transformers.ViTMAEConfig(**VIT, **MAE, mask_ratio=0.0)
    unmasked = transformers.ViTMAEModel.from_pretrained(folders["vit-mae"], config=config)
    pixels = torch.rand(2, 3, 32, 32)
    expected = unmasked(pixel_values=pixels, noise=torch.arange(16.0).expand(2, -1)).last_hidden_state
    found = load_encoder(folders["vit-mae"]).backbone(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("name", "count"), [("vit", 37), ("vit-mae", 37), ("clip", 37), ("siglip", 36), ("dinov2", 37)]
)
def test_positions_are_fitted_to_images_of_another_size(name, count, folders, base_models):
    assert token_count(load_encoder(folders[name]), 48) == count
    model = small_model(base_models, "fedmrg", with_backbone(folders[name]).model_copy(update={"image_size": 48}))
    assert model.prefix(torch.rand(1, 1, 48, 48)).embeddings.shape[1] == model.prefix_length(count)


def test_images_of_the_own_size_are_read_without_fitting(folders):
    encoder = load_encoder(folders["vit"])
    images = torch.rand(1, 1, 32, 32)
    pixels = ((images - encoder.mean) / encoder.deviation).expand(-1, 3, -1, -1)
    assert torch.equal(encoder(images).tokens, encoder.backbone(pixel_values=pixels).last_hidden_state)


def test_an_image_size_that_cannot_be_read_is_refused_before_training(folders, base_models, monkeypatch):
    forward = transformers.ViTModel.forward

    def without_fitting(self, pixel_values=None):
        return forward(self, pixel_values=pixel_values)

    monkeypatch.setattr(transformers.ViTModel, "forward", without_fitting)
    profile = with_backbone(folders["vit"]).model_copy(update={"image_size": 48})
    for row in ("fedmrg", "transformer"):
        with pytest.raises(InputError, match=r"image_size: .* cannot read images of 48 pixels .* made for 32\."):
            small_model(base_models, row, profile)


def test_a_pooler_that_is_not_used_may_be_missing(folders):
    """ViT for classification has none; what the tokens depend on is all from the file."""
    encoder = load_encoder(folders["vit"])
    assert "pooler.dense.weight" in encoder.backbone.state_dict()


def test_a_missing_tensor_of_an_image_tower_is_refused(folders, tmp_path):
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VIT)
    folder = save_backbone(tmp_path / "clip", config)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    kept = {key: tensor for key, tensor in tensors.items() if "vision_model.encoder.layers.1.mlp.fc1" not in key}
    safetensors.torch.save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack encoder\.layers\.1\.mlp\.fc1\.weight \(2 missing\)"):
        load_encoder(folder)


def test_a_layer_of_the_image_tower_too_many_is_refused(tmp_path):
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VIT)
    folder = save_backbone(tmp_path / "clip", config)
    content = json.loads((folder / "config.json").read_text())
    content["vision_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"hold \S*encoder\.layers\.1\.\S+ \(16 such\)"):
        load_encoder(folder)


def test_another_backbone_that_masks_at_random_is_refused(folders, monkeypatch):
    monkeypatch.setattr("fedmrg_core.encoder.UNMASKED", {})
    with pytest.raises(InputError, match="sees the same image otherwise each time"):
        load_encoder(folders["vit-mae"])


def test_a_backbone_whose_weights_are_not_finite_is_refused(tmp_path):
    folder = save_backbone(tmp_path / "vit", transformers.ViTConfig(**VIT))
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["layernorm.weight"] = tensors["layernorm.weight"] / 0.0
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="tokens are not finite"):
        load_encoder(folder)


def test_a_llm_is_no_backbone(tmp_path):
    with pytest.raises(InputError, match="makes no tokens of an image"):
        load_encoder(save_llm(tmp_path / "llama", "llama"))


# ---- grey levels ----


def preprocessing(folder, **settings):
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return grey_levels(folder)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_mean": None, "image_std": [0.25]}, "image_mean is None .* expected numbers"),
        ({"image_mean": ["a"]}, r"image_mean is \['a'\]"),
        ({"image_mean": []}, "image_mean"),
        ({"image_mean": [0.5], "image_std": [0.2, 0.0, 0.2]}, "image_std is .* expected numbers above 0"),
        ({"image_std": float("nan")}, "image_std is nan"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
    ],
)
def test_grey_levels_without_sense_are_refused(settings, words, tmp_path):
    with pytest.raises(InputError, match=words + r".*preprocessor_config\.json|" + words):
        preprocessing(tmp_path, **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (0.5, 0.25)),
        ({"image_mean": [0.5], "image_std": [0.25], "do_normalize": True}, (0.5, 0.25)),
        ({"image_mean": [0.4, 0.5, 0.6], "image_std": 0.5, "rescale_factor": 0.00392156862745098}, (0.5, 0.5)),
        ({"image_mean": [0.5], "image_std": [0.0], "do_normalize": False}, (0.0, 1.0)),
        ({"image_mean": [0], "image_std": [1], "rescale_factor": 1 / 127.5, "rescale_offset": True}, (0.5, 0.5)),
        ({"image_mean": [127.5], "image_std": [51.0], "do_rescale": False}, (0.5, 0.2)),
    ],
)
def test_grey_levels_are_the_checkpoints(settings, expected, tmp_path):
    assert preprocessing(tmp_path, **settings) == pytest.approx(expected)


def test_the_projects_own_grey_levels_are_equal_to_the_byte(repository):
    assert grey_levels(repository / "profiles" / "base_models" / "smoke" / "phantom" / "backbone") == (0.5, 0.25)
