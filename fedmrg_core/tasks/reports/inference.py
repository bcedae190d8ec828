"""Reports and features for whole sets of studies from a trained model: what notebook 07 stores and scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy
import torch
from torch import Tensor
from tqdm.auto import tqdm

from fedmrg_core.data.labeller import label_report
from fedmrg_core.runs.configuration import Generation
from fedmrg_core.tasks.reports.report_model import ReportModel


class TestStudies(Protocol):
    """What inference needs of a set of studies (`fedmrg_core.data.tensors.ClientTensors`)."""

    study_ids: Sequence[str]
    texts: Sequence[str]
    states: Tensor  # (N, 14)

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int]) -> Tensor:
        """(B, 1, H, W) in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One study's report under one adapter; states are 14 digits, classes in the order of FINDINGS."""

    study_id: str
    reference: str
    generated: str
    states_reference: str
    states_generated: str
    states_head: str  # the states the prompts were made from; empty for a method without a diagnosis head


def write_reports(
    model: ReportModel, studies: TestStudies, adapter: str, settings: Generation, description: str = "reports"
) -> list[Prediction]:
    """Generate a report for every study, prompts from the predicted states.

    Studies of similar reference length are not put together: order and batches are the studies' own, so the result
    does not depend on what is being looked for.
    """
    model.eval()
    device = next(model.parameters()).device
    predictions = []
    starts = range(0, len(studies), settings.batch_size)
    for start in tqdm(starts, desc=f"{description} {adapter}", leave=False):
        indices = list(range(start, min(start + settings.batch_size, len(studies))))
        texts, prompts = model.generate(studies.images(indices).to(device), adapter, settings)
        head = prompts.auxiliary.get("states")
        for row, index in enumerate(indices):
            predictions.append(
                Prediction(
                    study_id=studies.study_ids[index],
                    reference=studies.texts[index],
                    generated=texts[row],
                    states_reference=digits(studies.states[index].tolist()),
                    states_generated=digits(label_report(texts[row])),
                    states_head="" if head is None else digits(head[row].tolist()),
                )
            )
    return predictions


@torch.no_grad()
def image_features(model: ReportModel, studies: TestStudies, batch_size: int = 64) -> numpy.ndarray:
    """Feature h of every study, (N, D) float32: for the feature map, client distances and the nearest-image floor."""
    model.eval()
    device = next(model.parameters()).device
    starts = range(0, len(studies), batch_size)
    parts = [
        model.features(studies.images(list(range(s, min(s + batch_size, len(studies))))).to(device)) for s in starts
    ]
    return torch.cat(parts).float().cpu().numpy()


@torch.no_grad()
def state_probabilities(model: ReportModel, studies: TestStudies, batch_size: int = 64) -> numpy.ndarray:
    """What the diagnosis head says of every study: (N, 14, 4) probabilities of the states."""
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(studies), batch_size):
        images = studies.images(list(range(start, min(start + batch_size, len(studies))))).to(device)
        parts.append(model.prefix(images).prompts.auxiliary["state_logits"].softmax(dim=-1))
    return torch.cat(parts).float().cpu().numpy()


def digits(states: Sequence[int]) -> str:
    """14 class numbers as a string of digits."""
    return "".join(str(int(state)) for state in states)
