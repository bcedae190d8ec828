"""The two halves of a task: what the server computes, and what each hospital does; one of each in a process.

The server's half never opens a study, a hospital's half only its own client folder. In one process they share one
model in memory, which every call loads anew.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Collection
from typing import Protocol

from torch import Tensor

from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.roster import Client, Roster
from fedmrg_core.runs.run_configuration import RunConfiguration, read_configuration
from fedmrg_core.runs.task_registry import make_task
from fedmrg_core.runs.training_code import training_code_hash
from fedmrg_core.training.client_state import HospitalState, LocalUpdate

# Validation chooses the round with the lowest mean of this measure over the clients [ours]; a loss, never negative.
SELECTION_MEASURE = "validation_loss"


class HospitalTask(Protocol):
    """A hospital's half. It opens the client's own folder and the base models."""

    client: Client  # its name, how many training studies it has, their fingerprint

    def train(
        self,
        round_number: int,
        shared: dict[str, Tensor],
        state: HospitalState | None,
        prototypes: dict[str, Tensor],
        progress: bool,
    ) -> LocalUpdate:
        """One round's update."""

    def validate(
        self, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """Measures on the client's validation part (`SELECTION_MEASURE` among them), its new state, its studies.

        A client without a state has not trained yet; its personal modules are the initial ones.
        """

    def finish(self, folder: pathlib.Path, shared: dict[str, Tensor], state: HospitalState | None) -> None:
        """Save the client's own part of the chosen model below `folder`, fine-tuned first where the method says so."""

    def test(self, run_folder: pathlib.Path) -> tuple[dict[str, float], int]:
        """Measures of the saved model on the client's own test studies, and how many those are."""


class Task(Protocol):
    """The server's half, and where a hospital's comes from. Tasks stand by name in `fedmrg_core.runs.task_registry`."""

    configuration: RunConfiguration

    def __init__(self, run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
        """Make the task of a run folder; the folders of the configuration are relative to it."""

    @classmethod
    def deal(cls, run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
        """Before a federation on one machine: write a folder for every client, and say who they are."""

    def fingerprints(self) -> dict[str, str]:
        """Hashes of what the run starts from beside the data: a checkpoint goes on only with the same ones."""

    def parameter_counts(self) -> dict[str, int]:
        """How many parameters are shared, personal, trainable, frozen; for the manifest."""

    def initial_shared(self) -> dict[str, Tensor]:
        """The shared tensors before round 1, ``module/name``."""

    def shared_buffers(self) -> Collection[str]:
        """Those of them that are no parameters (BatchNorm statistics)."""

    def leaving(self) -> Declaration:
        """Everything that may leave a hospital, by name."""

    def save_shared(self, folder: pathlib.Path, shared: dict[str, Tensor]) -> None:
        """Write the chosen shared model."""

    def hospital(self, client: Client, folders: Collection[pathlib.Path]) -> HospitalTask:
        """The half of one client, whose studies lie in these folders."""


_in_memory: dict[pathlib.Path, Task] = {}
_initial: dict[pathlib.Path, dict[str, Tensor]] = {}


def load_task(run_folder: pathlib.Path) -> Task:
    """The task of a run folder, made once in a process; another run folder's is let go.

    Raises:
        InputError: config.yaml is missing or wrong, or its task is unknown.
    """
    run_folder = run_folder.resolve()
    if run_folder not in _in_memory:
        forget_tasks()
        configuration = read_configuration(run_folder)
        _in_memory[run_folder] = make_task(configuration.task)(run_folder, configuration)
    return _in_memory[run_folder]


def initial_model(run_folder: pathlib.Path) -> dict[str, Tensor]:
    """The shared tensors before round 1, copied the first time: the model in memory goes on to be trained."""
    run_folder = run_folder.resolve()
    if run_folder not in _initial:
        tensors = load_task(run_folder).initial_shared()
        _initial[run_folder] = {key: tensor.detach().cpu().float().clone() for key, tensor in tensors.items()}
    return _initial[run_folder]


def run_fingerprint(task: Task, roster: Roster) -> str:
    """One hash of the training code, the configuration, and what the run starts from."""
    configuration = task.configuration
    start = {**roster.fingerprints, **task.fingerprints()}
    content = json.dumps([training_code_hash(configuration.task), configuration.identity(), start], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def forget_tasks() -> None:
    """Free the models and the data that `load_task` keeps."""
    _in_memory.clear()
    _initial.clear()
