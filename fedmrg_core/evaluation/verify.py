"""Runs made again, held against the reference runs: equal, reproduced within chance, not reproduced, not run.

Another processor or number of threads changes the last bits of sums, training carries them on, and the run ends as one
of another seed might have. So a number is held against what chance does to it: see `verify`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import pandas

from fedmrg_core.data.publishing import publishable_metrics, shows_scores
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.answers import answers_of, stored_numbers
from fedmrg_core.evaluation.changes import ALPHA, DIGITS, Change, compare_answers, unpaired_change
from fedmrg_core.evaluation.equal_data import other_data
from fedmrg_core.evaluation.seed_variance import FILE, read_seed_variance, variances_of
from fedmrg_core.evaluation.stored_runs import Run, load_run
from fedmrg_core.runs.measures import Answers, Place
from fedmrg_core.runs.training_code import training_code_hash

EQUAL, REPRODUCED = "equal to the digit", "reproduced within chance"
NOT_REPRODUCED, NOT_RUN = "not reproduced", "not run"
COLUMNS = (
    "run",
    "scope",  # a client, home (all of them), unseen; wire: mean bytes of a client and round; federation: rounds
    "adapter",  # or the floor; losses: of the chosen round
    "metric",
    "reference",
    "rerun",
    "difference",
    "chance",  # the largest difference that chance explains, given all the numbers compared
    "p_value",  # times the number of numbers compared
    "status",
    "note",
)
# 2 is bad input, as everywhere on the command line.
EXIT_CODES = {EQUAL: 0, REPRODUCED: 0, NOT_REPRODUCED: 1, NOT_RUN: 3}
SEVERITY = (NOT_REPRODUCED, NOT_RUN, REPRODUCED, EQUAL)  # the first that a run has is its verdict
BYTES_TOLERANCE = 1e-3  # of the bytes: some numbers in a message are written with as many digits as they have


def verify(
    reference_root: pathlib.Path | str, results_root: pathlib.Path | str, names: Sequence[str]
) -> pandas.DataFrame:
    """Compare runs with their references, number by number, study by study.

    The variance of a difference that chance alone makes has two shares: that of single studies, seen between the two
    runs' answers to the same studies, and that of a run as a whole, known from the references' seeds (`seed_variance`).
    The difference over its root is held against Student's t, with degrees of freedom after Satterthwaite, and all
    numbers of a run together against ALPHA, with Bonferroni's correction [ours]. What follows from the data alone
    (`Measures.fixed_floors`) has to be equal, or of floors whose answers are stored within what single studies explain,
    and so has the number of rounds. Where no scores of studies are
    stored (METEOR, the losses of the chosen round, the nearest image's reports, of data of level scores CIDEr and
    single clients, of level aggregates everything) the variance is what it is between two seeds. Of aggregates whose
    variance between seeds is not known, the two intervals over studies are all that is left: unpaired, and without the
    share of a run as a whole; losses, which have none, are not compared.

    A run on other data or with another configuration reproduces nothing, whatever its numbers are. A folder that other
    training code has filled was not run at all: it says nothing about the code that is here.

    Args:
        reference_root: the folder of all profiles' references.
        results_root: where runs are kept.
        names: `experiments.RunSettings.name` of each run to compare.

    Returns:
        Columns `COLUMNS`, a row for each run, scope, adapter or floor, and measure of `Measures.compared`; and the
        bytes up and down.

    Raises:
        InputError: a reference is missing, broken or without the scores of studies that its data allow, a run is
            broken, the two answered other studies, or the variance between seeds is not stored.
    """
    parts = [_verify_run(pathlib.Path(reference_root), pathlib.Path(results_root), name) for name in names]
    rows = [row for part in parts for row in part]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def verdicts(rows: pandas.DataFrame) -> dict[str, str]:
    """The verdict of each run: the worst that one of its numbers has."""
    found = {str(name): set(group["status"]) for name, group in rows.groupby("run", sort=False)}
    return {name: next(status for status in SEVERITY if status in there) for name, there in found.items()}


def exit_code(rows: pandas.DataFrame) -> int:
    """0: everything reproduced; 1: something was not; 3: nothing failed, but something, or everything, was not run."""
    found = set(rows["status"]) or {NOT_RUN}
    return EXIT_CODES[next(status for status in SEVERITY if status in found)]


def _verify_run(reference_root: pathlib.Path, results_root: pathlib.Path, name: str) -> list[dict[str, object]]:
    reference, folder = load_run(reference_root / name), results_root / name
    finished = (folder / "metrics.csv").is_file() and (folder / "manifest.json").is_file()
    rerun = load_run(folder) if finished else None
    if rerun is None or rerun.manifest.get("training_code") != training_code_hash(rerun.configuration.task):
        note = f"made by other training code; delete {results_root.name}/{name} and verify again" if rerun else ""
        return _not_compared(name, reference, NOT_RUN, note)
    if note := _difference(reference, rerun):
        return _not_compared(name, reference, NOT_REPRODUCED, note)
    variances = read_seed_variance(reference_root / FILE)
    changes = compare_runs(reference, rerun, variances)
    notes = ["" if _base_models(reference) == _base_models(rerun) else "from other base models"]
    if not shows_scores(reference.configuration.data):
        notes.append("by whole test sets, for no scores of single studies are published of these data")
    note = "; ".join(filter(None, notes))
    return [{"run": name, **row, "note": note} for row in judge(changes)]


def _base_models(run: Run) -> object:
    return run.manifest.get("fingerprints", {}).get("base_models")


def _not_compared(name: str, reference: Run, status: str, note: str) -> list[dict[str, object]]:
    values = {key: row["value"] for key, row in stored_numbers(reference).iterrows()} | _wire(reference)
    return [
        {"run": name, **_names(key), "reference": value, "status": status, "note": note}
        for key, value in values.items()
    ]


def _names(key: tuple[str, str, str]) -> dict[str, str]:
    return dict(zip(("scope", "adapter", "metric"), key, strict=True))


def judge(changes: Mapping[tuple[str, str, str], Change]) -> Iterator[dict[str, object]]:
    """Rows of `COLUMNS` without run and note: every number's verdict, all that chance touches taken together."""
    comparisons = max(sum(change.allowed is None for change in changes.values()), 1)
    for key, change in changes.items():
        p_value = min(1.0, change.p_value * comparisons)
        equal = round(change.rerun, DIGITS) == round(change.reference, DIGITS)
        yield {
            **_names(key),
            "reference": change.reference,
            "rerun": change.rerun,
            "difference": change.difference,
            "chance": change.chance(comparisons),
            "p_value": p_value,
            "status": EQUAL if equal else REPRODUCED if p_value >= ALPHA else NOT_REPRODUCED,
        }


