"""Both halves of a task around one model with owned modules, as far as they are the same for every such task.

A task says what its model is, how its data are dealt, what a batch is and what it measures. The rest of
`federation.task` is here: what is shared, what leaves, a round, fine-tuning, and what is saved.
"""

from __future__ import annotations

import abc
import functools
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import pandas
import safetensors.torch
import torch
from torch import Tensor

from fedmrg_core.data.site_names import path_part
from fedmrg_core.errors import InputError
from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.roster import Client
from fedmrg_core.files.tensor_files import read_tensors, write_tensors
from fedmrg_core.runs.methods import Method, Ownership
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.training import client_update
from fedmrg_core.training.client_rules import initial_controls
from fedmrg_core.training.client_state import CONTROL, HospitalState, LocalUpdate, without_controls
from fedmrg_core.training.client_update import Plan, Turn
from fedmrg_core.training.trained_model import TrainedModel, parameter_counts
from fedmrg_core.training.training_steps import Batches


class ModelTask(abc.ABC):
    """The server's half. A task adds `deal`, `build_model` and `make_hospital`; it opens no study.

    Attributes:
        validated: the measures that answer a validation.
        tested: those that answer a test.

    Args:
        run_folder: the folders of the configuration are relative to it.
        configuration: of the run.
    """

    validated: tuple[str, ...] = ("validation_loss",)
    tested: tuple[str, ...] = ()

    def __init__(self, run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
        self.run_folder, self.configuration = run_folder, configuration
        self._hospitals: dict[str, ModelHospital] = {}

    @abc.abstractmethod
    def build_model(self) -> TrainedModel:
        """The model of the run's row, as its seed initialises it."""

    @abc.abstractmethod
    def make_hospital(self, client: Client, folders: Collection[pathlib.Path]) -> ModelHospital:
        """The half of one client."""

    @functools.cached_property
    def model(self) -> TrainedModel:
        """The model in memory, made when it is first asked for; whoever uses it loads its tensors first."""
        return self.build_model()

    def hospital(self, client: Client, folders: Collection[pathlib.Path]) -> ModelHospital:
        """The half of one client; its studies are opened once."""
        if client.name not in self._hospitals:
            self._hospitals[client.name] = self.make_hospital(client, folders)
        return self._hospitals[client.name]

    def fingerprints(self) -> dict[str, str]:
        """Nothing: the model starts from the seed alone."""
        return {}

    def parameter_counts(self) -> dict[str, int]:
        """See :func:`fedmrg_core.training.trained_model.parameter_counts`."""
        return parameter_counts(self.model)

    def initial_shared(self) -> dict[str, Tensor]:
        """The shared modules as the seed initialises them, and SCAFFOLD's controls at zero."""
        controls = initial_controls(self.model) if self.configuration.method.client.control_variates else {}
        return {key: tensor.cpu().clone() for key, tensor in self.model.state(Ownership.SHARED).items()} | controls

    def shared_buffers(self) -> frozenset[str]:
        """The shared tensors that are no parameters: BatchNorm statistics."""
        return frozenset(self.model.state(Ownership.SHARED).keys() - self.model.trainable().keys())

    def leaving(self) -> Declaration:
        """The shared modules, every term of the losses and of the client's rules, and what the task measures."""
        method = self.configuration.method
        terms = [*type(method.losses).model_fields, *terms_of_rules(method), "loss"]
        training = tuple(f"train_{name}" for name in terms)
        return Declaration(modules_sent(method), 0, training, self.validated, self.tested)

    def save_shared(self, folder: pathlib.Path, shared: dict[str, Tensor]) -> None:
        """Write shared.safetensors."""
        safetensors.torch.save_file(without_controls(shared), folder / "shared.safetensors")


class ModelHospital:
    """A hospital's half. A task adds `batches` and `answers`, unless it trains and tests in its own way.

    The reports do so. Otherwise the model has `loss_terms`.

    Args:
        task: holds the configuration and the model in memory.
        client: who it is.
        folders: its client folder; of a centralised method's one client those of all.
    """

    def __init__(self, task: ModelTask, client: Client, folders: Collection[pathlib.Path]) -> None:
        self.task, self.client, self.paths = task, client, tuple(folders)

    def batches(self, split: str) -> Batches:
        """The client's examples of one split."""
        raise NotImplementedError

    def answers(self) -> pandas.DataFrame:
        """What the model as it stands says of the client's test studies: study_id, and a number a measure."""
        raise NotImplementedError

    def loss(self, batch: Any, indices: Sequence[int]) -> dict[str, Tensor]:
        """The unweighted loss terms of a batch."""
        return self.task.model.loss_terms(batch)

    def train(
        self,
        round_number: int,
        shared: dict[str, Tensor],
        state: HospitalState | None,
        prototypes: dict[str, Tensor],
        progress: bool,
    ) -> LocalUpdate:
        """See :func:`fedmrg_core.training.client_update.train_round`."""
        model, settings = self.task.model, self.task.configuration
        state = state or client_update.first_state(model)
        client_update.receive(model, shared, state)
        model.remember_shared()
        turn = Turn(self.client.name, round_number, settings.profile, settings.method, settings.seed, progress)
        return client_update.train_round(model, self.batches("train"), self.loss, shared, state, turn)

    @torch.no_grad()
    def validate(
        self, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """The mean weighted loss over the validation examples; without a state the client has not trained."""
        model, batches, weights = self.task.model, self.batches("validation"), self.task.configuration.method.losses
        state = state or client_update.first_state(model)
        client_update.receive(model, shared, state)
        model.eval()
        loss = 0.0
        for indices in batches.shuffled(numpy_stream(0, "validation")):
            terms = self.loss(batches.batch(indices), indices)
            loss += len(indices) * sum(getattr(weights, name) * term.item() for name, term in terms.items())
        return {"validation_loss": loss / len(batches)}, state, len(batches)

    def test(self, run_folder: pathlib.Path) -> tuple[dict[str, float], int]:
        """The means of the chosen model's answers."""
        load_chosen(self.task.model, run_folder, self.client.name)
        self.task.model.eval()  # a node's process may have made the model for this message alone
        answers = self.answers()
        return {key: float(answers[key].mean()) for key in self.task.tested}, len(answers)

    def finish(self, folder: pathlib.Path, shared: dict[str, Tensor], state: HospitalState | None) -> None:
        """Save the client's own tensors: its personal modules and BatchNorm statistics.

        With `client.fine_tuning_epochs` they are all its modules, tuned here from the chosen ones.
        """
        shared = without_controls(shared)
        tensors = self._own_tensors(shared, state.part("personal") if state else {})
        if tensors:
            self.task.model.load_state({**shared, **tensors})
            self.save_own(folder, tensors)

    def save_own(self, folder: pathlib.Path, tensors: dict[str, Tensor]) -> None:
        """Write personal/<client>.safetensors; the model in memory is the client's."""
        write_tensors(folder / "personal" / f"{path_part(self.client.name)}.safetensors", tensors)

    def go_on_alone(self, plan: Plan) -> None:
        """Train the model in memory on the client's own studies, by a plan."""
        settings = self.task.configuration
        self.task.model.remember_shared()
        client_update.train_alone(
            self.task.model, self.batches("train"), self.loss, plan, stream=("fine-tuning", self.client.name),
            profile=settings.profile, method=settings.method, seed=settings.seed,
        )  # fmt: skip

    def _own_tensors(self, shared: dict[str, Tensor], personal: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is laid over the shared tensors for this client; fine-tuned, every tensor that is not frozen."""
        model, epochs = self.task.model, self.task.configuration.method.client.fine_tuning_epochs
        if not epochs:
            return personal
        return client_update.fine_tuned(
            model, {**model.initial_personal, **shared, **personal}, epochs, self.go_on_alone
        )


def load_chosen(model: TrainedModel, run_folder: pathlib.Path, client: str | None = None) -> None:
    """Load the chosen model of a run, with one client's own tensors if it is named and has any.

    What is personal and nobody's here starts as every client's did.

    Raises:
        InputError: a file is damaged, or lacks a tensor that the method shares.
    """
    path = run_folder / "model" / "shared.safetensors"
    shared = read_tensors(path)
    missing = model.state(Ownership.SHARED).keys() - shared.keys()
    if missing:
        raise InputError(f"{path}: {min(missing)} is missing ({len(missing)} such); expected the model of this run.")
    tensors = model.initial_personal | shared
    if client is not None:
        personal = run_folder / "model" / "personal" / f"{path_part(client)}.safetensors"
        tensors |= read_tensors(personal) if personal.is_file() else {}
    model.load_state(tensors)


def modules_sent(method: Method) -> tuple[str, ...]:
    """The modules whose tensors an update of this row holds, SCAFFOLD's controls as one of them."""
    shared = [module for module, owner in method.modules.items() if owner is Ownership.SHARED]
    return (*shared, *([CONTROL] if method.client.control_variates else []))


def terms_of_rules(method: Method) -> list[str]:
    """Loss terms that the client's rules of this row add."""
    rules = {"proximal": method.client.proximal, "model_contrast": method.client.moon}
    return [name for name, weight in rules.items() if weight]
