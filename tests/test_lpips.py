"""LPIPS against a computation of its own: AlexNet's layers as modules, on drawn weights under the authors' names."""

import pytest
import safetensors.torch
import torch
from torch import nn

from fedmrg_core.errors import InputError
from fedmrg_core.federation.curious.image_scores import likeness
from fedmrg_core.federation.curious.lpips import Lpips


class Slices(nn.Module):
    """AlexNet up to its fifth convolution, in five parts that end with a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.slice1, self.slice2, self.slice3, self.slice4, self.slice5 = (nn.Sequential() for _ in range(5))
        self.slice1.add_module("0", nn.Conv2d(3, 64, 11, 4, 2))
        for slice_, pool, name, convolution in (
            (self.slice2, "2", "3", nn.Conv2d(64, 192, 5, padding=2)),
            (self.slice3, "5", "6", nn.Conv2d(192, 384, 3, padding=1)),
            (self.slice4, None, "8", nn.Conv2d(384, 256, 3, padding=1)),
            (self.slice5, None, "10", nn.Conv2d(256, 256, 3, padding=1)),
        ):
            if pool:
                slice_.add_module(pool, nn.MaxPool2d(3, 2))
            slice_.add_module(name, convolution)


@pytest.fixture
def weights(tmp_path):
    net = Slices()
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"lin{n}.model.1.weight": torch.rand(1, c, 1, 1) for n, c in enumerate((64, 192, 384, 256, 256))}
    path = tmp_path / "lpips.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path, net, tensors


def test_it_is_what_its_definition_says(weights):
    path, net, tensors = weights
    one, other = torch.rand(2, 3, 3, 70, 66)
    expected = torch.zeros(3)
    flows = [
        torch.stack([(2 * image[:, c] - 1 - shift) / scale for c, (shift, scale) in enumerate(COLOURS)], dim=1)
        for image in (one, other)
    ]
    for number in range(5):
        flows = [torch.relu(getattr(net, f"slice{number + 1}")(flow)) for flow in flows]
        first, second = (nn.functional.normalize(flow, dim=1) for flow in flows)
        weight = tensors[f"lin{number}.model.1.weight"].flatten()
        expected += torch.einsum("bchw,c->bhw", (first - second) ** 2, weight).flatten(1).mean(dim=1)
    found = Lpips(path)(one, other)
    assert torch.allclose(found, expected, rtol=1e-4) and found.min() > 0


COLOURS = ((-0.030, 0.458), (-0.088, 0.448), (-0.188, 0.450))


def test_equal_images_are_equal_and_grey_is_three_equal_colours(weights):
    distance, (grey, other) = Lpips(weights[0]), torch.rand(2, 2, 1, 64, 64)
    assert distance(grey, grey).tolist() == [0.0, 0.0]
    assert torch.allclose(distance(grey, other), distance(grey.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1)))
    table = likeness(grey, other, lpips=distance)
    assert list(table) == ["psnr", "ssim", "lpips"] and table["lpips"].tolist() == distance(grey, other).tolist()


def test_a_file_that_is_not_its_weights_is_refused(weights, tmp_path):
    path, _, tensors = weights
    with pytest.raises(InputError, match=r"missing\.safetensors: no readable safetensors file.*write it as docs/"):
        Lpips(tmp_path / "missing.safetensors")
    del tensors["lin3.model.1.weight"]
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(InputError, match=r"lpips\.safetensors: tensor 'lin3\.model\.1\.weight' .* is missing"):
        Lpips(path)
