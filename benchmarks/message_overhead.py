"""What a round costs around a large model: messages, digests, ledger, states on disk, without any training.

    python benchmarks/message_overhead.py [--parameters 60e6] [--clients 2] [--rounds 3]

Prints seconds a client and round after the first round, for shared parameters of that number (60 million: FedMRG's at
the size of the paper), each with two moments of the optimiser that stay in the hospital. The floor is what no
implementation could leave out, measured in the same process: the model is copied on to the wire and off it, down and
up, hashed when it comes and when the next round names it, and written to disk with its moments.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pathlib
import tempfile
import time
from collections.abc import Mapping

import numpy
import pandas
import torch
from torch import Tensor

from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.run import run_federation
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import load_method
from fedmrg_core.runs.run_configuration import RunConfiguration, configure_run
from fedmrg_core.seeds import torch_stream
from fedmrg_core.training.client_state import HospitalState, LocalUpdate

ROW = 1024  # parameters are matrices of ROW by ROW
MOMENTS = 2  # of Adam
COPIES, DIGESTS = 4, 2  # of the model, a client and round


class LargeExperiment:
    """Clients whose update is a copy of the model; how large and how many is in the environment."""

    def __init__(self, run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
        self.configuration = configuration
        self.clients = tuple(f"client-{number:02d}" for number in range(int(os.environ["LARGE_CLIENTS"])))

    def fingerprints(self) -> dict[str, str]:
        """Nothing to identify."""
        return {"data": "none"}

    def parameter_counts(self) -> dict[str, int]:
        """Only what is shared."""
        return {"shared": sum(tensor.numel() for tensor in self.initial_shared().values())}

    def initial_shared(self) -> dict[str, Tensor]:
        """Random matrices."""
        generator = torch_stream(0, "initialisation")
        count = max(1, round(int(os.environ["LARGE_PARAMETERS"]) / ROW**2))
        return {f"encoder/{n:04d}.weight": torch.randn(ROW, ROW, generator=generator) for n in range(count)}

    def leaving(self) -> Declaration:
        """The model, a prototype and one loss each."""
        return Declaration(("encoder",), True, ("train_loss",), ("validation_loss",))

    def train(
        self, client: str, round_number: int, shared: dict[str, Tensor], state: HospitalState | None, *_: object
    ) -> LocalUpdate:
        """No training: the model goes back as it came."""
        kept = state.tensors if state else {f"optimiser/{n}/{k}": t.clone() for k, t in shared.items() for n in "mv"}
        return LocalUpdate(shared, None, HospitalState(kept), 1, {"train_loss": 0.0})

    def validate(
        self, client: str, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """No validation."""
        return {"validation_loss": 0.0}, state or HospitalState({}), 1

    def save_model(
        self, folder: pathlib.Path, shared: dict[str, Tensor], personal: Mapping[str, dict[str, Tensor]]
    ) -> None:
        """Nothing is kept."""


def seconds_a_client(folder: pathlib.Path, clients: int, rounds: int) -> float:
    """Wall seconds of a round after the first, for one client."""
    profile = load_profile("smoke")
    federation = profile.federation.model_copy(update={"rounds": rounds, "min_clients": clients})
    configuration = configure_run(
        folder,
        profile=profile.model_copy(update={"federation": federation}),
        method=load_method("fedmrg"),
        data="none",
        prepared=folder,
        base_models=folder,
        seed=0,
        threads=torch.get_num_threads(),
        task="large-messages",
    )
    run_federation(folder, configuration, progress=False)
    return float(pandas.read_csv(folder / "timing.csv").wall_seconds[1:].mean()) / clients


def floor(folder: pathlib.Path, parameters: int) -> float:
    """Seconds of what cannot be left out; the second of two times, when memory is there."""
    model = numpy.random.default_rng(0).standard_normal(parameters, dtype=numpy.float32)
    target = numpy.empty_like(model)
    for _ in range(2):
        started = time.perf_counter()
        for _ in range(COPIES):
            numpy.copyto(target, model)
        for _ in range(DIGESTS):
            hashlib.sha256(model.data).hexdigest()
        with (folder / "floor").open("wb") as file:
            for _ in range(1 + MOMENTS):
                file.write(model.data)
            file.flush()
            os.fsync(file.fileno())
        seconds = time.perf_counter() - started
    return seconds


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=60e6)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if min(arguments.parameters, arguments.clients) < 1 or arguments.rounds < 2:
        parser.error("at least one parameter, one client and two rounds are needed.")
    os.environ |= {"LARGE_PARAMETERS": str(int(arguments.parameters)), "LARGE_CLIENTS": str(arguments.clients)}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        measured = seconds_a_client(folder / "run", arguments.clients, arguments.rounds)
        least = floor(folder, int(arguments.parameters))
    print(f"{arguments.parameters:.3g} shared parameters, {arguments.clients} clients")
    print(f"seconds a client and round: {measured:.2f}")
    print(f"floor (copies, digests, disk): {least:.2f}, ratio {measured / least:.2f}")


if __name__ == "__main__":
    main()
