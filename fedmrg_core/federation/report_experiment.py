"""The federation's default experiment: report generators trained on the clients of a prepared data set."""

from __future__ import annotations

import functools
import hashlib
import pathlib
from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from fedmrg_core import local_training
from fedmrg_core.adapters import GENERIC, SPECIALISED
from fedmrg_core.configuration import Ownership
from fedmrg_core.data.partition import Partition, partition_clients
from fedmrg_core.data.prepared import Prepared, load_prepared
from fedmrg_core.data.tensors import MEMORY_BUDGET, ClientTensors
from fedmrg_core.errors import InputError
from fedmrg_core.federation.hospital import folder_name
from fedmrg_core.federation.run_configuration import RunConfiguration
from fedmrg_core.local_training import HospitalState, LocalUpdate
from fedmrg_core.report_generator import ReportGenerator, build_report_generator


class ReportExperiment:
    """One report generator in memory and the studies of every client that this process has to do with.

    Model and tensors are made when they are first asked for: a server needs no images, a simulated node only its own.

    Args:
        run_folder: the folders of the configuration are relative to it.
        configuration: of the run.

    Raises:
        InputError: the prepared studies are missing, or cannot be dealt to clients as configured.
    """

    def __init__(self, run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
        self.configuration = configuration
        self.base_models = (run_folder / configuration.base_models).resolve()
        self._prepared_folder = (run_folder / configuration.prepared).resolve()
        self._tensors: dict[tuple[str, str], ClientTensors] = {}
        self.clients = tuple(sorted(self.partition.clients))

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
        return partition_clients(
            self.prepared.studies,
            settings.partition,
            clients=settings.clients,
            seed=settings.seed,
            unseen_sites=self.prepared.unseen_sites if settings.unseen_sites is None else settings.unseen_sites,
        )

    @functools.cached_property
    def model(self) -> ReportGenerator:
        """The model; whoever uses it loads its tensors first."""
        settings = self.configuration
        model = build_report_generator(settings.profile, settings.method, self.base_models, settings.seed)
        return model.to("cuda" if torch.cuda.is_available() else "cpu")

    def tensors(self, client: str, split: str) -> ClientTensors:
        """One split of a client: "train", "validation" or "test"."""
        if (client, split) not in self._tensors:
            # One budget for all clients together, so that memory does not grow with their number.
            budget = MEMORY_BUDGET // (3 * len(self.clients))
            studies = getattr(self.partition.clients[client], split)
            self._tensors[client, split] = ClientTensors(studies, memory_budget=budget)
        return self._tensors[client, split]

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the prepared studies and of the base models."""
        return {"data": self.prepared.fingerprint, "base_models": _hash_of_models(self._model_sources())}

    def _model_sources(self) -> list[str | pathlib.Path]:
        given = self.configuration.profile.base_models
        return [given.llm or self.base_models / "llm", given.backbone or self.base_models / "backbone"]

    def initial_shared(self) -> dict[str, Tensor]:
        """The shared modules as the seed initialises them."""
        return {key: tensor.cpu().clone() for key, tensor in self.model.state(Ownership.SHARED).items()}

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
        self, client: str, shared: dict[str, Tensor], state: HospitalState
    ) -> tuple[dict[str, float], HospitalState, int]:
        """See :func:`fedmrg_core.local_training.validate_client`."""
        settings, studies = self.configuration, self.tensors(client, "validation")
        measures, state = local_training.validate_client(
            self.model, studies, shared, state, client=client, profile=settings.profile, method=settings.method
        )
        return measures, state, len(studies)

    def save_model(
        self, folder: pathlib.Path, shared: dict[str, Tensor], personal: Mapping[str, dict[str, Tensor]]
    ) -> None:
        """Write shared.safetensors, the adapters as PEFT folders, each client's personal tensors, and the tokenizer."""
        modules = self.configuration.method.modules
        adapters = {name: modules[name] for name in (GENERIC, SPECIALISED) if name in modules}
        safetensors.torch.save_file(shared, folder / "shared.safetensors")
        self.model.load_state(shared)
        for name, owner in adapters.items():
            if owner is not Ownership.PERSONAL:
                self.model.save_adapter(name, folder / name)
        for client, tensors in personal.items():
            if not tensors:
                continue
            (folder / "personal").mkdir(exist_ok=True)
            safetensors.torch.save_file(tensors, folder / "personal" / f"{folder_name(client)}.safetensors")
            self.model.load_state(tensors)
            for name, owner in adapters.items():
                if owner is Ownership.PERSONAL:
                    self.model.save_adapter(name, folder / name.removesuffix("_adapter") / folder_name(client))
        self.model.tokenizer.save_pretrained(folder / "tokenizer")
        for path in (*folder.rglob("*.json"), *folder.rglob("*.md")):
            text = path.read_text(encoding="utf-8")
            if str(self.base_models) in text:  # peft and transformers note where the LLM lay on this machine
                path.write_text(text.replace(str(self.base_models), "base_models"), encoding="utf-8")


def _hash_of_models(sources: list[str | pathlib.Path]) -> str:
    """Names, sizes and first megabyte of every file in the folders; a model that is no folder counts by its name."""
    digest = hashlib.sha256()
    for source in sources:
        if isinstance(source, pathlib.Path) and not source.is_dir():
            raise InputError(f"base models: folder {source} does not exist; run notebook 05_base_models first.")
        digest.update(str(source).encode() if isinstance(source, str) else source.name.encode())
        for path in sorted(pathlib.Path(source).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(source)} {path.stat().st_size}".encode())
                with path.open("rb") as handle:
                    digest.update(handle.read(2**20))
    return digest.hexdigest()
