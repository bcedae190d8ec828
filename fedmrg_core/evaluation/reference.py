"""Reference runs: the small outputs of a finished run, as they are committed under figures/reference/."""

from __future__ import annotations

import gzip
import json
import pathlib
import shutil
from collections.abc import Sequence

from fedmrg_core.data import publishing
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.seed_variance import FILE as SEED_VARIANCE
from fedmrg_core.evaluation.seed_variance import seed_variance, write_seed_variance
from fedmrg_core.evaluation.stored_runs import load_run, numbers_of
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.files.whole_files import partial_folder, remove_partial, replace_folder, write_text
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.measures import PREDICTIONS, STUDY_SCORES, Measures, measures_of
from fedmrg_core.runs.metric_table import read_metrics
from fedmrg_core.runs.run_configuration import read_configuration
from fedmrg_core.runs.task_notebooks import notebooks_of

SETTINGS = ("config.yaml", "manifest.json", "ledger.csv", "timing.csv")  # numbers of no study
BENCHMARK = "benchmark"
DIGITS = 5  # decimals of the measures that are kept


def store_reference(run_folder: pathlib.Path, name: str, reference_root: pathlib.Path) -> pathlib.Path:
    """Copy what is small and may be published of a run, by its data set's level (`fedmrg_core.data.publishing`).

    Of level all the predictions go along, compressed and without floors; of level scores only what the task's
    `Measures.study_scores` makes of them; of level aggregates nothing of a single study and no
    number of fewer than `publishing.SMALLEST_CELL` studies.

    Args:
        run_folder: a finished and evaluated run.
        name: its `RunSettings.name`.
        reference_root: the folder of all profiles' references.

    Returns:
        The reference's folder; what was there is replaced whole.

    Raises:
        InputError: the run is not finished or not evaluated, its code was changed and not committed, it has too few
            test studies for any number of it to be published, or a measure that its task does not declare.
    """
    for needed in ("manifest.json", "metrics.csv", "predictions.csv"):
        if not (run_folder / needed).is_file():
            raise InputError(f"{run_folder}: {needed} is missing; finish the run with {_makers(name)} first.")
    manifest = json.loads((run_folder / "manifest.json").read_text(encoding="utf-8"))
    if manifest.get("uncommitted_changes") or not manifest.get("commit"):
        raise InputError(
            f"{run_folder}: it was made with uncommitted changes, or outside a git clone; a reference needs a "
            "commit to name. Commit, and make it again."
        )
    data = RunSettings.from_name(name).data
    measures = measures_of(read_configuration(run_folder).task)
    everything = read_metrics(run_folder / "metrics.csv").round(DIGITS)
    measures.check_metrics(everything, str(run_folder / "metrics.csv"))
    metrics = publishing.publishable_metrics(data, everything)
    if metrics.empty:
        raise InputError(
            f"{run_folder}: it has fewer than {publishing.SMALLEST_CELL} test studies, and of {data!r} no number of so "
            "few is published; put more studies into the test split."
        )
    target = reference_root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(target.parent)
    partial = partial_folder(target)
    for file in SETTINGS:
        if (run_folder / file).is_file():
            shutil.copyfile(run_folder / file, partial / file)
    metrics.to_csv(partial / "metrics.csv", index=False, lineterminator="\n")
    by_client = _store_tables(run_folder, partial, data, measures) and len(metrics) == len(everything)
    _store_answers(run_folder, partial, data, measures)
    figures = set(publishing.figures_of(data)) - set(() if by_client else publishing.FIGURES_OF_CLIENTS)
    for path in sorted((run_folder / "figures").glob("*")):
        if path.stem in figures and path.suffix in (".png", ".csv"):
            (partial / "figures").mkdir(exist_ok=True)
            shutil.copyfile(path, partial / "figures" / path.name)
    replace_folder(partial, target)
    return target


def _makers(name: str) -> str:
    """The notebooks that make a run, as a reader calls them."""
    numbers = [notebook.partition("_")[0] for notebook in notebooks_of(RunSettings.from_name(name).task).runs]
    return f"notebook{'s' if len(numbers) > 1 else ''} {' and '.join(numbers)}"


