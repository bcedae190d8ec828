"""Images: what is read, and what is refused with which sentence."""

from __future__ import annotations

import io
import os
import pathlib
import struct
import zlib

import numpy
import pytest
from data_fixtures import save_noise
from PIL import ExifTags, Image

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


def _saved_palette(path: pathlib.Path) -> None:
    save_noise(path, mode="RGB")
    Image.open(path).quantize(8).save(path)


def _saved_frames(path: pathlib.Path) -> None:
    frames = [
        Image.fromarray(numpy.random.default_rng(seed).integers(0, 255, (32, 32), numpy.uint8)) for seed in (0, 1)
    ]
    kind = {".png": "PNG", ".jpg": "MPO", ".tiff": "TIFF"}[path.suffix]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])


def _saved_deep_colour(path: pathlib.Path) -> None:
    """16 bits a colour, which Pillow reads and does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    values = numpy.random.default_rng(0).integers(0, 4096, (32, 32, 3)).astype(">u2")
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


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
        ("pipe.png", lambda path: os.mkfifo(path), "not a file"),
        ("loop.png", lambda path: path.symlink_to(path), "cannot be read"),
        ("grey-alpha.png", lambda path: save_noise(path, mode="LA"), "colour mode LA"),
        ("palette.png", _saved_palette, "colour mode P"),
        ("deep-colour.png", _saved_deep_colour, "more than 8 bits a colour"),
        ("frames.png", _saved_frames, "the file holds 2 images; expected one"),
        ("frames.jpg", _saved_frames, "the file holds 2 images; expected one"),
        ("frames.tiff", _saved_frames, "the file holds 2 images; expected one"),
        ("bitmap.png", lambda path: Image.new("L", (32, 32)).save(path, "BMP"), "expected PNG, JPEG or TIFF"),
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


def test_no_program_is_started_for_a_drawing_that_calls_itself_png(tmp_path: pathlib.Path, monkeypatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    Image.new("L", (32, 32)).save(tmp_path / "drawing.png", "EPS")
    with pytest.raises(InputError, match="expected PNG, JPEG or TIFF"):
        read_grey_image(tmp_path / "drawing.png", 32)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_was_held_otherwise_is_turned_upright(
    tmp_path: pathlib.Path, suffix: str, orientation: int
) -> None:
    pixels = numpy.add.outer(numpy.arange(32) * 5, numpy.arange(48)).astype(numpy.uint8)
    path, exif = tmp_path / f"x{suffix}", Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    stored = Image.open(path) if suffix == ".jpg" else Image.fromarray(pixels)  # as lossy as it is
    turned = numpy.asarray(stored) if orientation == 1 else numpy.asarray(stored.transpose(TURNS[orientation]))
    Image.fromarray(turned).save(tmp_path / "upright.png")
    assert turned.shape == ((32, 48) if orientation < 5 else (48, 32))
    assert read_grey_image(path, 48).tobytes() == read_grey_image(tmp_path / "upright.png", 48).tobytes()


def test_damaged_exif_says_nothing_about_the_picture(tmp_path: pathlib.Path) -> None:
    save_noise(tmp_path / "noise.png", size=(32, 32))
    noise = Image.open(tmp_path / "noise.png")
    noise.save(tmp_path / "plain.jpg")
    noise.save(tmp_path / "odd.jpg", exif=b"Exif\0\0nonsense")
    assert read_grey_image(tmp_path / "odd.jpg", 32).tobytes() == read_grey_image(tmp_path / "plain.jpg", 32).tobytes()
