"""What `fedmrg verify` lets pass and what it does not, measured on profile smoke.

Runs of the same method under other instruction sets and numbers of threads should be called reproduced, runs that lack
a part should not. Each run is trained once, its reports are kept (tests/verify_runs/), and tests/test_verify_power.py
holds them against the references. From the repository, after `make figures`:

    python benchmarks/verify_power.py runs --jobs 2      every run that is missing
    python benchmarks/verify_power.py table              the verdict of each
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy
import pandas

from fedmrg_core.evaluation.answers import answers_of, losses_of_round, stored_numbers
from fedmrg_core.evaluation.changes import Change, compare_answers
from fedmrg_core.evaluation.seed_variance import FILE, kind_of, read_seed_variance, variances_of
from fedmrg_core.evaluation.stored_runs import Run, load_run
from fedmrg_core.evaluation.verify import EQUAL, NOT_REPRODUCED, SEVERITY, judge
from fedmrg_core.files.code_state import source_state
from fedmrg_core.paths import REPOSITORY, base_models_folder, prepared_folder, reference_folder
from fedmrg_core.runs.arithmetic import VARIABLES, arithmetic_of

KEPT = REPOSITORY / "tests" / "verify_runs"
REFERENCE = reference_folder("smoke") / "phantom" / "fedmrg" / "seed-0"
VARIANCES = reference_folder("smoke").parent / FILE
WORK = REPOSITORY / "results" / "verify_power"
SHUFFLED_CLIENT = "centre-a"
ADAPTERS = ("generic", "specialised")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run: of the reference's method and seed under some arithmetic, or with a part taken out."""

    name: str
    method: str = "fedmrg"
    rounds: int | None = None
    shuffled: bool = False
    threads: int = 1
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether nothing but the arithmetic differs from the reference."""
        return self.method == "fedmrg" and self.rounds is None and not self.shuffled


def processors() -> list[Trial]:
    """Seventeen combinations of instruction sets, one thread; none is the reference's own."""
    kernels = itertools.product(
        [("ATEN_CPU_CAPABILITY", "avx2"), ("ATEN_CPU_CAPABILITY", "default"), None],
        [("ONEDNN_MAX_CPU_ISA", "AVX2"), ("ONEDNN_MAX_CPU_ISA", "SSE41"), None],
        [("MKL_CBWR", "COMPATIBLE"), None],
    )
    chosen = [tuple(filter(None, each)) for each in kernels]
    exact = (("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2"), ("MKL_CBWR", "COMPATIBLE"))
    return [Trial(f"processor-{number:02}", environment=each) for number, each in enumerate(chosen) if each != exact]


TRIALS = {
    trial.name: trial
    for trial in (
        Trial("without-prompts", method="fedmrg-without-prompts"),
        Trial("without-dual", method="fedmrg-without-dual"),
        Trial("half-rounds", rounds=5),
        Trial("shuffled-labels", shuffled=True),
        *processors(),
    )
}


def is_kept(trial: Trial) -> bool:
    """Whether the trial's reports are in the repository."""
    return (KEPT / f"{trial.name}.csv.gz").is_file()


