"""What a model says of pictures, and how right each answer is by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pandas
import torch
from torch import Tensor

from fedmrg_core.data.pictures.picture import Subject
from fedmrg_core.metrics.segmentation import DICE, HAUSDORFF, dice, hausdorff95
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel

THRESHOLD = 0.5  # of a finding's or a pixel's probability
# Columns of `answers_to`; what does not apply is blank. `truth`, `chosen` and `probability` have a number a class.
COLUMNS = ("study_id", "kind", "truth", "chosen", "probability", "accuracy", DICE, HAUSDORFF)


def answers_to(model: PromptedModel, ids: Sequence[str], tensors: dict[str, Tensor]) -> pandas.DataFrame:
    """Answer pictures.

    Args:
        model: with the tensors loaded.
        ids: N of them.
        tensors: `pixels` and `truth`, uint8.

    Returns:
        `COLUMNS`, and Dice of each region by its name; a row a picture in their order.
    """
    found, truth = probabilities(model, tensors["pixels"]), tensors["truth"]
    rows = (
        _outlined(found, truth, model.subject) if model.subject.kind == "masks" else _told(found, truth, model.subject)
    )
    table = pandas.DataFrame({"study_id": list(ids), "kind": model.subject.kind, **rows})
    return table.reindex(columns=[*COLUMNS, *(name for name in table if name not in COLUMNS)])


def probabilities(model: PromptedModel, pixels: Tensor) -> Tensor:
    """Of pictures uint8 (N, C, H, W): (N, K) or (N, K, H, W), on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    parts = [model.answer(part.to(device).float() / 255).cpu() for part in pixels.split(model.at_once)]
    return torch.cat(parts)


def _told(found: Tensor, truth: Tensor, subject: Subject) -> dict[str, object]:
    right, said = truth.numpy(), found.double().numpy()
    chosen = (said > THRESHOLD).astype(numpy.uint8)
    if subject.kind == "one":
        chosen = numpy.eye(len(subject.names), dtype=numpy.uint8)[said.argmax(axis=1)]
        accuracy = (chosen * right).sum(axis=1).astype(float)
    else:
        accuracy = (chosen == right).mean(axis=1)
    texts = {"truth": _texts(right), "chosen": _texts(chosen), "probability": _texts(said.round(6))}
    return {**texts, "accuracy": accuracy}


def _outlined(found: Tensor, truth: Tensor, subject: Subject) -> dict[str, object]:
    masks = (found > THRESHOLD).to(torch.uint8)
    overlap, distance = dice(masks, truth), hausdorff95(masks, truth)
    by_region = {f"{DICE}_{name}": overlap[:, k] for k, name in enumerate(subject.names)}
    return {DICE: overlap.mean(axis=1), HAUSDORFF: distance.mean(axis=1), **by_region}


def _texts(numbers: numpy.ndarray) -> list[str]:
    return [" ".join(map(str, row)) for row in numbers.tolist()]


def numbers_of(texts: Sequence[str]) -> numpy.ndarray:
    """The inverse of how `truth`, `chosen` and `probability` are written: (N, K)."""
    return numpy.array([[float(part) for part in str(text).split()] for text in texts])
