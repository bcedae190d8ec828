"""Reference runs: the small outputs of a finished run, as they are committed under figures/reference/."""

from __future__ import annotations

import gzip
import json
import pathlib
import shutil
from collections.abc import Sequence

import pandas

from fedmrg_core.data.sources import data_source
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.predictions import read_predictions
from fedmrg_core.evaluation.stored_runs import STUDY_SCORES
from fedmrg_core.evaluation.study_scores import study_scores
from fedmrg_core.experiments import RunSettings
from fedmrg_core.federation.files import partial_folder, remove_partial, replace_folder

# What any run may show: numbers and settings.
NUMBERS = (
    "config.yaml",
    "manifest.json",
    "rounds.csv",
    "ledger.csv",
    "timing.csv",
    "head_auroc.csv",
    "adaptation.csv",
)
BENCHMARK = "benchmark"
DIGITS = 5  # decimals of the measures that are kept
# Figures that show neither an image nor a report.
FIGURES = ("convergence", "quality_by_client", "communication", "client_distance")
FIGURES_OF_STUDIES = ("report_page", "feature_map")


def store_reference(run_folder: pathlib.Path, name: str, reference_root: pathlib.Path) -> pathlib.Path:
    """Copy what is small and may be shown of a run.

    Predictions go along, compressed and without floors, where the data set's reports may be published; otherwise
    only their scores do, see :mod:`fedmrg_core.evaluation.study_scores`.

    Args:
        run_folder: a finished and evaluated run.
        name: its `RunSettings.name`.
        reference_root: the folder of all profiles' references.

    Returns:
        The reference's folder; what was there is replaced whole.

    Raises:
        InputError: the run is not finished or not evaluated, or its code was changed and not committed.
    """
    for needed in ("manifest.json", "metrics.csv", "predictions.csv"):
        if not (run_folder / needed).is_file():
            raise InputError(f"{run_folder}: {needed} is missing; finish the run with notebooks 06 and 07 first.")
    if json.loads((run_folder / "manifest.json").read_text(encoding="utf-8")).get("uncommitted_changes"):
        raise InputError(f"{run_folder}: it was made with uncommitted changes; a reference needs a commit to name.")
    target = reference_root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(target.parent)
    partial = partial_folder(target)
    for file in NUMBERS:
        if (run_folder / file).is_file():
            shutil.copyfile(run_folder / file, partial / file)
    pandas.read_csv(run_folder / "metrics.csv").round(DIGITS).to_csv(
        partial / "metrics.csv", index=False, lineterminator="\n"
    )
    publishable = data_source(RunSettings.from_name(name).data).images_publishable
    answers = read_predictions(run_folder / "predictions.csv")
    answers = answers[answers["system"] == "model"]
    kept, file = (answers, "predictions.csv.gz") if publishable else (study_scores(answers), STUDY_SCORES)
    text = kept.to_csv(index=False, lineterminator="\n")
    (partial / file).write_bytes(gzip.compress(text.encode(), mtime=0))
    figures = FIGURES + (FIGURES_OF_STUDIES if publishable else ())
    for path in sorted((run_folder / "figures").glob("*")):
        if path.stem in figures and path.suffix in (".png", ".csv"):
            (partial / "figures").mkdir(exist_ok=True)
            shutil.copyfile(path, partial / "figures" / path.name)
    replace_folder(partial, target)
    return target


def store_benchmark(report_folder: pathlib.Path, reference_folder: pathlib.Path) -> pathlib.Path:
    """Keep notebook 10's tables and figures of a profile as ``benchmark/`` beside its reference runs; no PDF.

    Returns:
        That folder; what was there is replaced whole.

    Raises:
        InputError: there is no main table.
    """
    if not (report_folder / "main.md").is_file():
        raise InputError(f"{report_folder}: main.md is missing; run notebook 10_benchmark first (make benchmark).")
    target = reference_folder / BENCHMARK
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(target.parent)
    partial = partial_folder(target)
    for path in sorted(report_folder.iterdir()):
        if path.suffix in (".csv", ".md", ".tex", ".png"):
            shutil.copyfile(path, partial / path.name)
    replace_folder(partial, target)
    return target


def reference_runs(reference_root: pathlib.Path, profile: str) -> list[RunSettings]:
    """The reference runs of a profile, in the order of their names."""
    manifests = (reference_root / profile).glob("*/*/seed-*/manifest.json")
    return [RunSettings.from_name(path.parent.relative_to(reference_root).as_posix()) for path in sorted(manifests)]


def finished_runs(
    runs: Sequence[RunSettings], workspace: pathlib.Path, reference_root: pathlib.Path, measures: str = "metrics.csv"
) -> tuple[list[pathlib.Path], list[str]]:
    """Where each run's measures are: in results/ if it was made here, else among the references.

    Args:
        runs: to look for.
        workspace: the tree with results/.
        reference_root: the folder of all profiles' references.
        measures: the file that has to be there, beside the manifest; adaptation.csv for a run with notebook 09.

    Returns:
        Folders of the runs that there are, and the names of those that there are not.
    """
    found, missing = [], []
    for run in runs:
        folders = (run.folder(workspace), reference_root / run.name)
        places = [place for place in folders if all((place / name).is_file() for name in ("manifest.json", measures))]
        if places:
            found.append(places[0])
        else:
            missing.append(run.name)
    return found, missing
