"""Visual prompts as a federation trains them: the server's half and a hospital's."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Collection

import pandas
import torch
from torch import Tensor

from fedmrg_core.data.pictures.picture import Subject
from fedmrg_core.errors import InputError
from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.model_task import ModelHospital, ModelTask, load_chosen
from fedmrg_core.federation.roster import Client, Roster
from fedmrg_core.files.whole_files import read_json
from fedmrg_core.metrics.segmentation import DICE
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.tasks.visual_prompts.answering import answers_to
from fedmrg_core.tasks.visual_prompts.client_pictures import (
    ABOUT,
    SUBJECT,
    PictureBatches,
    check_changes,
    deal_pictures,
    used_pictures,
)
from fedmrg_core.tasks.visual_prompts.measures import AREA, DECLARED
from fedmrg_core.tasks.visual_prompts.prompted_model import PromptedModel, build_prompted_model
from fedmrg_core.training.checkpoint_folders import hash_of_checkpoints
from fedmrg_core.training.client_state import HospitalState
from fedmrg_core.training.pretrained import compute_device


class PictureTask(ModelTask):
    """One frozen vision model with what is trained beside it. It opens no picture."""

    tested = tuple(DECLARED.compared)

    @classmethod
    def deal(cls, run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
        """See :func:`fedmrg_core.tasks.visual_prompts.client_pictures.deal_pictures`."""
        return deal_pictures(run_folder, configuration)

    @property
    def subject(self) -> Subject:
        """What is asked of a picture: subject.json of the run folder."""
        return Subject.read(read_json(self.run_folder / SUBJECT))

    @property
    def base_model(self) -> str | pathlib.Path:
        """The profile's backbone, or the one that was built for these data: a ViT, or a SAM for masks."""
        built = (self.run_folder / self.configuration.base_models).resolve()
        return self.configuration.profile.base_models.backbone or built / built_name(self.subject)

    @property
    def uses_backbone(self) -> bool:
        """Whether the run's row has a frozen model at all."""
        return "network" not in self.configuration.method.modules

    def build_model(self) -> PromptedModel:
        """The frozen model with the modules of the run's row."""
        settings = self.configuration
        check_changes(settings.profile.training, self.subject)
        model = build_prompted_model(settings.profile, settings.method, self.subject, self.base_model, settings.seed)
        return model.to(compute_device())

    def make_hospital(self, client: Client, folders: Collection[pathlib.Path]) -> PictureHospital:
        """The half of one client."""
        return PictureHospital(self, client, folders)

    def fingerprints(self) -> dict[str, str]:
        """A hash of the frozen model."""
        return {"base_models": hash_of_checkpoints([self.base_model])} if self.uses_backbone else {}

    def leaving(self) -> Declaration:
        """The shared modules, the losses, and how right the validation and test pictures were answered."""
        declared = super().leaving()
        return dataclasses.replace(declared, validation=(*declared.validation, f"validation_{self.main}"))

    @property
    def main(self) -> str:
        """The measure that a validation says beside its loss."""
        return DICE if self.subject.kind == "masks" else AREA


class PictureHospital(ModelHospital):
    """A hospital's half: its own pictures, and nobody else's."""

    task: PictureTask

    def __init__(self, task: PictureTask, client: Client, folders: Collection[pathlib.Path]) -> None:
        super().__init__(task, client, folders)
        for folder in self.paths:
            if Subject.read(read_json(folder / ABOUT)["subject"]) != task.subject:
                raise InputError(f"{folder}: its pictures ask for something else than the run; prepare them again.")
        self._opened: dict[str, tuple[list[str], dict[str, Tensor]]] = {}

    def pictures(self, split: str) -> tuple[list[str], dict[str, Tensor]]:
        """Ids and tensors of one split: "train", "validation" or "test"."""
        if split not in self._opened:
            share, seed = self.task.configuration.profile.training.study_share, self.task.configuration.seed
            parts = [used_pictures(folder, split, share, seed) for folder in self.paths]
            tensors = {name: torch.cat([each[name] for _, each in parts]) for name in ("pixels", "truth")}
            self._opened[split] = [name for ids, _ in parts for name in ids], tensors
        return self._opened[split]

    def batches(self, split: str) -> PictureBatches:
        """The pictures of one split with their truth."""
        training, device = self.task.configuration.profile.training, next(self.task.model.parameters()).device
        return PictureBatches(self.pictures(split)[1], training.batch_size, training, device)

    @torch.no_grad()
    def validate(
        self, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """The loss over the validation pictures, and the measure that matters most."""
        measures, state, count = super().validate(shared, state)
        found = self._measured("validation").get(self.task.main, math.nan)
        return measures | ({} if math.isnan(found) else {f"validation_{self.task.main}": found}), state, count

    def answers(self) -> pandas.DataFrame:
        """What the model says of the test pictures."""
        return answers_to(self.task.model, *self.pictures("test"))

    def test(self, run_folder: pathlib.Path) -> tuple[dict[str, float], int]:
        """The measures of the test pictures that can be said of them."""
        load_chosen(self.task.model, run_folder, self.client.name)
        measured = self._measured("test")
        return {name: value for name, value in measured.items() if not math.isnan(value)}, len(self.pictures("test")[0])

    def _measured(self, split: str) -> dict[str, float]:
        answers = answers_to(self.task.model, *self.pictures(split))
        return {key: each.estimate() for key, each in DECLARED.statistics(answers).items()}


def built_name(subject: Subject) -> str:
    """Which of the small frozen models answers a subject: its folder below the base models."""
    return "sam" if subject.kind == "masks" else "vit"
