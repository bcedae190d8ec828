"""Report generation as a federation trains it: the server's half, and the model that both halves share in memory."""

from __future__ import annotations

import pathlib
from collections.abc import Collection

from torch import Tensor

from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.model_task import ModelTask
from fedmrg_core.federation.roster import ROSTER, Client, Roster, read_roster
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.tasks.reports.hospital import ReportHospital
from fedmrg_core.tasks.reports.leaving import leaving
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.training.adapter_folders import AdapterSaver
from fedmrg_core.training.checkpoint_folders import hash_of_checkpoints
from fedmrg_core.training.client_state import without_controls
from fedmrg_core.training.pretrained import compute_device


class ReportTask(ModelTask):
    """One report generator in memory, made when it is first asked for. It opens no study.

    Args:
        run_folder: the folders of the configuration are relative to it.
        configuration: of the run.
    """

    def __init__(self, run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
        super().__init__(run_folder, configuration)
        self.base_models = (run_folder / configuration.base_models).resolve()

    @classmethod
    def deal(cls, run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
        """See :func:`fedmrg_core.tasks.reports.dealing.deal_run`."""
        from fedmrg_core.tasks.reports.dealing import deal_run  # the only part that sees all studies

        return deal_run(run_folder, configuration)

    def build_model(self) -> ReportModel:
        """The report generator of the run's row, over the base models."""
        settings = self.configuration
        model = build_report_generator(settings.profile, settings.method, self.base_models, settings.seed)
        return model.to(compute_device())

    def make_hospital(self, client: Client, folders: Collection[pathlib.Path]) -> ReportHospital:
        """The half of one client."""
        # A hospital on its own machine has no list of the others, and the memory for itself.
        roster = self.run_folder / ROSTER
        count = len(read_roster(self.run_folder).clients) if roster.is_file() else 1
        return ReportHospital(self, client, folders, in_this_process=count)

    def fingerprints(self) -> dict[str, str]:
        """A hash of the base models."""
        return {"base_models": hash_of_checkpoints(self.configuration.profile.base_models.sources(self.base_models))}

    def leaving(self) -> Declaration:
        """See :func:`fedmrg_core.tasks.reports.leaving.leaving`."""
        return leaving(self.configuration.method, self.model.validated, self.model.feature_width)

    @property
    def saver(self) -> AdapterSaver:
        """Writes the adapters of the model in memory."""
        return AdapterSaver(self.model, self.base_models)

    def save_shared(self, folder: pathlib.Path, shared: dict[str, Tensor]) -> None:
        """Write shared.safetensors, the shared adapters as PEFT folders, and the tokenizer."""
        super().save_shared(folder, shared)
        self.model.load_state(without_controls(shared))
        self.saver.save_shared(folder)
