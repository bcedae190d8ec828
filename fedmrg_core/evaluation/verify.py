"""Numbers of runs made again, held against the reference runs: reproduced, not reproduced, not run."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas

from fedmrg_core.code_state import training_code_hash
from fedmrg_core.evaluation.comparison import MEASURES
from fedmrg_core.evaluation.stored_runs import Run, load_run

REPRODUCED, NOT_REPRODUCED, NOT_RUN = "reproduced", "not reproduced", "not run"
COLUMNS = (
    "run",
    "scope",  # a client, home (all of them), unseen; wire: mean bytes of a client and round
    "adapter",  # or the floor
    "metric",
    "reference",
    "low",
    "high",
    "rerun",
    "equal",  # to the digits that the reference keeps
    "status",
    "note",
)
DIGITS = 5  # decimals that reference runs keep
_KEYS = ["scope", "adapter", "metric"]
# 2 is bad input, as everywhere on the command line.
EXIT_CODES = {REPRODUCED: 0, NOT_REPRODUCED: 1, NOT_RUN: 3}


def verify(
    reference_root: pathlib.Path | str, results_root: pathlib.Path | str, names: Sequence[str]
) -> pandas.DataFrame:
    """Compare runs with their references, number by number.

    A number is reproduced if it lies in the reference interval, bounds included: from the lowest to the highest bound,
    over all reference seeds of the run, of the bootstrap intervals over studies [ours]. Seeds, because another
    processor or number of threads changes the last bits of sums, training carries them on, and the run ends as one of
    another seed might have. A run on other data or with another configuration reproduces nothing, whatever its numbers
    are. A folder that other training code has filled was not run at all: it says nothing about the code that is here.

    Args:
        reference_root: the folder of all profiles' references.
        results_root: where runs are kept.
        names: `experiments.RunSettings.name` of each run to compare.

    Returns:
        Columns `COLUMNS`, a row for each run, scope, adapter or floor, and measure of `comparison.MEASURES` that has an
        interval; and the bytes up and down, which have none and have to be equal to those of a reference seed, or lie
        between two.

    Raises:
        InputError: a reference is missing or broken, or a run is broken.
    """
    rows = [
        row for name in names for row in _verify_run(pathlib.Path(reference_root), pathlib.Path(results_root), name)
    ]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def exit_code(rows: pandas.DataFrame) -> int:
    """0: everything reproduced; 1: something was not; 3: nothing failed, but something, or everything, was not run."""
    found = set(rows["status"]) or {NOT_RUN}
    worst = next(status for status in (NOT_REPRODUCED, NOT_RUN, REPRODUCED) if status in found)
    return EXIT_CODES[worst]


def _verify_run(reference_root: pathlib.Path, results_root: pathlib.Path, name: str) -> list[dict[str, object]]:
    reference, folder = load_run(reference_root / name), results_root / name
    finished = (folder / "metrics.csv").is_file() and (folder / "manifest.json").is_file()
    rerun = load_run(folder) if finished else None
    note = _difference(reference, rerun) if rerun else ""
    if rerun and rerun.manifest.get("training_code") != training_code_hash():
        rerun, note = None, f"made by other training code; delete {results_root.name}/{name} and verify again"
    found = _numbers(rerun)["value"] if rerun else pandas.Series(dtype=float)
    seeds = [_numbers(load_run(path)) for path in sorted((reference_root / name).parent.glob("seed-*"))]
    bounds = pandas.concat(seeds).groupby(level=_KEYS)
    expected = _numbers(reference).assign(low=bounds["low"].min(), high=bounds["high"].max())
    return [
        {
            "run": name,
            **dict(zip(_KEYS, key, strict=True)),
            "reference": row["value"],
            "low": row["low"],
            "high": row["high"],
            **_verdict(row, float(found.get(key, float("nan"))), note),
        }
        for key, row in expected.iterrows()
    ]


def _verdict(row: pandas.Series, value: float, note: str) -> dict[str, object]:
    equal = round(value, DIGITS) == round(row["value"], DIGITS)
    if pandas.isna(value):
        status = NOT_RUN
    else:
        status = REPRODUCED if not note and (equal or row["low"] <= value <= row["high"]) else NOT_REPRODUCED
    return {"rerun": value, "equal": equal, "status": status, "note": note}


def _numbers(run: Run) -> pandas.DataFrame:
    table = run.metrics
    chosen = table[table["metric"].isin(MEASURES) & table["low"].notna()]
    answering = chosen["adapter"].where(chosen["system"] == "model", chosen["system"])
    measured = chosen.assign(adapter=answering).set_index(_KEYS)[["value", "low", "high"]]
    sent = {("wire", "all", f"bytes_{way}"): [run.bytes_per_round(way)] * 3 for way in ("up", "down")}
    wire = pandas.DataFrame.from_dict(sent, orient="index", columns=measured.columns)
    return pandas.concat([measured, wire.set_axis(pandas.MultiIndex.from_tuples(sent, names=_KEYS))])


def _difference(reference: Run, rerun: Run) -> str:
    """What makes the two another run, in a few words; "" if nothing does."""
    if reference.fingerprint != rerun.fingerprint:
        return "made with other data"
    before, after = reference.content(), rerun.content()
    different = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if reference.setting != rerun.setting or reference.seed != rerun.seed:
        different.append("setting or seed")
    return f"made with another {', '.join(different)}" if different else ""