def compare_runs(reference: Run, rerun: Run, variances: pandas.DataFrame) -> dict[tuple[str, str, str], Change]:
    """Every number of both runs by scope, adapter or floor, and measure; settings are not looked at.

    Args:
        reference: the reference run.
        rerun: the run to hold against it.
        variances: see `seed_variance.seed_variance`.

    Raises:
        InputError: see `verify`.
    """
    if not shows_scores(reference.configuration.data):
        return _compare_aggregates(reference, rerun, variances)
    stored, again = stored_numbers(reference), stored_numbers(rerun)
    answers, others = answers_of(reference), answers_of(rerun, numbered=reference.predictions is None)
    _check_numbers(reference, stored, answers)
    _check_numbers(rerun, again, others)
    _check_same_numbers(reference, stored, rerun, again)
    for place, each in answers.items():
        if place not in others or each.studies != others[place].studies:
            raise InputError(
                f"{rerun.folder} and {reference.folder} answered different test studies ({', '.join(place)}); evaluate "
                "the run on the reference's."
            )
    known = variances_of(variances, reference)
    fixed = reference.measures.fixed_floors
    changes = compare_answers(answers, others, known, reference.measures.compared, fixed)
    for key in stored.index.difference(list(changes)):
        changes[key] = unpaired_change(stored.loc[key], again.loc[key], key, known, fixed)
    return changes | _settled_changes(reference, rerun)