def _store_tables(run_folder: pathlib.Path, partial: pathlib.Path, data: str, measures: Measures) -> bool:
    """Copy rounds.csv and the task's tables as far as they may be published; whether clients have studies enough."""
    for file in measures.tables:
        if not (run_folder / file).is_file():
            continue
        if publishing.shows_scores(data):
            shutil.copyfile(run_folder / file, partial / file)
        else:
            table = publishing.publishable_table(data, read_table(run_folder / file, ("studies",), "make it again"))
            write_text(partial / file, table.to_csv(index=False, lineterminator="\n"))
    path = run_folder / "rounds.csv"
    if not path.is_file():
        return True
    if publishing.has_small_clients(data, read_table(path, ("round", "client"), "make the run again")):
        return False
    shutil.copyfile(path, partial / path.name)
    return True


def _store_answers(run_folder: pathlib.Path, partial: pathlib.Path, data: str, measures: Measures) -> None:
    """Keep the model's answers, or only the scores of each, or nothing."""
    if not publishing.shows_scores(data):
        return
    answers = measures.read_answers(run_folder / PREDICTIONS[0])
    whole = publishing.shows_studies(data)
    kept, file = (answers, PREDICTIONS[1]) if whole else (measures.study_scores(answers), STUDY_SCORES)
    text = kept.to_csv(index=False, lineterminator="\n")
    (partial / file).write_bytes(gzip.compress(text.encode(), mtime=0))


def store_seed_variance(reference_root: pathlib.Path, workers: int = 1) -> pathlib.Path:
    """Compute from all reference runs how far a run as a whole moves with its seed, for `verify`.

    Args:
        reference_root: the folder of all profiles' references; the table goes there.
        workers: see `seed_variance.seed_variance`.

    Returns:
        The table's path.

    Raises:
        InputError: no method has references of several seeds, or one lacks its scores of studies.
    """
    profiles = sorted(path.name for path in reference_root.iterdir() if path.is_dir())
    runs = [load_run(reference_root / run.name) for name in profiles for run in reference_runs(reference_root, name)]
    table = seed_variance(runs, workers=workers)
    if table.empty:
        raise InputError(f"{reference_root}: no method has references of several seeds; keep a second seed.")
    path = reference_root / SEED_VARIANCE
    write_seed_variance(path, table)
    return path


def store_benchmark(benchmark_folder: pathlib.Path, reference_folder: pathlib.Path) -> pathlib.Path:
    """Keep notebook 10's tables and figures of a profile as ``benchmark/`` beside its reference runs; no PDF.

    Returns:
        That folder; what was there is replaced whole.

    Raises:
        InputError: there is no main table.
    """
    if not (benchmark_folder / "main.md").is_file():
        raise InputError(f"{benchmark_folder}: main.md is missing; run notebook 10_benchmark first (make benchmark).")
    target = reference_folder / BENCHMARK
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(target.parent)
    partial = partial_folder(target)
    for path in sorted(benchmark_folder.iterdir()):
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
        Folders of the runs that there are, and the names of those that there are not; one that was made with other
        numbers than profile and row have now is not, and its name says which numbers.

    Raises:
        InputError: a folder's config.yaml is missing or broken.
    """
    found, missing = [], []
    for run in runs:
        folders = [folder for folder in (run.folder(workspace), reference_root / run.name) if _has(folder, measures)]
        changes = {folder: changed_numbers(folder, run) for folder in folders}
        current = [folder for folder in folders if not changes[folder]]
        if current:
            found.append(current[0])
        else:
            others = ", ".join(dict.fromkeys(key for keys in changes.values() for key in keys))
            missing.append(f"{run.name} (there is one with another {others})" if folders else run.name)
    return found, missing


def is_stored(run: RunSettings, reference_root: pathlib.Path, measures: str = "metrics.csv") -> bool:
    """Whether the run has a reference with these measures, made with the numbers that profile and row have now.

    Raises:
        InputError: the reference's config.yaml is missing or broken.
    """
    folder = reference_root / run.name
    return _has(folder, measures) and not changed_numbers(folder, run)


def changed_numbers(folder: pathlib.Path, run: RunSettings) -> list[str]:
    """Dotted keys of profile and row in which a run folder differs from what the run would be made with now.

    Raises:
        InputError: config.yaml is missing or broken, or the run's own settings do not fit.
    """
    stored = read_configuration(folder)
    before, now = numbers_of(stored.profile, stored.method), numbers_of(*run.load())
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _has(folder: pathlib.Path, measures: str) -> bool:
    return all((folder / name).is_file() for name in ("manifest.json", measures))
