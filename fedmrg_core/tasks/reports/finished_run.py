"""A finished run on the machine that holds all its data: what notebooks 07 and 09 evaluate.

A benchmark measures every place with the same code, so here, after the federation and outside of it, one process opens
the test studies of all.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

import datasets

from fedmrg_core.data.dealing import Dealt
from fedmrg_core.data.site_names import path_part
from fedmrg_core.data.tensors import MEMORY_BUDGET, ClientTensors
from fedmrg_core.errors import InputError
from fedmrg_core.federation.model_files import check_model
from fedmrg_core.federation.roster import Roster, read_roster
from fedmrg_core.federation.task import load_task
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.tasks.reports.dealing import dealt_studies
from fedmrg_core.tasks.reports.report_model import ReportModel
from fedmrg_core.tasks.reports.task import ReportTask


class FinishedRun:
    """Model, places and studies of a run.

    Args:
        folder: the run folder.

    Raises:
        InputError: the run has no selected model yet or a damaged one, writes no reports, or holds tensors of a client
            it has not.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        if not (folder / "model" / "shared.safetensors").is_file():
            raise InputError(
                f"{folder}: no model/shared.safetensors; finish the run with notebook 06_federated_run first."
            )
        check_model(folder)
        task = load_task(folder)
        if not isinstance(task, ReportTask):
            raise InputError(f"{folder}: its task writes no reports; expected the run of notebook 06_federated_run.")
        self.folder, self.task = folder, task
        self.configuration: RunConfiguration = task.configuration
        self.roster: Roster = read_roster(folder)
        self._tensors: dict[tuple[str, str], ClientTensors] = {}
        _check_personal(folder / "model" / "personal", self.roster.names)

    @property
    def model(self) -> ReportModel:
        """The task's model in memory."""
        return self.task.model

    @functools.cached_property
    def dealt(self) -> Dealt:
        """Every place's folder."""
        return dealt_studies(self.folder, self.configuration)

    @property
    def sites(self) -> tuple[str, ...]:
        """Who holds studies, sorted; where the method is centralised they did not train themselves."""
        return tuple(self.dealt.clients)

    def tensors(self, site: str, split: str) -> ClientTensors:
        """One split of a site's studies, of its training studies those that the run used."""
        if (site, split) not in self._tensors:
            budget, settings = MEMORY_BUDGET // (3 * len(self.sites)), self.configuration
            studies = self.dealt.clients[site].used(split, settings.profile.training.study_share, settings.seed)
            self._tensors[site, split] = ClientTensors(studies, memory_budget=budget)
        return self._tensors[site, split]

    def unseen(self) -> dict[str, datasets.Dataset]:
        """Site that never trained -> its test studies."""
        return {site: folder.split("test") for site, folder in self.dealt.unseen.items()}

    def adaptation(self) -> dict[str, datasets.Dataset]:
        """Site that never trained -> its studies to adapt a model with; sites that have some."""
        held = {site: folder for site, folder in self.dealt.unseen.items() if folder.studies["train"]}
        return {site: folder.split("train") for site, folder in held.items()}

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the data, of their source's version and of the base models."""
        return {**self.roster.fingerprints, **self.task.fingerprints()}


def _check_personal(folder: pathlib.Path, clients: Sequence[str]) -> None:
    """Refuse tensors of nobody here: a client would be evaluated without its own, which lie under another name."""
    unknown = {path.stem for path in folder.glob("*.safetensors")} - {path_part(client) for client in clients}
    if unknown:
        raise InputError(
            f"{folder}: {min(unknown)}.safetensors belongs to no client of this run ({', '.join(clients)}); delete the "
            "run folder and make the run again."
        )
