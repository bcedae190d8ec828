"""What the federation costs beside the local updates, as ratios in one run.

    python benchmarks/federation_overhead.py [--profile smoke] [--studies 200] [--rounds 3] [--threads 2] [--simulation]

Prints, for the model of the profile with fresh weights and random studies (what they show does not matter here):
the part of a round's wall time in engine (a) that is not local training or validation (limit 5 %), the peak memory with
ten clients against that with one (limit 1.15), and on request the wall time of engine (b) against (a). Each run has a
process of its own.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import datasets
import numpy
import pandas
import PIL.Image

from fedmrg_core.data.client_folders import write_client_folder
from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.study import STUDY_FEATURES
from fedmrg_core.federation.roster import Roster, read_client
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.methods import load_method
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.runs.run_folder import peak_memory
from fedmrg_core.tasks.reports.base_models import new_backbone, save_base_models, train_tokenizer
from fedmrg_core.tasks.reports.task import ReportTask
from fedmrg_core.training.small_llm import new_llm

SENTENCES = [
    "The heart is mildly enlarged.",
    "There is a small left pleural effusion with adjacent atelectasis.",
    "No pneumothorax is seen.",
    "The lungs are clear without focal consolidation.",
    "A central venous line ends in the superior vena cava.",
    "Degenerative changes of the thoracic spine are noted.",
]
OVERHEAD_LIMIT, MEMORY_LIMIT = 0.05, 1.15


class RandomTask(ReportTask):
    """Clients whose folders are made here; a single one is possible."""

    @classmethod
    def deal(cls, run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
        """One client a folder."""
        folders = sorted((run_folder / configuration.prepared).iterdir())
        return Roster(tuple(read_client(folder, run_folder) for folder in folders), {"data": "random"})


def make_studies(folder: pathlib.Path, clients: int, count: int, size: int) -> None:
    """Store `count` training studies for each client, a fifth as many for validation."""
    generator = numpy.random.default_rng(0)
    about = {"data": "random", "data_version": "1", "image_size": size}
    for client in (f"client-{number:02d}" for number in range(clients)):
        splits = {}
        for split, number in {"train": count, "validation": max(count // 5, 2), "test": 2}.items():
            splits[split] = random_studies(generator, client, split, number, size)
        write_client_folder(folder / client, client, splits, about, "random")


def random_studies(
    generator: numpy.random.Generator, client: str, split: str, count: int, size: int
) -> datasets.Dataset:
    """Studies of noise and sentences in any order."""
    rows = []
    for number in range(count):
        buffer = io.BytesIO()
        pixels = generator.integers(0, 256, size=(size, size), dtype=numpy.uint8)
        PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
        rows.append(
            {
                "study_id": f"{client}-{split}-{number}",
                "patient_id": f"{client}-{number}",
                "site": client,
                "split": split,
                "view": "PA",
                "image": {"bytes": buffer.getvalue(), "path": None},
                "findings": " ".join(generator.permutation(SENTENCES)),
                "impression": "",
                "states": generator.integers(0, 4, len(FINDINGS)).tolist(),
            }
        )
    return datasets.Dataset.from_list(rows, features=STUDY_FEATURES)


def measure(folder: pathlib.Path, profile_name: str, rounds: int, engine: str, threads: int) -> dict[str, float]:
    """One run; its overhead after the first round (which builds and loads everything), wall time and peak memory."""
    profile = load_profile(profile_name)
    federation = profile.federation.model_copy(update={"rounds": rounds, "min_clients": 1})
    configuration = configure_run(
        folder / "run",
        profile=profile.model_copy(update={"federation": federation}),
        method=load_method("fedmrg"),
        data="random",
        prepared=folder / "prepared",
        base_models=folder / "base_models",
        seed=0,
        threads=threads,
        task="random-numbers",
    )
    run_federation(folder / "run", configuration, engine=engine, progress=False)
    timing = pandas.read_csv(folder / "run" / "timing.csv").iloc[1:]
    wall, local = timing.wall_seconds.sum(), timing.local_seconds.sum()
    return {
        "overhead": (wall - local) / wall,
        "wall_seconds_a_round": wall / len(timing),
        "peak_memory_mib": peak_memory()["process"] / 2**20,
    }


def make_base_models(folder: pathlib.Path, profile_name: str) -> None:
    """Models of the profile's sizes with fresh weights."""
    sizes = load_profile(profile_name).base_models
    tokenizer = train_tokenizer(SENTENCES * 50, sizes.vocabulary)
    save_base_models(folder, new_llm(sizes, tokenizer, 0), tokenizer, new_backbone(sizes, 0), {})


def in_own_process(arguments: argparse.Namespace, clients: int, engine: str) -> dict[str, float]:
    """:func:`measure` in a fresh process, so that one run's memory is not counted in the next."""
    here = str(pathlib.Path(__file__).resolve().parent)
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_base_models(folder / "base_models", arguments.profile)
        make_studies(folder / "prepared", clients, arguments.studies, load_profile(arguments.profile).image_size)
        code = (
            "import json, pathlib, sys; from federation_overhead import measure;"
            "folder, profile, rounds, engine, threads = sys.argv[1:];"
            "print(json.dumps(measure(pathlib.Path(folder), profile, int(rounds), engine, int(threads))))"
        )
        values = [str(folder), arguments.profile, str(arguments.rounds), engine, str(arguments.threads)]
        environment = os.environ | {"PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", code, *values], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{engine} with {clients} clients failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--studies", type=int, default=200, help="training studies a client")
    parser.add_argument("--rounds", type=int, default=3, help="the first is not counted")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of a local update")
    parser.add_argument("--simulation", action="store_true", help="also run engine (b)")
    arguments = parser.parse_args()
    runs = {}
    for clients in (1, 5, 10) if arguments.simulation else (1, 10):
        run = runs[clients] = in_own_process(arguments, clients, "in-process")
        print(
            f"engine (a), {clients:2d} clients: overhead {run['overhead']:6.2%} of a round of "
            f"{run['wall_seconds_a_round']:.2f} s, peak memory {run['peak_memory_mib']:.0f} MiB",
            flush=True,
        )
    one, ten = runs[1], runs[10]
    print(f"overhead {ten['overhead']:.2%}, limit {OVERHEAD_LIMIT:.0%}")
    ratio = ten["peak_memory_mib"] / one["peak_memory_mib"]
    print(f"peak memory 10 clients / 1 client: {ratio:.3f}, limit {MEMORY_LIMIT}")
    if arguments.simulation:
        simulated = in_own_process(arguments, 5, "simulation")
        ratio_of_time = simulated["wall_seconds_a_round"] / runs[5]["wall_seconds_a_round"]
        seconds = simulated["wall_seconds_a_round"]
        print(f"engine (b), 5 clients: {seconds:.2f} s a round, {ratio_of_time:.2f} times (a)")
    if ten["overhead"] > OVERHEAD_LIMIT or ratio > MEMORY_LIMIT:
        raise SystemExit("a limit is exceeded")


if __name__ == "__main__":
    main()
