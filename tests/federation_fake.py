"""A federation of three hospitals and a few numbers, for tests of everything around the model.

What goes wrong in it is set in the environment, so that it also goes wrong in another process:
``FAKE_FAILURES="b:nan:2 c:raises:*"`` is client:kind:round.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Collection

import safetensors.torch
import torch
from torch import Tensor

from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.roster import Client, Roster
from fedmrg_core.files.tensor_files import write_tensors
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import Payload, ServerRule, load_method
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.seeds import torch_stream
from fedmrg_core.training.client_state import HospitalState, LocalUpdate

EXAMPLES = {"a": 3, "b": 5, "c": 8}


def failure(client: str, round_number: int) -> str | None:
    for entry in os.environ.get("FAKE_FAILURES", "").split():
        name, kind, when = entry.split(":")
        if name == client and when in (str(round_number), "*"):
            return kind
    return None


class FakeTask:
    """Three hospitals without a folder."""

    names = tuple(EXAMPLES)

    def __init__(self, run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
        self.configuration, self.seed = configuration, configuration.seed

    @classmethod
    def deal(cls, run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
        clients = tuple(Client(name, EXAMPLES.get(name, 1), f"studies of {name}") for name in cls.names)
        return Roster(clients, {"data": "fake"})

    def hospital(self, client: Client, folders: Collection[pathlib.Path]) -> FakeHospital:
        return FakeHospital(self, client)

    def fingerprints(self) -> dict[str, str]:
        return {}

    def parameter_counts(self) -> dict[str, int]:
        return {"shared": 13}

    def initial_shared(self) -> dict[str, Tensor]:
        generator = torch_stream(self.seed, "initialisation")
        return {
            "encoder/stage.weight": torch.randn(3, 4, generator=generator),
            "encoder/stage.scale": torch.ones(()),
            "encoder/stage.variance": torch.ones(3),
            "encoder/kernel": torch.randn(12, 5, 3, generator=generator),
            "generic_adapter/lora_A": torch.randn(2, 5, generator=generator),
            "generic_adapter/lora_B": torch.zeros(6, 2),
        }

    def shared_buffers(self) -> set[str]:
        return {"encoder/stage.variance"} & set(self.initial_shared())

    def leaving(self) -> Declaration:
        """The model, a prototype and one loss each."""
        modules = sorted({key.partition("/")[0] for key in self.initial_shared()})
        return Declaration(tuple(modules), True, ("train_loss",), ("validation_loss",), ("test_loss",))

    def save_shared(self, folder: pathlib.Path, shared: dict[str, Tensor]) -> None:
        safetensors.torch.save_file(shared, folder / "shared.safetensors")


class FakeHospital:
    """Its local update adds noise, the personal numbers and the momentum to the shared ones."""

    def __init__(self, task: FakeTask, client: Client) -> None:
        self.task, self.client, self.seed = task, client, task.seed

    def train(
        self,
        round_number: int,
        shared: dict[str, Tensor],
        state: HospitalState | None,
        prototypes: dict[str, Tensor],
        progress: bool,
    ) -> LocalUpdate:
        client = self.client.name
        kind = failure(client, round_number)
        if kind == "raises":
            raise ValueError("the scanner is on fire")
        kept = state.tensors if state else {"personal/specialised_adapter/w": torch.zeros(5)}
        generator = torch_stream(self.seed, "noise", client, round_number)
        pull = sum((prototypes[name].sum() for name in sorted(prototypes)), torch.zeros(()))
        momentum = 0.9 * kept.get("optimiser/momentum", torch.zeros(5)) + torch.randn(5, generator=generator)
        weights = kept.get("disease_weights", torch.ones(2))
        new = {
            key: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) + 0.01 * pull
            for key, tensor in shared.items()
        }
        if not shared:
            return self._alone(momentum, weights, kept)
        new["encoder/stage.variance"] = new["encoder/stage.variance"].abs()
        new["generic_adapter/lora_A"] += 0.1 * momentum + 0.01 * weights.sum()
        prototype = new["encoder/stage.weight"].mean(dim=0)
        if kind == "nan":
            new["encoder/stage.weight"][1, 2] = torch.nan
        if kind == "infinite_prototype":
            prototype[0] = torch.inf
        if kind == "shape":
            new["generic_adapter/lora_A"] = new["generic_adapter/lora_A"][:, :4]
        if kind == "extra":
            new["specialised_adapter/w"] = momentum
        personal = {"personal/specialised_adapter/w": kept["personal/specialised_adapter/w"] + momentum}
        state = HospitalState({**personal, "optimiser/momentum": momentum, "disease_weights": weights})
        metrics = {"train_loss": float(new["encoder/stage.weight"].square().nan_to_num().mean())}
        if kind == "tells":
            metrics["patients"] = 3.0
        return LocalUpdate(new, prototype, state, self.client.train, metrics)

    def _alone(self, momentum: Tensor, weights: Tensor, kept: dict[str, Tensor]) -> LocalUpdate:
        personal = {"personal/specialised_adapter/w": kept["personal/specialised_adapter/w"] + momentum}
        state = HospitalState({**personal, "optimiser/momentum": momentum, "disease_weights": weights})
        return LocalUpdate({}, None, state, self.client.train, {"train_loss": 1.0})

    def validate(
        self, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        state = state or HospitalState({"optimiser/momentum": torch.ones(5), "disease_weights": torch.ones(2)})
        own = state.tensors["optimiser/momentum"].abs().sum()
        loss = float(sum(tensor.sum().abs() for tensor in shared.values()) + own)
        weights = state.tensors["disease_weights"] * 0.9
        return {"validation_loss": loss}, HospitalState({**state.tensors, "disease_weights": weights}), 2

    def finish(self, folder: pathlib.Path, shared: dict[str, Tensor], state: HospitalState | None) -> None:
        if failure(self.client.name, 0) == "unfinished":
            raise OSError("the disk is full")
        write_tensors(folder / f"{self.client.name}.safetensors", state.part("personal") if state else {})

    def test(self, run_folder: pathlib.Path) -> tuple[dict[str, float], int]:
        return {"test_loss": float(len(self.client.name))}, 4


class AloneTask(FakeTask):
    """Nothing is shared."""

    def initial_shared(self) -> dict[str, Tensor]:
        return {}


class PooledTask(FakeTask):
    """One client has everything."""

    names = ("pooled",)


def fake_configuration(
    rounds: int = 3,
    min_clients: int = 2,
    seed: int = 0,
    participation: float = 1.0,
    task: str = "fake",
    **method: ServerRule | Payload,
) -> RunConfiguration:
    profile = load_profile("smoke")
    federation = profile.federation.model_copy(
        update={"rounds": rounds, "min_clients": min_clients, "participation": participation}
    )
    return RunConfiguration(
        profile=profile.model_copy(update={"federation": federation}),
        method=load_method("fedmrg").model_copy(update=method),
        data="fake",
        prepared="nowhere",
        base_models="nowhere",
        seed=seed,
        threads=1,
        task=task,
    )


def everything(run_folder: pathlib.Path) -> dict[str, bytes]:
    """Each file of a run that has to come out the same, by its path."""
    timed = {"timing.csv", "manifest.json", ".lock"}
    return {
        str(path.relative_to(run_folder)): path.read_bytes()
        for path in sorted(run_folder.rglob("*"))
        if path.is_file() and path.name not in timed and path.suffix not in (".log", ".lock")
    }


def server_json(run_folder: pathlib.Path) -> dict:
    name = (run_folder / "checkpoint" / "current").read_text().split()[0]
    return json.loads((run_folder / "checkpoint" / name / "server.json").read_text())


def last_shared(run_folder: pathlib.Path) -> dict[str, Tensor]:
    """The shared tensors of a run folder's last checkpoint."""
    name = (run_folder / "checkpoint" / "current").read_text().split()[0]
    return safetensors.torch.load_file(run_folder / "checkpoint" / name / "shared.safetensors")
