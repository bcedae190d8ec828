"""Training images are changed within the bounds that the settings give, and the same way for the same seed."""

import numpy
import pytest
import torch

from fedmrg_core.runs.configuration import Training
from fedmrg_core.training.augmentation import augmented

pytestmark = pytest.mark.numerical

BASE = {"batch_size": 4, "learning_rate": 1e-3, "adapter_learning_rate": 1e-3}


def settings(**changes: float) -> Training:
    return Training(**BASE, **changes)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(numpy.random.default_rng(0).random((6, 1, 32, 32), dtype=numpy.float32))


def changed(images: torch.Tensor, seed: int = 0, **changes: float) -> torch.Tensor:
    return augmented(images, settings(**changes), numpy.random.default_rng(seed))


def test_nothing_asked_for_leaves_the_images(images):
    assert torch.equal(changed(images), images)


def test_a_shift_moves_whole_pixels(images):
    moved = changed(images, image_shift=3)
    whole = torch.nn.functional.pad(images, (3, 3, 3, 3), mode="replicate")
    for image, frame in zip(moved, whole, strict=True):
        windows = frame[0].unfold(0, 32, 1).unfold(1, 32, 1).reshape(-1, 32, 32)
        assert (windows == image[0]).all(dim=(1, 2)).any()


@pytest.mark.parametrize("change", ["image_rotation", "image_stretch", "image_gamma"])
def test_each_change_differs_by_image_and_seed_and_repeats(images, change):
    amount = {change: 20.0 if change == "image_rotation" else 0.3}
    same = images[:1].expand(6, -1, -1, -1)
    first = changed(same, seed=1, **amount)
    assert torch.equal(first, changed(same, seed=1, **amount))
    assert not torch.equal(first, changed(same, seed=2, **amount))
    assert len(torch.unique(first.flatten(1), dim=0)) == 6
    assert first.shape == same.shape and first.dtype == torch.float32 and type(first) is torch.Tensor
    assert 0 <= first.min() and first.max() <= 1 + 1e-6


def test_the_exponent_of_grey_levels_stays_within_its_bounds(images):
    images[:, :, 0, 0], images[:, :, 0, 1] = 0, 1  # the range that the exponent works on
    exponents = changed(images, image_gamma=0.5)[:, 0, 1:].log() / images[:, 0, 1:].log()
    assert (exponents.std(dim=(1, 2)) < 0.05).all()
    assert 1 / 1.5 - 0.01 <= exponents.median() <= 1.5 + 0.01


def test_a_rotation_keeps_the_centre_and_turns_by_no_more_than_asked():
    """A bar through the centre: the angle of its far end, measured, is within the bound and not always the same."""
    bar = torch.zeros(16, 1, 65, 65)
    bar[:, :, 31:34, 40:60] = 1
    turned = changed(bar, image_rotation=20)
    rows, columns = torch.meshgrid(torch.arange(65.0) - 32, torch.arange(65.0) - 32, indexing="ij")
    weight = turned[:, 0].flatten(1)
    mean_row, mean_column = ((weight * grid.flatten()).sum(1) / weight.sum(1) for grid in (rows, columns))
    angles = torch.atan2(mean_row, mean_column).rad2deg()
    assert angles.abs().max() <= 20.5 and angles.std() > 4
