"""How fast each row of visual prompts learns best: the same few paces for every row, judged on validation pictures.

Embedded synthetic pictures, one seed, few rounds. No test picture is read. Runs that are missing are made one after
another, a killed one goes on from its last round. From the repository, 48 short runs:

    python benchmarks/picture_paces.py --workspace FOLDER
    python benchmarks/picture_paces.py --workspace FOLDER --keep    the table goes to figures/reference/
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

import pandas

from fedmrg_core.errors import InputError
from fedmrg_core.federation.run import run_federation
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.metrics.segmentation import DICE
from fedmrg_core.paths import reference_folder, workspace_folder
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.tasks.visual_prompts.inputs import prepare_inputs
from fedmrg_core.tasks.visual_prompts.measures import AREA

ROWS = ("generator", "static", "head", "full", "lora", "small-network", "local", "centralised")
MEASURES = {"phantom_findings": AREA, "phantom_masks": DICE}
PACES = (0.3, 1.0, 3.0)  # of the profile's learning rate; the same for every row, so that none is tuned more [ours]
FILE = "picture_paces.csv"


def main() -> None:
    """Make the runs, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--data", nargs="+", default=list(MEASURES), choices=list(MEASURES))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workspace", default="", help="where results are kept; the repository if empty")
    parser.add_argument("--keep", action="store_true", help=f"keep {FILE} below figures/reference/")
    given = parser.parse_args()
    try:
        root, runs = workspace_folder(given.workspace), runs_of_paces(given)
        table = pandas.DataFrame([judged(run, pace, root) for run, pace in runs])
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    print(table.pivot(index=["data", "row"], columns="pace", values="validation").round(3).to_string())
    if given.keep:
        path = reference_folder(given.profile) / "benchmark" / FILE
        write_text(path, table_text(table))
        print(path)


def runs_of_paces(given: argparse.Namespace) -> list[tuple[RunSettings, float]]:
    """Every row at every pace."""
    return [
        (at_pace(RunSettings(profile=given.profile, data=data, method=row), pace, given.rounds), pace)
        for data in given.data
        for row in given.rows
        for pace in PACES
    ]


def at_pace(run: RunSettings, pace: float, rounds: int) -> RunSettings:
    """A short run whose modules learn at a share of the profile's rate, in place of the share its row has."""
    profile, row = run.load()
    rate = profile.training.learning_rate * pace / row.pace
    return run.model_copy(update={"variant": f"training.learning_rate={rate:.6g},federation.rounds={rounds}"})


def judged(run: RunSettings, pace: float, root: pathlib.Path) -> dict[str, object]:
    """What the validation pictures say of a run, in the round of their lowest loss; made unless it is there."""
    folder = run.folder(root)
    if not (folder / "model" / "shared.safetensors").is_file():
        started = time.perf_counter()
        prepare_inputs(run, root)
        run_federation(folder, run.configuration(root), progress=False)
        print(f"{run.name}: {time.perf_counter() - started:.0f} s", flush=True)
    measure = f"validation_{MEASURES[run.data]}"
    rounds = pandas.read_csv(folder / "rounds.csv").groupby("round")[["validation_loss", measure]].mean()
    best = rounds["validation_loss"].idxmin()
    found = {"round": int(best), "loss": rounds.loc[best, "validation_loss"], "validation": rounds.loc[best, measure]}
    return {"data": run.data, "row": run.method, "pace": pace, "measure": MEASURES[run.data], **found}


if __name__ == "__main__":
    main()
