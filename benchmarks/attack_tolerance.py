"""What dishonest clients do to a federation, and which rule of the server holds: the runs of attack-tolerance.

Embedded synthetic pictures and a synthetic attack. Runs that are missing are made one after another, a killed one goes
on from its last round. Then the table is printed and the figure drawn. From the repository:

    python benchmarks/attack_tolerance.py --workspace FOLDER --seeds 0
    python benchmarks/attack_tolerance.py --workspace FOLDER --seeds 0 --keep    the table goes to figures/reference/
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import sys
import time

import pandas

from fedmrg_core.errors import InputError
from fedmrg_core.federation.run import run_federation
from fedmrg_core.files.digests import write_index
from fedmrg_core.files.whole_files import partial_folder, replace_folder
from fedmrg_core.paths import reference_folder, workspace_folder
from fedmrg_core.runs.experiments import RunSettings, runs_of
from fedmrg_core.tasks.visual_prompts.evaluating import evaluate_run
from fedmrg_core.tasks.visual_prompts.inputs import prepare_inputs
from figures import attack_tolerance

EXPERIMENT = "attack-tolerance"
SHOWN = ["attack", "strength", "attackers", "method", "seeds", "value", "kept", "kept_low", "refused"]


def main() -> None:
    """Make the runs, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke")
    parser.add_argument("--workspace", default="", help="where results are kept; the repository if empty")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", action="store_true", help="keep table and picture below figures/reference/")
    given = parser.parse_args()
    try:
        root = workspace_folder(given.workspace)
        runs = [run for run in runs_of([EXPERIMENT], given.profile) if run.seed in given.seeds]
        for run in runs:
            make(run, root)
        out = root / "report" / f"{EXPERIMENT}-{given.profile}"
        paths = attack_tolerance.draw([run.folder(root) for run in runs], out)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    print(pandas.read_csv(paths[-1])[SHOWN].round(3).to_string(index=False))
    print(*paths, sep="\n")
    if given.keep:
        print(keep(paths, reference_folder(given.profile) / EXPERIMENT))


def make(run: RunSettings, root: pathlib.Path) -> None:
    """One run, unless it is there."""
    if (run.folder(root) / "metrics.csv").is_file():
        return
    started = time.perf_counter()
    prepare_inputs(run, root)
    run_federation(run.folder(root), run.configuration(root), progress=False)
    evaluate_run(run.folder(root))
    print(f"{run.name}: {time.perf_counter() - started:.0f} s", flush=True)


def keep(paths: list[pathlib.Path], target: pathlib.Path) -> pathlib.Path:
    """The CSV and the PNG as a stored reference with its digests; what was there is replaced whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_folder(target)
    for path in paths:
        if path.suffix in (".csv", ".png"):
            shutil.copyfile(path, partial / path.name)
    write_index(partial)
    replace_folder(partial, target)
    return target


if __name__ == "__main__":
    main()
