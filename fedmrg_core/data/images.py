"""Reading one radiograph: it becomes an 8-bit grey square or is refused in one sentence [ours]."""

from __future__ import annotations

import io
import pathlib
import stat

import numpy
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fedmrg_core.errors import InputError

FORMATS = ("PNG", "JPEG", "TIFF")  # by content, whatever the file is called; no other of Pillow's readers is started
SMALLEST_SIDE = 16  # pixels: below this nothing of a thorax can be seen
SIXTEEN_BIT_MODES = ("I", "F")  # Pillow's 32-bit modes; "I;16" and its byte orders are named by their prefix
GREY_MODES = ("1", "L")
FULL_RANGE_PERCENTILES = (0.5, 99.5)


def read_grey_image(
    source: pathlib.Path | bytes, image_size: int, rescale_16_bit: bool = False, name: str | None = None
) -> Image.Image:
    """Read one image as an 8-bit grey square of `image_size` x `image_size` pixels.

    An image that is not square is padded with black around its centre, then resized; nothing is cropped or stretched.
    (The public IU X-ray copies of 256 x 256 pixels were stretched to a square upstream, which cannot be undone here.)
    RGB images become grey by luminance (ITU-R 601). Intensities are otherwise kept as they are. An image that says
    how it was held (its EXIF orientation) is turned upright.

    Args:
        source: path of the file, or its bytes.
        image_size: height and width of the result in pixels.
        rescale_16_bit: accept more than 8 bits a pixel and map the image's own 0.5th to 99.5th percentile linearly
            onto 0..255.
        name: what error sentences call the image; the path if left out.

    Returns:
        A Pillow image of mode "L".

    Raises:
        InputError: the file is missing, unreadable, cut off or no PNG, JPEG or TIFF by content; the image is one of
            several in its file, smaller than 16 x 16 pixels, of one single grey value, has more than 8 bits a pixel
            without `rescale_16_bit` (more than 8 bits a colour in any case), or is in a colour mode other than grey and
            RGB.
    """
    name = name or ("image" if isinstance(source, bytes) else str(source))
    grey = _to_grey(_opened(source, name, image_size), name, rescale_16_bit)
    _check_contrast(grey, name)
    return squared(grey, image_size)


def read_picture(path: pathlib.Path, image_size: int) -> Image.Image:
    """Read one image in colour, else as `read_grey_image` does: mode "RGB"; a grey one has three equal colours.

    Raises:
        InputError: as `read_grey_image`, whose `rescale_16_bit` there is none of here.
    """
    name = str(path)
    image = _opened(path, name, image_size)
    _check_contrast(_to_grey(image, name, rescale_16_bit=False), name)
    return squared(image.convert("RGB"), image_size)


def open_upright(path: pathlib.Path) -> Image.Image:
    """One image at its own size, in the colours of its file, turned upright.

    Raises:
        InputError: the file is missing, unreadable, cut off, no PNG, JPEG or TIFF, or one of several in its file.
    """
    return _decode(path, str(path), image_size=None)


