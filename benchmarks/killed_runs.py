"""Kill a run again and again at random moments: does it always end with the same bytes?

    python benchmarks/killed_runs.py [--runs 20] [--kills 3] [--rounds 3] [--workers 2] [--seed 0]

Takes the prepared data and base models of profile smoke, as `make figures` leaves them. One run of FedMRG is left in
peace; of the others each is killed (SIGKILL, with its workers) one to `--kills` times, each after a random part of the
time that the first one took, and then left to end. Every file has to be equal but those that hold times. Exits with 1
if one is not.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from fedmrg_core.paths import REPOSITORY
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.run_configuration import configure_run, write_configuration

PROGRAM = (
    "import pathlib, sys; from fedmrg_core.federation.run import continue_federation; "
    "continue_federation(pathlib.Path(sys.argv[1]), progress=False, workers=int(sys.argv[2]))"
)
TIMED = ("timing.csv", "manifest.json", ".lock")


def make_run(folder: pathlib.Path, rounds: int) -> pathlib.Path:
    """A run folder with nothing but its configuration."""
    settings = RunSettings(profile="smoke", method="fedmrg")
    profile, method = settings.load()
    federation = profile.federation.model_copy(update={"rounds": rounds})
    inputs = {name: REPOSITORY / name / "smoke" / "phantom" for name in ("prepared", "base_models")}
    for path in inputs.values():
        if not path.is_dir():
            raise SystemExit(f"{path.relative_to(REPOSITORY)} is missing; run make figures first.")
    folder.mkdir(parents=True)
    configuration = configure_run(
        folder, profile=profile.model_copy(update={"federation": federation}), method=method, data="phantom",
        seed=0, threads=1, **inputs,
    )  # fmt: skip
    write_configuration(folder, configuration)
    return folder


def start(folder: pathlib.Path, workers: int) -> subprocess.Popen:
    """Go on with a run in a process group of its own."""
    with (folder.parent / f"{folder.name}.log").open("a") as log:
        command = [sys.executable, "-c", PROGRAM, str(folder), str(workers)]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def end(folder: pathlib.Path, workers: int) -> None:
    """Go on with a run to its end."""
    if start(folder, workers).wait():
        raise SystemExit(f"{folder.name} failed:\n{(folder.parent / f'{folder.name}.log').read_text()[-2000:]}")


def kill_somewhere(folder: pathlib.Path, workers: int, seconds: float) -> bool:
    """Go on with a run and kill it after some seconds; False if it had ended before."""
    process = start(folder, workers)
    try:
        process.wait(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def killed_run(folder: pathlib.Path, rounds: int, workers: int, moments: Sequence[float]) -> int:
    """Begin a run and kill it at these moments, seconds after each start.

    One that ends before the first of them is begun again and killed after half of that time.

    Returns:
        How many times it was killed; at least once.
    """
    first, *others = moments
    while not kill_somewhere(make_run(folder, rounds), workers, first):
        shutil.rmtree(folder)
        first /= 2
    return 1 + sum(kill_somewhere(folder, workers, moment) for moment in others)


def everything(folder: pathlib.Path) -> dict[str, bytes]:
    """The bytes of every file that has to be the same, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TIMED and path.suffix not in (".log", ".lock")
    }


def main() -> None:
    """Kill, compare, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=3, help="of a run, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    moments, equal = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory() as name:
        whole = make_run(pathlib.Path(name) / "whole", arguments.rounds)
        began = time.monotonic()
        end(whole, arguments.workers)
        seconds, expected = time.monotonic() - began, everything(whole)
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} files to be equal", flush=True)
        for number in range(1, arguments.runs + 1):
            folder = pathlib.Path(name) / f"run-{number}"
            after = [moments.uniform(0, seconds) for _ in range(moments.randint(1, arguments.kills))]
            kills = killed_run(folder, arguments.rounds, arguments.workers, after)
            end(folder, arguments.workers)
            found = everything(folder)
            different = [key for key in sorted(expected.keys() | found.keys()) if expected.get(key) != found.get(key)]
            equal += not different
            verdict = f"differs in {', '.join(different[:3])}" if different else "equal"
            print(f"run {number}: killed {kills} times; {verdict}", flush=True)
    print(f"{equal} of {arguments.runs} runs ended with the same bytes")
    raise SystemExit(equal != arguments.runs)


if __name__ == "__main__":
    main()
