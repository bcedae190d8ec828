"""Hospitals side by side in worker processes against one after another with all cores, measured in turn.

    python benchmarks/side_by_side.py [--profile smoke] [--rounds 3] [--turns 2] [--workspace FOLDER]

Needs the prepared studies and base models of the profile (`make figures` leaves them). Each measurement has a process
of its own. Prints the wall time of a round (the first is not counted), of the evaluation, and the largest memory of all
processes together, in which pages that several share count once; then ratios to one worker with all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict

import pandas
import psutil

from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.paths import workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.reports.trained_run import evaluate_run


def shared_memory(process: psutil.Process) -> int:
    """Proportional set size of a process and its children in bytes."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


class PeakMemory(threading.Thread):
    """Looks at the memory of this process and its children every half second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        """Until the process ends."""
        while True:
            self.peak = max(self.peak, shared_memory(psutil.Process()))
            time.sleep(0.5)


def measure(workspace: str, profile: str, rounds: int, workers: int, threads: int) -> dict[str, float]:
    """One run and its evaluation."""
    memory = PeakMemory()
    memory.start()
    settings = RunSettings(profile=profile)
    root = workspace_folder(workspace)
    numbers, method = settings.load()
    federation = numbers.federation.model_copy(update={"rounds": rounds})
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "run"
        configuration = configure_run(
            folder,
            profile=numbers.model_copy(update={"federation": federation}),
            method=method,
            data="phantom",
            prepared=settings.prepared(root),
            base_models=settings.base_models(root),
            threads=threads,
        )
        run_federation(folder, configuration, progress=False, workers=workers)
        timing = pandas.read_csv(folder / "timing.csv").iloc[1:]
        started = time.perf_counter()
        evaluate_run(folder, workers)
        seconds = time.perf_counter() - started
    return {
        "round_seconds": float(timing.wall_seconds.mean()),
        "evaluation_seconds": seconds,
        "peak_memory_mib": memory.peak / 2**20,
    }


def in_own_process(workspace: str, profile: str, rounds: int, workers: int, threads: int) -> dict[str, float]:
    """:func:`measure` in a fresh process."""
    here = str(pathlib.Path(__file__).resolve().parent)
    code = (
        "import json, sys; from side_by_side import measure; w, p, r, n, t = sys.argv[1:];"
        "print(json.dumps(measure(w, p, int(r), int(n), int(t))))"
    )
    values = [workspace, profile, str(rounds), str(workers), str(threads)]
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", code, *values], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{workers} workers with {threads} threads failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--rounds", type=int, default=3, help="the first is not counted")
    parser.add_argument("--turns", type=int, default=2, help="how often each is measured, one after another")
    parser.add_argument("--workspace", default="", help="holds prepared/ and base_models/; the repository if empty")
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    kinds = {"one, all cores": (1, cores), "one, one thread": (1, 1), f"{cores} workers": (cores, 1)}
    rows = defaultdict(list)
    for _ in range(arguments.turns):
        for name, (workers, threads) in kinds.items():
            rows[name].append(
                in_own_process(arguments.workspace, arguments.profile, arguments.rounds, workers, threads)
            )
            print(name, {key: round(value, 2) for key, value in rows[name][-1].items()}, flush=True)
    best = pandas.DataFrame({name: pandas.DataFrame(found).min() for name, found in rows.items()}).T
    print(best.round(2).to_string())
    print((best / best.loc["one, all cores"]).round(3).add_suffix(" ratio").to_string())


if __name__ == "__main__":
    main()
