"""A second task, as small as one can be: hospitals tell two sorts of rows apart, with a linear classifier."""

from __future__ import annotations

import pathlib
from collections.abc import Collection
from typing import Literal

import pandas
import pydantic
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmrg_core.federation.model_task import ModelHospital, ModelTask
from fedmrg_core.federation.roster import Client, Roster, roster_of_folders
from fedmrg_core.federation.tensor_folders import TensorBatches, open_split, write_tensor_folder
from fedmrg_core.runs.measures import Measure, Measures
from fedmrg_core.runs.methods import Losses, Method, MethodTable, Ownership
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.seeds import torch_stream
from fedmrg_core.training.trained_model import TrainedModel

WIDTH, SHARED = 6, Ownership.SHARED
CLIENTS, COUNTS = ("a", "b", "c"), {"train": 32, "validation": 16, "test": 48}


class LinearLosses(Losses):
    cross_entropy: float = pydantic.Field(1.0, ge=0)


class LinearMethod(Method):
    modules: dict[Literal["norm", "classifier"], Ownership] = {"norm": SHARED, "classifier": SHARED}
    losses: LinearLosses = LinearLosses()
    smoothing: float = pydantic.Field(0.0, ge=0, lt=1)  # of the labels

    misfits = {"smoothing needs a classifier": lambda row, has: row.smoothing and "classifier" not in has} | {
        **Method.misfits
    }


TABLE, MEASURES = MethodTable(LinearMethod), Measures(Measure("accuracy", "Accuracy"))


class LinearModel(TrainedModel):
    feature_modules = ("norm",)

    def __init__(self, method: LinearMethod, seed: int = 0) -> None:
        super().__init__(method)
        self.norm, self.classifier = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 2)
        with torch.no_grad():
            self.classifier.weight.normal_(generator=torch_stream(seed, "initialisation"))
            self.classifier.bias.zero_()
        self.settle_ownership()

    def batch_features(self, batch: dict[str, Tensor]) -> Tensor:
        return self.norm(batch["numbers"])

    def loss_terms(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits, smoothing = self.classifier(self.batch_features(batch)), self.method.smoothing
        return {"cross_entropy": functional.cross_entropy(logits, batch["labels"], label_smoothing=smoothing)}


def rows_of(client: str, split: str = "train", count: int = 16) -> dict[str, Tensor]:
    """Two sorts of rows around opposite centres, each client's a little shifted."""
    labels, shift = torch.arange(count) % 2, torch.randn(1, generator=torch_stream(0, "shift", client))
    noise = torch.randn(count, WIDTH, generator=torch_stream(0, "rows", client, split))
    return {"numbers": torch.where(labels[:, None] == 1, 0.5, -0.5) + shift + noise, "labels": labels}


class LinearTask(ModelTask):
    tested = ("accuracy",)

    @classmethod
    def deal(cls, run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
        folders = [run_folder / configuration.dealt / name for name in CLIENTS]
        for folder in folders:
            write_tensor_folder(folder, {split: rows_of(folder.name, split, COUNTS[split]) for split in COUNTS})
        return roster_of_folders(folders, run_folder)

    def build_model(self) -> LinearModel:
        return LinearModel(self.configuration.method, self.configuration.seed)

    def make_hospital(self, client: Client, folders: Collection[pathlib.Path]) -> LinearHospital:
        return LinearHospital(self, client, folders)


class LinearHospital(ModelHospital):
    def batches(self, split: str) -> TensorBatches:
        return open_split(self.paths[0], split, size=4)

    @torch.no_grad()
    def answers(self) -> pandas.DataFrame:
        rows, model = self.batches("test").tensors, self.task.model
        right = model.classifier(model.batch_features(rows)).argmax(dim=1) == rows["labels"]
        names = [f"{self.client.name}-{number}" for number in range(len(right))]
        return pandas.DataFrame({"study_id": names, "accuracy": right.float()})