def _compare_aggregates(reference: Run, rerun: Run, variances: pandas.DataFrame) -> dict[tuple[str, str, str], Change]:
    """`compare_runs` without a single study: the numbers that may be published of both runs."""
    runs = [
        dataclasses.replace(run, metrics=publishable_metrics(run.configuration.data, run.metrics))
        for run in (reference, rerun)
    ]
    stored, again = map(stored_numbers, runs)
    fixed = reference.measures.fixed_floors
    if not (reference.folder / "rounds.csv").is_file():  # of clients with few studies it is not published
        again = again[again.index.get_level_values("adapter") != "losses"]
    _check_same_numbers(reference, stored, rerun, again)
    try:
        known = variances_of(variances, reference)
    except InputError:
        stored = stored[stored["low"].notna() | stored.index.get_level_values("adapter").isin(fixed)]
        known = None
    changes = {key: unpaired_change(stored.loc[key], again.loc[key], key, known, fixed) for key in stored.index}
    return changes | _settled_changes(reference, rerun)


def _check_same_numbers(reference: Run, stored: pandas.DataFrame, rerun: Run, again: pandas.DataFrame) -> None:
    """Two runs have the same `stored_numbers`; a row that one lacks was lost."""
    for run, lacking in (
        (rerun, stored.index.difference(again.index)),
        (reference, again.index.difference(stored.index)),
    ):
        if len(lacking):
            raise InputError(f"{run.folder}/metrics.csv has no {', '.join(lacking[0])}; restore it or evaluate again.")


def _settled_changes(reference: Run, rerun: Run) -> dict[tuple[str, str, str], Change]:
    """What chance does not touch: the number of rounds, and nearly not, the bytes on the wire."""
    rounds = [float(run.manifest.get("rounds", 0)) for run in (reference, rerun)]
    sent = _wire(rerun)
    return {("federation", "all", "rounds"): Change(*rounds, allowed=0.0)} | {
        key: Change(value, sent[key], allowed=BYTES_TOLERANCE * value) for key, value in _wire(reference).items()
    }


def _check_numbers(run: Run, stored: pandas.DataFrame, answers: Mapping[Place, Answers]) -> None:
    """Hold metrics.csv against the answers it was computed from: neither a row nor a digit may be lost."""
    for (scope, adapter), each in answers.items():
        for metric in run.measures.compared:
            if metric not in each.measures:
                continue
            value = each.measures[metric].estimate()
            if (scope, adapter, metric) not in stored.index:
                raise InputError(
                    f"{run.folder}/metrics.csv has no {scope}, {adapter}, {metric}; restore it or evaluate again."
                )
            if abs(stored.loc[(scope, adapter, metric), "value"] - value) > 2 * 10.0**-DIGITS:
                raise InputError(
                    f"{run.folder}/metrics.csv has another {metric} of {scope}, {adapter} than its answers give "
                    f"({value:.{DIGITS}f}); restore the file or evaluate the run again."
                )


def _wire(run: Run) -> dict[tuple[str, str, str], float]:
    return {("wire", "all", f"bytes_{way}"): run.bytes_per_round(way) for way in ("up", "down")}


def _difference(reference: Run, rerun: Run) -> str:
    """What makes the two another run, in a few words; "" if nothing does."""
    if reference.fingerprint != rerun.fingerprint:
        return other_data(reference.manifest, rerun.manifest)
    before, after = reference.content(), rerun.content()
    different = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if reference.setting != rerun.setting or reference.seed != rerun.seed:
        different.append("setting or seed")
    return f"made with another {', '.join(different)}" if different else ""
