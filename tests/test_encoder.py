"""The client-aware contrast against direct computations, and backbones of both output shapes."""

import math

import pytest
import torch
import transformers

from fedmrg_core.contrast import inter_client_contrast, intra_client_contrast
from fedmrg_core.encoder import VisualEncoder, load_encoder
from fedmrg_core.errors import InputError

pytestmark = pytest.mark.numerical


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def test_inter_client_contrast_by_hand():
    h, prototypes = torch.randn(5, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    expected = 0.0
    for row in h.tolist():
        weights = [math.exp(cosine(row, mu) / 0.07) for mu in prototypes.tolist()]
        expected -= math.log(weights[1] / sum(weights)) / 5
    assert inter_client_contrast(h, prototypes, 1, 0.07).item() == pytest.approx(expected, rel=1e-9)


def test_intra_client_contrast_by_hand():
    h, other = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    expected = 0.0
    for i in range(4):
        weights = [math.exp(cosine(h[i].tolist(), other[j].tolist()) / 0.5) for j in range(4)]
        expected -= math.log(weights[i] / sum(weights)) / 4
    assert intra_client_contrast(h, other, 0.5).item() == pytest.approx(expected, rel=1e-9)


def test_contrast_gradients_against_finite_differences():
    h = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    fixed = torch.randn(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: inter_client_contrast(x, fixed, 2, 0.3), h)
    assert torch.autograd.gradcheck(lambda x: intra_client_contrast(x, fixed, 0.3), h)


def test_global_features_get_no_gradient():
    h, other = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    intra_client_contrast(h, other, 0.1).backward()
    assert h.grad is not None and other.grad is None


def test_own_prototype_pulls():
    prototypes = torch.eye(3)
    near, far = prototypes[:1], prototypes[1:2]
    assert inter_client_contrast(near, prototypes, 0, 0.1) < inter_client_contrast(far, prototypes, 0, 0.1)


@pytest.mark.parametrize(
    "config",
    [
        transformers.ResNetConfig(
            num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
        ),
        transformers.ViTConfig(
            image_size=32,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
        ),
        transformers.SwinConfig(
            image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4
        ),
    ],
    ids=lambda config: config.model_type,
)
def test_any_backbone_gives_tokens_and_their_mean(config, tmp_path):
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "backbone", safe_serialization=True)
    encoder = load_encoder(tmp_path / "backbone").eval()
    seen = encoder(torch.rand(2, 1, 32, 32))
    assert seen.tokens.shape[0] == 2 and seen.tokens.shape[2] == encoder.width
    torch.testing.assert_close(seen.pooled, seen.tokens.mean(dim=1))


def test_folder_without_weights_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no \.safetensors"):
        load_encoder(tmp_path / "empty")


def test_pickled_weights_are_refused(tmp_path):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    model = transformers.ResNetModel(config)
    config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        load_encoder(tmp_path)


def test_grey_images_reach_three_channel_backbones():
    backbone = transformers.ResNetModel(transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]))
    assert VisualEncoder(backbone).channels == 3
    assert VisualEncoder(backbone)(torch.rand(2, 1, 32, 32)).pooled.shape == (2, 8)
