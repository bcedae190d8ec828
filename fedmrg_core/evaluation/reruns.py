"""`fedmrg verify`: run the reference runs again through the workflow and compare number by number."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas
import torch

from fedmrg_core.data.sources import corpus_name, data_source
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.reference import damage_of, reference_runs
from fedmrg_core.evaluation.verify import DAMAGED, EQUAL, NOT_REPRODUCED, REPRODUCED, exit_code, verdicts, verify
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.paths import REPOSITORY, reference_folder
from fedmrg_core.runs.arithmetic import EXACT_THREADS, exact_environment
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.measures import measures_of
from fedmrg_core.runs.task_notebooks import notebooks_of

SHOWN = 8  # numbers of a run that are printed where more were not reproduced
SMALL = 100.0  # above it a number is one of bytes, without decimals


def verify_references(
    profile: str, only: Sequence[str], rerun: bool, data_root: str, cores: int, exact: bool = False
) -> pandas.DataFrame:
    """Run what is asked, and hold each number against its reference.

    Args:
        profile: whose reference runs.
        only: methods, data sets or run names; none: every reference run of the profile.
        rerun: run what results/ lacks, through Snakemake; otherwise only compare what is there.
        data_root: the folder of a real data set.
        cores: of Snakemake.
        exact: run with the arithmetic and threads of `make figures REPRODUCIBLE=exact`.

    Returns:
        See :func:`fedmrg_core.evaluation.verify.verify`; a row for each reference that is damaged, which is not run.

    Raises:
        InputError: there is no reference run of the profile, or none that some name in `only` means, or one to run
            again is of a task that the workflow does not make.
    """
    root = reference_folder(profile).parent
    runs = reference_runs(root, profile)
    if not runs:
        raise InputError(f"verify: profile {profile!r} has no reference run; there are none in {root / profile}.")
    chosen = [run for run in runs if not only or _names(run) & set(only)]
    damage = {run.name: damage_of(root / run.name) for run in chosen}
    for name in only:
        if not any(name in _names(run) for run in runs):
            known = ", ".join(dict.fromkeys(name for run in runs for name in (run.method, run.data)))
            raise InputError(
                f"verify: no reference run of profile {profile!r} is called {name!r}; expected one of {known}, or the "
                "name of a run."
            )
    chosen = [run for run in chosen if not damage[run.name]]
    if rerun:
        targets = {run: _target(run) for run in chosen}  # of all before the first is run
        _run_all(targets, data_root, cores, exact)
    rows = verify(root, REPOSITORY / "results", [run.name for run in chosen])
    found = [{"run": name, "status": DAMAGED, "note": sentence} for name, sentence in damage.items() if sentence]
    return pandas.concat([pandas.DataFrame(found, columns=rows.columns), rows], ignore_index=True) if found else rows


def _target(run: RunSettings) -> str:
    """The executed notebook that leaves a run's measures.

    Raises:
        InputError: the workflow does not make runs of its task.
    """
    task = data_source(run.data).task
    try:
        return f"results/{run.name}/notebooks/{notebooks_of(task).runs[-1]}.ipynb"
    except InputError as error:
        raise InputError(
            f"verify: {run.name} is a run of task {task!r}, which the workflow does not make; make it again below "
            "results/ and call fedmrg verify --no-rerun."
        ) from error


def _names(run: RunSettings) -> set[str]:
    """What `only` may call a run."""
    return {run.method, run.data, run.name}


def _run_all(targets: Mapping[RunSettings, str], data_root: str, cores: int, exact: bool) -> None:
    """All runs; those of different data side by side, as far as there are cores, and one at a time on a GPU.

    Runs of the same data start from the same prepared studies and base models, so they stay in turn.
    """
    in_turn: dict[str, list[RunSettings]] = {}
    for run in targets:
        in_turn.setdefault(corpus_name(run.data), []).append(run)
    at_once = 1 if torch.cuda.is_available() else max(1, min(cores, len(in_turn)))

    def run_in_turn(runs: list[RunSettings]) -> None:
        for run in runs:
            _run_again(run, targets[run], data_root, cores // at_once, exact)

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run_in_turn, in_turn.values()))


def _run_again(run: RunSettings, target: str, data_root: str, cores: int, exact: bool) -> None:
    """One run through the workflow, as `make figures` makes it; one that fails is told and counts as not run."""
    settings = {**run.model_dump(), "data_root": data_root, **({"threads": EXACT_THREADS} if exact else {})}
    given = [f"{key}={value}" for key, value in settings.items() if value != ""]
    command = [sys.executable, "-m", "snakemake", target, "--cores", str(cores), "--nolock", "--rerun-incomplete"]
    command += ["--rerun-triggers", "mtime", "params", "input", "--config", *given]
    print(shlex.join(command), flush=True)
    # The rules call `fedmrg`, which is beside this Python, on the path or not.
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path, **(exact_environment() if exact else {})}
    if subprocess.run(command, cwd=REPOSITORY, env=environment).returncode:
        print(f"{run.name}: the run failed; see the log above.", file=sys.stderr, flush=True)


def print_verdict(rows: pandas.DataFrame, profile: str) -> int:
    """Print a line for each run, its numbers that were not reproduced, and a line for all; keep the whole table.

    Args:
        rows: of :func:`fedmrg_core.evaluation.verify.verify`.
        profile: whose references; names the table, ``report/verify-<profile>.csv``.

    Returns:
        The exit code.
    """
    table = REPOSITORY / "report" / f"verify-{profile}.csv"
    write_text(table, table_text(rows))
    found = verdicts(rows)
    for name, verdict in found.items():
        print(f"{name}: {_sentence(rows[rows['run'] == name], verdict)}")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in collections.Counter(found.values()).items())
    equal = int((rows["status"] == EQUAL).sum())
    print(f"{len(found)} runs: {counts}; {equal} of {len(rows)} numbers equal to the digit ({_shown(table)})")
    return exit_code(rows)


def _sentence(rows: pandas.DataFrame, verdict: str) -> str:
    """The verdict of one run, and what it rests on."""
    notes = "; ".join(note for note in dict.fromkeys(rows["note"]) if note)
    said = f"{verdict} ({notes})" if notes else verdict
    compared = rows[rows["difference"].notna()]
    if compared.empty:
        return said
    equal = int((compared["status"] == EQUAL).sum())
    said += f"; {equal} of {len(compared)} numbers equal to the digit"
    failed = compared[compared["status"] == NOT_REPRODUCED].sort_values("p_value")
    if len(failed):
        lines = [_number(row) for row in failed.head(SHOWN).itertuples()]
        lines += [f"and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
        return "\n  ".join([f"{said}, {len(failed)} not reproduced", *lines])
    by_chance = compared[(compared["status"] == REPRODUCED) & (compared["chance"] > 0)]
    if len(by_chance):
        nearest = by_chance.loc[(by_chance["difference"].abs() / by_chance["chance"]).idxmax()]
        said += f"; the nearest to a real change: {_number(nearest)}"
    return said


def _number(row: Any) -> str:
    """One number as a reader wants it: which, from where to where, and how much chance explains."""
    names = measures_of(data_source(RunSettings.from_name(row.run).data).task).names
    measure = names.get(row.metric, row.metric.replace("_", " "))
    digits = 3 if abs(row.reference) < SMALL else 0
    values = f"{row.rerun:.{digits}f} instead of {row.reference:.{digits}f}"
    return f"{measure}, {row.scope}, {row.adapter}: {values}, where chance explains {row.chance:.{digits}f}"


def _shown(path: pathlib.Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()