def shuffled_labels(prepared: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Prepared data whose training reports at one client stand beside other images."""
    import datasets

    if not folder.exists():
        shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("studies"))
        studies = datasets.load_from_disk(str(prepared / "studies"))
        places = [
            number
            for number, (site, split) in enumerate(zip(studies["site"], studies["split"], strict=True))
            if (site, split) == (SHUFFLED_CLIENT, "train")
        ]
        source = numpy.arange(len(studies))
        source[places] = numpy.random.default_rng(0).permutation(places)
        for column in ("findings", "impression", "states"):
            values, feature = list(studies[column]), studies.features[column]
            moved = [values[number] for number in source]
            studies = studies.remove_columns(column).add_column(column, moved, feature=feature)
        studies.save_to_disk(str(folder / "studies"))
    return folder


def train(trial: Trial) -> None:
    """Train one run, write its reports and keep them."""
    from fedmrg_core.federation.run import run_federation
    from fedmrg_core.runs.experiments import RunSettings
    from fedmrg_core.runs.run_configuration import configure_run
    from fedmrg_core.seeds import torch_threads
    from fedmrg_core.tasks.reports.finished_run import FinishedRun
    from fedmrg_core.tasks.reports.trained_run import place_reports, test_sets

    started, folder = time.perf_counter(), WORK / trial.name
    profile, method = RunSettings(profile="smoke", method=trial.method).load()
    if trial.rounds is not None:
        profile = profile.model_copy(
            update={"federation": profile.federation.model_copy(update={"rounds": trial.rounds})}
        )
    prepared = prepared_folder(REPOSITORY, "smoke", "phantom")
    if trial.shuffled:
        prepared = shuffled_labels(prepared, WORK / "prepared-shuffled")
    folder.mkdir(parents=True, exist_ok=True)
    configuration = configure_run(
        folder, profile=profile, method=method, data="phantom", prepared=prepared,
        base_models=base_models_folder(REPOSITORY, "smoke", "phantom"), threads=trial.threads,
    )  # fmt: skip
    run_federation(folder, configuration, progress=False)
    run = FinishedRun(folder)
    with torch_threads(trial.threads):
        rows = [
            place_reports(folder, run, place, adapter)
            for place in test_sets(run)
            for adapter in run.model.answers
            if adapter.removesuffix("_adapter") in (ADAPTERS if place.role == "home" else ADAPTERS[:1])
        ]
    reports = pandas.concat(rows, ignore_index=True)[["study_id", "adapter", "generated"]]
    KEPT.mkdir(exist_ok=True)
    text = reports.sort_values(["adapter", "study_id"]).to_csv(index=False, lineterminator="\n")
    selected = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["selected_round"]
    making = {
        "method": trial.method,
        "rounds": profile.federation.rounds,
        "shuffled_client": SHUFFLED_CLIENT if trial.shuffled else None,
        "threads": trial.threads,
        "losses": {"|".join(key): value for key, value in losses_of_round(folder, selected)["value"].items()},
        "arithmetic": arithmetic_of(),
        "seconds": round(time.perf_counter() - started),
        **source_state(),
    }
    (KEPT / f"{trial.name}.json").write_text(json.dumps(making, indent=1) + "\n", encoding="utf-8")
    (KEPT / f"{trial.name}.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    shutil.rmtree(folder)


def kept_run(name: str, reference: Run) -> Run:
    """The reference with the reports of a kept run in the place of its own."""
    from fedmrg_core.data.labeller import label_report
    from fedmrg_core.tasks.reports.inference import digits

    reports = pandas.read_csv(KEPT / f"{name}.csv.gz", dtype=str, keep_default_na=False)
    if set(reports["adapter"]) == {"generic"}:  # a run with one adapter answers with it wherever it is asked
        reports = pandas.concat([reports, reports.assign(adapter="specialised")])
    rows = reference.predictions.drop(columns=["generated", "states_generated"])
    rows = rows.merge(reports, on=["study_id", "adapter"], how="left", validate="one_to_one")
    rows["states_generated"] = [digits(label_report(text)) for text in rows["generated"]]
    run = dataclasses.replace(reference)
    run.__dict__["predictions"] = rows  # a cached property of a frozen class
    return run


def _compare_losses(name: str, reference: Run, known: pandas.DataFrame) -> dict[tuple[str, ...], Change]:
    """The losses of the chosen round; a run with other parts of the loss is held by its reports alone."""
    making = json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))
    if making["method"] != reference.method:
        return {}
    stored, changes = stored_numbers(reference)["value"], {}
    for key, value in making.get("losses", {}).items():
        scope, adapter, metric = key.split("|")
        variance = known.loc[kind_of(scope), adapter, metric]
        change = Change(stored[scope, adapter, metric], value, 2 * variance["between_seeds"], variance["degrees"])
        changes[scope, adapter, metric] = change
    return changes


def verdict_table() -> pandas.DataFrame:
    """Each kept run's verdict: how many numbers were not reproduced, and which was furthest from chance."""
    reference, rows = load_run(REFERENCE), []
    answers, known = answers_of(reference), variances_of(read_seed_variance(VARIANCES), reference)
    for name in sorted(path.name.removesuffix(".csv.gz") for path in KEPT.glob("*.csv.gz")):
        others = answers_of(kept_run(name, reference))
        changes = compare_answers(answers, others, known, reference.measures.compared)
        changes |= _compare_losses(name, reference, known)
        judged = pandas.DataFrame(judge(changes))
        statuses = set(judged["status"])
        worst = judged.loc[(judged["difference"].abs() / judged["chance"]).idxmax()]
        rows.append(
            {
                "run": name,
                "verdict": next(status for status in SEVERITY if status in statuses),
                "numbers": len(judged),
                "equal": int((judged["status"] == EQUAL).sum()),
                "not_reproduced": int((judged["status"] == NOT_REPRODUCED).sum()),
                **worst[["scope", "adapter", "metric", "difference", "chance"]].to_dict(),
            }
        )
    return pandas.DataFrame(rows)


def start(trial: Trial) -> subprocess.Popen[bytes]:
    """One run in a process of its own, whose libraries read their settings when it starts."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    environment |= {"OMP_NUM_THREADS": str(trial.threads), "PYTHONHASHSEED": "0", **dict(trial.environment)}
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / f"{trial.name}.log").open("wb") as log:
        command = [sys.executable, __file__, "train", trial.name]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def run_missing(jobs: int) -> None:
    """Every run that is not kept yet, so many at a time."""
    waiting = [trial for trial in TRIALS.values() if not is_kept(trial)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            trial = waiting.pop(0)
            running[trial.name] = start(trial)
        time.sleep(1)
        for name, process in list(running.items()):
            if process.poll() is not None:
                running.pop(name)
                print(f"{name}: {'kept' if process.returncode == 0 else f'failed, see {WORK / name}.log'}", flush=True)


def main() -> None:
    """Run what is missing, one run, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("runs").add_argument("--jobs", type=int, default=1)
    commands.add_parser("train").add_argument("name", choices=TRIALS)
    commands.add_parser("table")
    given = parser.parse_args()
    if given.command == "runs":
        run_missing(given.jobs)
    elif given.command == "train":
        train(TRIALS[given.name])
    else:
        print(verdict_table().to_string(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main()
