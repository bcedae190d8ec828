"""Which grey levels a vision backbone is used to, from the preprocessing that its checkpoint describes."""

from __future__ import annotations

import math
import pathlib

import transformers

from fedmrg_core.errors import InputError

# Where a checkpoint says nothing of preprocessing [ours].
USUAL_MEAN, USUAL_DEVIATION = 0.5, 0.25


def grey_levels(name: str | pathlib.Path) -> tuple[float, float]:
    """The grey level in [0, 1] that becomes zero, and how many of them become one; colours are averaged.

    Args:
        name: folder, or name of a hub model in the local cache.

    Raises:
        InputError: the checkpoint's mean or deviation is no number, or the deviation is not above zero.
    """
    try:
        settings, _ = transformers.BaseImageProcessor.get_image_processor_dict(str(name))
    except OSError:
        settings = {}
    if not isinstance(settings, dict):
        raise InputError(f"vision backbone: the preprocessor_config.json of {name} holds no settings; fetch it again.")
    mean, deviation = 0.0, 1.0
    if settings.get("do_normalize", True):
        mean = _average(settings.get("image_mean", USUAL_MEAN), "image_mean", name)
        deviation = _average(settings.get("image_std", USUAL_DEVIATION), "image_std", name, positive=True)
    return _on_unit_scale(mean, deviation, settings, name)


def _on_unit_scale(
    mean: float, deviation: float, settings: dict[str, object], name: str | pathlib.Path
) -> tuple[float, float]:
    """Mean and deviation for grey levels in [0, 1], however the checkpoint scales its pixels of 0 to 255."""
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
    if not isinstance(factor, int | float) or not factor > 0:
        raise _error("rescale_factor", factor, name, "a number above 0")
    largest = factor * 255  # what white becomes
    shift = 1.0 if settings.get("rescale_offset") else 0.0  # EfficientNet: from [0, 2] to [-1, 1]
    return (mean + shift) / largest, deviation / largest


def _average(values: object, key: str, name: str | pathlib.Path, positive: bool = False) -> float:
    numbers = values if isinstance(values, list | tuple) else [values]
    if not numbers or not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        raise _error(key, values, name, "numbers")
    if positive and min(numbers) <= 0:
        raise _error(key, values, name, "numbers above 0")
    return sum(numbers) / len(numbers)


def _error(key: str, value: object, name: str | pathlib.Path, expected: str) -> InputError:
    return InputError(
        f"vision backbone: {key} is {value} in the preprocessor_config.json of {name}; expected {expected}."
    )