def squared(
    image: Image.Image, image_size: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """An image padded with black to a square around its centre, then resized."""
    side = max(image.size)
    if image.width != image.height:
        padded = Image.new(image.mode, (side, side))
        padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        image = padded
    if side == image_size:
        return image
    gap = None if resampling is Image.Resampling.NEAREST else 3.0
    return image.resize((image_size, image_size), resampling, reducing_gap=gap)


def png_bytes(image: Image.Image) -> bytes:
    """The image as PNG, compressed fast: what a prepared folder stores."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _opened(source: pathlib.Path | bytes, name: str, image_size: int) -> Image.Image:
    if image_size < SMALLEST_SIDE:
        raise InputError(f"image_size is {image_size}; expected at least {SMALLEST_SIDE} pixels.")
    image = _decode(source, name, image_size)
    if min(image.size) < SMALLEST_SIDE:
        width, height = image.size
        raise InputError(
            f"{name}: the image is {width} x {height} pixels; expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE}."
        )
    return image


def _check_contrast(grey: Image.Image, name: str) -> None:
    darkest, brightest = grey.getextrema()
    if darkest == brightest:
        raise InputError(f"{name}: every pixel has the value {darkest}; expected a radiograph, export the image again.")


def _decode(source: pathlib.Path | bytes, name: str, image_size: int | None) -> Image.Image:
    """Open and decode completely, so that a file that was cut off is found here, and turn upright."""
    # Of a file by name, Pillow 13 maps a turned TIFF into memory with width and height exchanged: a scrambled picture.
    content = source if isinstance(source, bytes) else _read(source, name)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            deep_colour = image.mode not in SIXTEEN_BIT_MODES and not image.mode.startswith("I;") and _is_16_bit(image)
            if image_size and image.format == "JPEG" and image.mode == "L" and min(image.size) >= 4 * image_size:
                image.draft("L", (2 * image_size, 2 * image_size))  # decodes large JPEGs at a fraction of the cost
            image.load()
            upright = _upright(image)
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a readable image; expected PNG, JPEG or TIFF.") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: the image has too many pixels; store it at 4096 x 4096 or less.") from None
    except Exception as error:  # Pillow's readers raise many kinds for a file that is damaged
        raise InputError(f"{name}: the image cannot be decoded ({error}); copy or export it again.") from None
    if frames > 1:
        raise InputError(f"{name}: the file holds {frames} images; expected one, export the radiograph alone.")
    if deep_colour:
        raise InputError(f"{name}: the image has more than 8 bits a colour; store it as 8-bit grey or RGB.")
    return upright


def _read(path: pathlib.Path, name: str) -> bytes:
    """The file's content; opening something else than a file, such as a pipe, could wait for ever."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{name}: the image file is missing; add it or remove the study from the table.") from None
    except (OSError, ValueError) as error:  # links that lead in a circle; a NUL in the name
        reason = getattr(error, "strerror", None) or error  # without the path, which lists must not tell
        raise InputError(f"{name}: the image file cannot be read ({reason}); mend its name or copy it again.") from None
    raise InputError(f"{name}: not a file; give the path of an image.")


def _is_16_bit(image: Image.Image) -> bool:
    """Whether Pillow would drop the lower half of every value: it reads 16-bit colours as 8-bit ones."""
    return any(";16" in str(tile[3]) for tile in image.tile)


def _upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says it was held; the image itself where it says nothing readable."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF says nothing about the picture, and Pillow raises many kinds for it
        return image
    return ImageOps.exif_transpose(image) if orientation in range(2, 9) else image


def _to_grey(image: Image.Image, name: str, rescale_16_bit: bool) -> Image.Image:
    mode = image.mode
    if mode in SIXTEEN_BIT_MODES or mode.startswith("I;"):
        if not rescale_16_bit:
            raise InputError(
                f"{name}: the image has more than 8 bits a pixel (mode {mode}); store it with 8 bits, or give "
                "rescale_16_bit=True to map its 0.5th to 99.5th percentile onto 0..255."
            )
        return _rescaled(image, name)
    if mode in GREY_MODES or (mode == "RGB" and "transparency" not in image.info):
        return image.convert("L")
    raise InputError(
        f"{name}: the image has colour mode {mode} (a palette, transparency or print colours); "
        "expected grey or RGB, flatten it and store it again."
    )


def _rescaled(image: Image.Image, name: str) -> Image.Image:
    values = numpy.asarray(image, dtype=numpy.float64)
    if not numpy.isfinite(values).all():
        raise InputError(f"{name}: the image has pixels that are not numbers; export it again.")
    low, high = numpy.percentile(values, FULL_RANGE_PERCENTILES)
    if high <= low:
        raise InputError(f"{name}: at least 99 % of the pixels have the value {low:g}; expected a radiograph.")
    return Image.fromarray((numpy.clip((values - low) / (high - low), 0, 1) * 255).round().astype(numpy.uint8))
