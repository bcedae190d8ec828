"""The federation's default experiment: report generators trained on the clients of a prepared data set."""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Iterable, Mapping

import datasets
import safetensors.torch
from torch import Tensor

from fedmrg_core import local_training
from fedmrg_core.client_rules import initial_controls
from fedmrg_core.client_state import HospitalState, LocalUpdate, without_controls
from fedmrg_core.data.partition import Partition
from fedmrg_core.data.prepared import Prepared, load_prepared
from fedmrg_core.data.tensors import MEMORY_BUDGET, ClientTensors
from fedmrg_core.errors import InputError
from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.run_configuration import RunConfiguration
from fedmrg_core.fine_tuning import fine_tuned
from fedmrg_core.methods import Ownership
from fedmrg_core.pretrained import compute_device
from fedmrg_core.seeds import torch_threads
from fedmrg_core.site_names import check_apart, path_part
from fedmrg_core.tasks.reports.build import build_report_generator
from fedmrg_core.tasks.reports.leaving import leaving
from fedmrg_core.trained_model import TrainedModel, parameter_counts

# The one client of a method with `training: centralised`; no site is called so, see `site_names.RESERVED`.
POOLED = "pooled"


class ReportExperiment:
    """One report generator in memory and the studies of every client that this process has to do with.

    Model and tensors are made when they are first asked for: a server needs no images, a simulated node only its own.

    Attributes:
        sites: who holds studies, sorted: the clients that the partition deals to.
        clients: who trains: the sites, or where the method is centralised "pooled", which holds all training and
            validation studies of the sites. Test studies stay with their site.

    Args:
        run_folder: the folders of the configuration are relative to it.
        configuration: of the run.

    Raises:
        InputError: the prepared studies are missing, or cannot be dealt to clients as configured, or two sites could
            not have a folder each here.
    """

    def __init__(self, run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
        self.configuration = configuration
        self.base_models = (run_folder / configuration.base_models).resolve()
        self._prepared_folder = (run_folder / configuration.prepared).resolve()
        self._tensors: dict[tuple[str, str], ClientTensors] = {}
        self.sites = tuple(sorted(self.partition.clients))
        if run_folder.is_dir():
            check_apart([*self.sites, *self.partition.unseen], run_folder)
        centralised = configuration.method.training == "centralised"
        self.clients = (POOLED,) if centralised else self.sites

    @functools.cached_property
    def prepared(self) -> Prepared:
        """The prepared studies of all sites."""
        prepared, size = load_prepared(self._prepared_folder), self.configuration.profile.image_size
        if prepared.summary["image_size"] != size:
            raise InputError(
                f"{self._prepared_folder}: its images are {prepared.summary['image_size']} pixels wide and the profile "
                f"asks for image_size {size}; prepare the data with this profile (notebook 01)."
            )
        return prepared

    @functools.cached_property
    def partition(self) -> Partition:
        """Who holds which studies."""
        settings = self.configuration
        return self.prepared.deal(settings.partition, settings.clients, settings.seed, settings.unseen_sites)

    @functools.cached_property
    def model(self) -> TrainedModel:
        """The model; whoever uses it loads its tensors first."""
        settings = self.configuration
        model = build_report_generator(settings.profile, settings.method, self.base_models, settings.seed)
        return model.to(compute_device())

    def tensors(self, client: str, split: str) -> ClientTensors:
        """One split of a site or of "pooled": "train", "validation" or "test"."""
        if (client, split) not in self._tensors:
            # One budget for all clients together, so that memory does not grow with their number.
            budget = MEMORY_BUDGET // (3 * len(self.sites))
            holders = self.sites if client == POOLED and client in self.clients else (client,)
            parts = [getattr(self.partition.clients[holder], split) for holder in holders]
            studies = parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
            self._tensors[client, split] = ClientTensors(studies, memory_budget=budget * len(parts))
        return self._tensors[client, split]

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the prepared studies and of the base models, and the version of the data source."""
        sources = self.configuration.profile.base_models.sources(self.base_models)
        version = str(self.prepared.summary.get("version"))
        return {"data": self.prepared.fingerprint, "data_version": version, "base_models": _hash_of_models(sources)}

    def parameter_counts(self) -> dict[str, int]:
        """See :func:`fedmrg_core.trained_model.parameter_counts`."""
        return parameter_counts(self.model)

    def initial_shared(self) -> dict[str, Tensor]:
        """The shared modules as the seed initialises them, and SCAFFOLD's controls at zero."""
        controls = initial_controls(self.model) if self.configuration.method.client.control_variates else {}
        return {key: tensor.cpu().clone() for key, tensor in self.model.state(Ownership.SHARED).items()} | controls

    def shared_buffers(self) -> frozenset[str]:
        """The shared tensors that are no parameters: BatchNorm statistics."""
        return frozenset(self.model.state(Ownership.SHARED).keys() - self.model.trainable().keys())

    def leaving(self) -> Declaration:
        """See :func:`fedmrg_core.tasks.reports.leaving.leaving`."""
        return leaving(self.configuration.method, self.model.validated)

    def train(
        self,
        client: str,
        round_number: int,
        shared: dict[str, Tensor],
        state: HospitalState | None,
        prototypes: dict[str, Tensor],
        progress: bool,
    ) -> LocalUpdate:
        """See :func:`fedmrg_core.local_training.train_client`."""
        settings = self.configuration
        return local_training.train_client(
            self.model,
            self.tensors(client, "train"),
            shared,
            state,
            prototypes,
            client=client,
            round_number=round_number,
            profile=settings.profile,
            method=settings.method,
            seed=settings.seed,
            progress=progress,
        )

    def validate(
        self, client: str, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """See :func:`fedmrg_core.local_training.validate_client`; a client without a state has not trained yet."""
        settings, studies = self.configuration, self.tensors(client, "validation")
        state = state or local_training.first_state(self.model, self.tensors(client, "train"))
        measures, state = local_training.validate_client(
            self.model, studies, shared, state, client=client, profile=settings.profile, method=settings.method
        )
        return measures, state, len(studies)

    def save_model(
        self, folder: pathlib.Path, shared: dict[str, Tensor], personal: Mapping[str, dict[str, Tensor]]
    ) -> None:
        """Write shared.safetensors, the adapters as PEFT folders, each client's own tensors, and the tokenizer.

        A client's own tensors are its personal modules and BatchNorm statistics. With `client.fine_tuning_epochs` they
        are all its modules, tuned here from the selected ones; the shared model stays as it is for centres that never
        trained.
        """
        shared = without_controls(shared)
        safetensors.torch.save_file(shared, folder / "shared.safetensors")
        self.model.load_state(shared)
        for name, owner in self._adapters().items():
            if owner is not Ownership.PERSONAL:
                self.model.save_adapter(name, folder / name)
        for client in sorted(personal):
            tensors = self._own_tensors(client, shared, personal[client])
            if tensors:
                self._save_own(folder, client, shared, tensors)
        self.model.tokenizer.save_pretrained(folder / "tokenizer")
        for path in (*folder.rglob("*.json"), *folder.rglob("*.md")):
            text = path.read_text(encoding="utf-8")
            if str(self.base_models) in text:  # peft and transformers note where the LLM lay on this machine
                path.write_text(text.replace(str(self.base_models), "base_models"), encoding="utf-8")

    def _adapters(self) -> dict[str, Ownership]:
        """The adapters that can be saved, and who owns them."""
        if self.configuration.method.model != "llm":
            return {}
        owners = {name: self.model.adapter_owner(name) for name in self.model.adapters}
        return {name: owner for name, owner in owners.items() if owner is not None}

    def _own_tensors(self, client: str, shared: dict[str, Tensor], personal: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is laid over the shared tensors for one client."""
        settings = self.configuration
        if not settings.method.client.fine_tuning_epochs:
            return personal
        with torch_threads(settings.threads):
            return fine_tuned(
                self.model,
                self.tensors(client, "train"),
                {**self.model.initial_personal, **shared, **personal},
                client=client,
                profile=settings.profile,
                method=settings.method,
                seed=settings.seed,
            )

    def _save_own(
        self, folder: pathlib.Path, client: str, shared: dict[str, Tensor], tensors: dict[str, Tensor]
    ) -> None:
        """personal/<client>.safetensors, and the client's own adapters as PEFT folders <adapter>/<client>."""
        (folder / "personal").mkdir(exist_ok=True)
        safetensors.torch.save_file(tensors, folder / "personal" / f"{path_part(client)}.safetensors")
        self.model.load_state({**shared, **tensors})
        tuned = self.configuration.method.client.fine_tuning_epochs > 0
        for name, owner in self._adapters().items():
            if tuned or owner is Ownership.PERSONAL:
                self.model.save_adapter(name, folder / name.removesuffix("_adapter") / path_part(client))


def _hash_of_models(sources: Iterable[str | pathlib.Path]) -> str:
    """Names, sizes and first megabyte of every file in the folders; a model that is no folder counts by its name."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(str(source).encode() if isinstance(source, str) else source.name.encode())
        for path in sorted(pathlib.Path(source).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(source)} {path.stat().st_size}".encode())
                with path.open("rb") as handle:
                    digest.update(handle.read(2**20))
    return digest.hexdigest()
