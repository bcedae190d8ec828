"""What a round costs with 10, 100 and 1,000 hospitals in one process, with prototypes and without.

    python benchmarks/many_clients.py [--clients 10 100 1000] [--rounds 3] [--numbers 4096] [--open-files 256]

Hospitals whose update is the model plus noise, so that what is measured is the federation alone. Prints seconds a
round, processor seconds (most of the rest is the disk, which each file waits for), peak memory, and the bytes that
prototypes take on their way down: every hospital is sent everybody's, so these alone grow with the square of the
number of hospitals. Each run has a process of its own, in which no more files may be open than `--open-files`. Timing
decides nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection

import pandas
import safetensors.torch
import torch
from torch import Tensor

from fedmrg_core.federation.declaration import Declaration
from fedmrg_core.federation.roster import Client, Roster
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import load_method
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.runs.run_folder import peak_memory
from fedmrg_core.seeds import torch_stream
from fedmrg_core.training.client_state import HospitalState, LocalUpdate

PROTOTYPE = 160  # numbers, as of profile standard


class NoiseTask:
    """Both halves of a task without a folder; how many hospitals and numbers is in the environment."""

    clients, numbers = int(os.environ.get("MANY_CLIENTS", 10)), int(os.environ.get("MANY_NUMBERS", 4096))
    prototypes = os.environ.get("MANY_PROTOTYPES", "1") == "1"

    def __init__(self, run_folder: pathlib.Path, configuration: RunConfiguration) -> None:
        self.configuration = configuration

    @classmethod
    def deal(cls, run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
        """Nothing is dealt."""
        names = (f"client-{number:04d}" for number in range(cls.clients))
        return Roster(tuple(Client(name, 10, name) for name in names), {"data": "noise"})

    def hospital(self, client: Client, folders: Collection[pathlib.Path]) -> NoiseHospital:
        """One hospital."""
        return NoiseHospital(self, client)

    def fingerprints(self) -> dict[str, str]:
        """Nothing."""
        return {}

    def parameter_counts(self) -> dict[str, int]:
        """All of it is shared."""
        return {"shared": self.numbers}

    def initial_shared(self) -> dict[str, Tensor]:
        """Zeros."""
        return {"encoder/w": torch.zeros(self.numbers)}

    def shared_buffers(self) -> set[str]:
        """None."""
        return set()

    def leaving(self) -> Declaration:
        """The numbers, a prototype where asked for, and the losses."""
        return Declaration(("encoder",), PROTOTYPE * self.prototypes, ("train_loss",), ("validation_loss",))

    def save_shared(self, folder: pathlib.Path, shared: dict[str, Tensor]) -> None:
        """One file."""
        safetensors.torch.save_file(shared, folder / "shared.safetensors")


class NoiseHospital:
    """Its update is noise."""

    def __init__(self, task: NoiseTask, client: Client) -> None:
        self.task, self.client = task, client

    def train(
        self,
        round_number: int,
        shared: dict[str, Tensor],
        state: HospitalState | None,
        prototypes: dict[str, Tensor],
        progress: bool,
    ) -> LocalUpdate:
        """The shared numbers and noise."""
        generator = torch_stream(0, "noise", self.client.name, round_number)
        new = {key: tensor + torch.randn(tensor.shape, generator=generator) for key, tensor in shared.items()}
        prototype = torch.randn(PROTOTYPE, generator=generator) if self.task.prototypes else None
        return LocalUpdate(new, prototype, HospitalState({}), self.client.train, {"train_loss": 1.0})

    def validate(
        self, shared: dict[str, Tensor], state: HospitalState | None
    ) -> tuple[dict[str, float], HospitalState, int]:
        """A loss that says nothing."""
        return {"validation_loss": 1.0}, state or HospitalState({}), 1

    def finish(self, folder: pathlib.Path, shared: dict[str, Tensor], state: HospitalState | None) -> None:
        """Nothing is personal."""

    def test(self, run_folder: pathlib.Path) -> tuple[dict[str, float], int]:
        """Not asked for."""
        return {}, 1


def measure(folder: pathlib.Path, rounds: int) -> dict[str, float]:
    """One run; the first round, which imports and builds, is not counted."""
    profile = load_profile("smoke")
    federation = profile.federation.model_copy(update={"rounds": rounds, "min_clients": 1})
    configuration = configure_run(
        folder,
        profile=profile.model_copy(update={"federation": federation}),
        method=load_method("fedmrg"),
        data="noise",
        prepared=folder,
        base_models=folder,
        seed=0,
        threads=1,
        task="noise",
    )
    run_federation(folder, configuration, progress=False, stop_after_round=1)
    began = time.process_time()
    run_federation(folder, configuration, progress=False)
    processor = (time.process_time() - began) / (rounds - 1)
    table = pandas.read_csv(folder / "rounds.csv")
    ledger = pandas.read_csv(folder / "ledger.csv")
    down = ledger[(ledger.module == "prototypes") & (ledger.direction == "down") & (ledger["round"] == rounds)]
    return {
        "seconds": float(pandas.read_csv(folder / "timing.csv").wall_seconds.iloc[1:].mean()),
        "processor": processor,
        "memory": peak_memory()["process"] / 2**20,
        "left_out": int((table.status != "ok").sum()),
        "prototype_mib": float(down.bytes.sum() / 2**20),
    }


def in_own_process(clients: int, prototypes: bool, arguments: argparse.Namespace) -> dict[str, float]:
    """:func:`measure` in a process that may open few files."""
    here = str(pathlib.Path(__file__).resolve().parent)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
        "MANY_CLIENTS": str(clients),
        "MANY_NUMBERS": str(arguments.numbers),
        "MANY_PROTOTYPES": str(int(prototypes)),
    }
    code = (
        "import json, pathlib, sys; from many_clients import measure;"
        "print(json.dumps(measure(pathlib.Path(sys.argv[1]), int(sys.argv[2]))))"
    )

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (arguments.open_files, arguments.open_files))

    with tempfile.TemporaryDirectory() as name:
        done = subprocess.run(
            [sys.executable, "-c", code, name, str(arguments.rounds)],
            env=environment,
            capture_output=True,
            text=True,
            preexec_fn=few_files,
        )
    if done.returncode:
        raise SystemExit(f"{clients} clients failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3, help="the first is not counted")
    parser.add_argument("--numbers", type=int, default=4096, help="shared numbers")
    parser.add_argument("--open-files", type=int, default=256, help="at most, as `ulimit -n`")
    arguments = parser.parse_args()
    print(
        "| clients | prototypes | s a round | CPU s a round | CPU ms a client and round | peak MiB | left out | "
        "MiB of prototypes down |"
    )
    print("|--:|---|--:|--:|--:|--:|--:|--:|")
    for prototypes in (False, True):
        for clients in arguments.clients:
            found = in_own_process(clients, prototypes, arguments)
            each = 1000 * found["processor"] / clients
            print(
                f"| {clients} | {'on' if prototypes else 'off'} | {found['seconds']:.2f} | "
                f"{found['processor']:.2f} | {each:.1f} | "
                f"{found['memory']:.0f} | {found['left_out']} | {found['prototype_mib']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
