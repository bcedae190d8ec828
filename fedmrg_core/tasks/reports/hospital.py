"""A hospital's half of report generation: its own studies, trained on, validated and written about where they lie."""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Collection
from typing import TYPE_CHECKING

import datasets
from torch import Tensor

from fedmrg_core.data.client_folders import open_client_folder
from fedmrg_core.data.tensors import MEMORY_BUDGET, ClientTensors
from fedmrg_core.federation.model_task import ModelHospital
from fedmrg_core.federation.roster import Client
from fedmrg_core.tasks.reports import local_training
from fedmrg_core.tasks.reports.fine_tuning import train_alone
from fedmrg_core.training.client_state import HospitalState, LocalUpdate
from fedmrg_core.training.client_update import Plan

if TYPE_CHECKING:
    from fedmrg_core.tasks.reports.task import ReportTask

# Loaded by name: training never imports what only tests, so that a change there does not make a run another run.
TESTING = "fedmrg_core.tasks.reports.testing"


class ReportHospital(ModelHospital):
    """One client of the federation, on its own machine or in one process with others.

    Args:
        task: holds the configuration and the model in memory.
        client: who it is.
        folders: its client folder; of the centralised baseline's one client those of all.
        in_this_process: how many clients share this process's memory.

    Raises:
        InputError: a folder is missing, of other data or another image size, or has no study to train on.
    """

    def __init__(
        self, task: ReportTask, client: Client, folders: Collection[pathlib.Path], in_this_process: int
    ) -> None:
        super().__init__(task, client, folders)
        self.folders = [open_client_folder(folder) for folder in self.paths]
        for folder in self.folders:
            folder.check(task.configuration.data, task.configuration.profile.image_size)
        # One budget for all clients together, so that memory does not grow with their number.
        self._budget = MEMORY_BUDGET // (3 * max(in_this_process, len(self.folders))) * len(self.folders)
        self._tensors: dict[str, ClientTensors] = {}

    def tensors(self, split: str) -> ClientTensors:
        """The client's studies of one split that the run uses: "train", "validation" or "test"."""
        if split not in self._tensors:
            settings = self.task.configuration
            share = settings.profile.training.study_share
            parts = [folder.used(split, share, settings.seed) for folder in self.folders]
            studies = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
            self._tensors[split] = ClientTensors(studies, memory_budget=self._budget)
        return self._tensors[split]

    def train(
        self,
        round_number: int,
        shared: dict[str, Tensor],
        state: HospitalState | None,
        prototypes: dict[str, Tensor],
        progress: bool,
    ) -> LocalUpdate:
        """See :func:`fedmrg_core.tasks.reports.local_training.train_client`."""
        settings = self.task.configuration
        return local_training.train_client(
            self.task.model,
            self.tensors("train"),
            shared,
            state,
            prototypes,
            client=self.client.name,
            round_number=round_number,
            profile=settings.profile,
            method=settings.method,
            seed=settings.seed,
            progress=progress,
        )

    def validate(
        self, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """See :func:`fedmrg_core.tasks.reports.local_training.validate_client`; without a state it has not trained."""
        settings, studies = self.task.configuration, self.tensors("validation")
        state = state or local_training.first_state(self.task.model, self.tensors("train"))
        measures, state = local_training.validate_client(
            self.task.model,
            studies,
            shared,
            state,
            client=self.client.name,
            profile=settings.profile,
            method=settings.method,
        )
        return measures, state, len(studies)

    def go_on_alone(self, plan: Plan) -> None:
        """See :func:`fedmrg_core.tasks.reports.fine_tuning.train_alone`."""
        settings = self.task.configuration
        train_alone(
            self.task.model,
            self.tensors("train"),
            plan,
            stream=("fine-tuning", self.client.name),
            profile=settings.profile,
            method=settings.method,
            seed=settings.seed,
        )

    def save_own(self, folder: pathlib.Path, tensors: dict[str, Tensor]) -> None:
        """Its tensors, and its own adapters as PEFT folders."""
        super().save_own(folder, tensors)
        self.task.saver.save_own(folder, self.client.name)

    def test(self, run_folder: pathlib.Path) -> tuple[dict[str, float], int]:
        """See `fedmrg_core.tasks.reports.testing.test_at_hospital`."""
        return importlib.import_module(TESTING).test_at_hospital(run_folder, self)
