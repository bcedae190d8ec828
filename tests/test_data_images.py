"""Images: what is read, and what is refused with which sentence."""

from __future__ import annotations

import io
import pathlib

import numpy
import pytest
from data_fixtures import save_noise
from PIL import Image

from fedmrg_core.data.images import png_bytes, read_grey_image
from fedmrg_core.errors import InputError


def test_a_grey_square_of_the_right_size_is_kept_as_it_is(tmp_path: pathlib.Path) -> None:
    save_noise(tmp_path / "x.png", size=(64, 64))
    read = read_grey_image(tmp_path / "x.png", 64)
    assert read.mode == "L"
    numpy.testing.assert_array_equal(numpy.asarray(read), numpy.asarray(Image.open(tmp_path / "x.png")))
    again = read_grey_image(png_bytes(read), 64)
    numpy.testing.assert_array_equal(numpy.asarray(read), numpy.asarray(again))


def test_other_shapes_are_padded_not_stretched(tmp_path: pathlib.Path) -> None:
    Image.fromarray(numpy.tile(numpy.arange(150, 214, dtype=numpy.uint8), (32, 1))).save(tmp_path / "wide.png")
    read = numpy.asarray(read_grey_image(tmp_path / "wide.png", 64))
    assert read.shape == (64, 64)
    assert (read[:16] == 0).all() and (read[48:] == 0).all() and (read[16:48] >= 150).all()


def test_rgb_becomes_grey_by_luminance(tmp_path: pathlib.Path) -> None:
    save_noise(tmp_path / "x.png", mode="RGB", size=(32, 32))
    colour = numpy.asarray(Image.open(tmp_path / "x.png"), dtype=float)
    expected = colour @ [0.299, 0.587, 0.114]
    assert numpy.abs(numpy.asarray(read_grey_image(tmp_path / "x.png", 32)) - expected).max() <= 1


def test_16_bit_is_refused_with_its_remedy_and_rescaled_on_demand(tmp_path: pathlib.Path) -> None:
    values = numpy.linspace(1000, 3000, 32 * 32).reshape(32, 32).astype(numpy.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png.*rescale_16_bit=True"):
        read_grey_image(tmp_path / "deep.png", 32)
    read = numpy.asarray(read_grey_image(tmp_path / "deep.png", 32, rescale_16_bit=True)).astype(float)
    low, high = numpy.percentile(values, [0.5, 99.5])
    expected = numpy.clip((values - low) / (high - low), 0, 1) * 255
    assert numpy.abs(read - expected).max() <= 0.5 + 1e-9


def _truncated(path: pathlib.Path) -> None:
    save_noise(path, size=(64, 64))
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        ("none.png", lambda path: None, "missing"),
        ("text.png", lambda path: path.write_text("not an image"), "not a readable image"),
        ("cut.png", _truncated, "cannot be decoded"),
        ("cut.jpg", _truncated, "cannot be decoded"),
        ("one.png", lambda path: save_noise(path, size=(1, 1)), "1 x 1 pixels; expected at least 16 x 16"),
        ("alpha.png", lambda path: save_noise(path, mode="RGBA"), "colour mode RGBA"),
        ("print.jpg", lambda path: save_noise(path, mode="CMYK"), "colour mode CMYK"),
        ("black.png", lambda path: Image.new("L", (32, 32)).save(path), "every pixel has the value 0"),
        ("folder.png", lambda path: path.mkdir(), "not a file"),
    ],
)
def test_unusable_images_are_refused_by_name(tmp_path: pathlib.Path, name: str, make, sentence: str) -> None:
    make(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}.*{sentence}"):
        read_grey_image(tmp_path / name, 32)


def test_an_image_size_of_nothing_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (32, 32)).save(buffer, "PNG")
    with pytest.raises(InputError, match="image_size is 0"):
        read_grey_image(buffer.getvalue(), 0)
