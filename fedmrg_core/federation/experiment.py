"""What a federation trains, as the client app and the server app see it; one in memory for each process."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Protocol

from torch import Tensor

from fedmrg_core.client_state import HospitalState, LocalUpdate
from fedmrg_core.code_state import training_code_hash
from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.run_configuration import RunConfiguration, read_configuration
from fedmrg_core.tasks import make_task

# Validation chooses the round with the lowest mean of this measure over the clients [ours].
SELECTION_MEASURE = "validation_loss"


class Experiment(Protocol):
    """A model and its clients. `ReportExperiment` is the paper's; other tasks bring their own."""

    configuration: RunConfiguration
    clients: tuple[str, ...]  # sorted; partition k is clients[k]

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the data and of all else the run starts from: a checkpoint goes on only with the same ones."""

    def parameter_counts(self) -> dict[str, int]:
        """How many parameters are shared, personal, trainable, frozen; for the manifest."""

    def initial_shared(self) -> dict[str, Tensor]:
        """The shared tensors before round 1, ``module/name``."""

    def shared_buffers(self) -> Collection[str]:
        """Those of them that are no parameters (BatchNorm statistics); an experiment without any may lack this."""

    def leaving(self) -> Declaration:
        """Everything that may leave a hospital, by name."""

    def train(
        self,
        client: str,
        round_number: int,
        shared: dict[str, Tensor],
        state: HospitalState | None,
        prototypes: dict[str, Tensor],
        progress: bool,
    ) -> LocalUpdate:
        """One client's update."""

    def validate(
        self, client: str, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """Measures on the client's validation part (`SELECTION_MEASURE` among them), its new state, its studies.

        A client without a state has not trained yet; its personal modules are the initial ones.
        """

    def save_model(
        self, folder: pathlib.Path, shared: dict[str, Tensor], personal: Mapping[str, dict[str, Tensor]]
    ) -> None:
        """Write the selected model; `personal` holds each client's own modules."""


_in_memory: dict[pathlib.Path, Experiment] = {}
_initial: dict[pathlib.Path, dict[str, Tensor]] = {}


def load_experiment(run_folder: pathlib.Path) -> Experiment:
    """The experiment of a run folder, made once in a process; another run folder's is let go.

    Raises:
        InputError: config.yaml is missing or wrong, or its task is unknown.
    """
    run_folder = run_folder.resolve()
    if run_folder not in _in_memory:
        forget_experiments()
        configuration = read_configuration(run_folder)
        _in_memory[run_folder] = make_task(configuration.task)(run_folder, configuration)
    return _in_memory[run_folder]


def initial_model(run_folder: pathlib.Path) -> dict[str, Tensor]:
    """The shared tensors before round 1, copied the first time: the model in memory goes on to be trained."""
    run_folder = run_folder.resolve()
    if run_folder not in _initial:
        tensors = load_experiment(run_folder).initial_shared()
        _initial[run_folder] = {key: tensor.detach().cpu().float().clone() for key, tensor in tensors.items()}
    return _initial[run_folder]


def buffers_of(experiment: Experiment) -> frozenset[str]:
    """The keys of shared tensors that are no parameters."""
    return frozenset(experiment.shared_buffers()) if hasattr(experiment, "shared_buffers") else frozenset()


def run_fingerprint(configuration: RunConfiguration, experiment: Experiment) -> str:
    """One hash of the training code, the configuration, and what the experiment starts from."""
    content = json.dumps(
        [training_code_hash(configuration.task), configuration.identity(), experiment.fingerprints()], sort_keys=True
    )
    return hashlib.sha256(content.encode()).hexdigest()


def forget_experiments() -> None:
    """Free the model and the data that `load_experiment` keeps."""
    _in_memory.clear()
    _initial.clear()
