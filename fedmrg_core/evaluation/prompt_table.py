"""Sources of prompts against what else is trained: the table of their cells, and paired differences between rows.

Which row of methods is which cell is the task's to say; a cell without runs stays blank.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas

from fedmrg_core.evaluation import comparison
from fedmrg_core.evaluation.run_sets import Runs
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.evaluation.table_writers import (
    EMPTY,
    ROLES,
    SIGNIFICANT,
    Cell,
    Page,
    bytes_cell,
    count_cell,
    data_notes,
    difference_cell,
    write_pages,
)
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.metrics.statistics import CONFIDENCE

Cells = Mapping[str, tuple[str, str]]  # source, and what is trained besides, by row of methods
COSTS = {
    "parameters_trained": ("Trained", count_cell),
    "parameters_shared": ("Shared", count_cell),
    "bytes_up": ("Up", bytes_cell),
    "bytes_down": ("Down", bytes_cell),
    "seconds_a_step": ("Seconds a step", lambda number: Cell(EMPTY if pandas.isna(number) else f"{number:.2f}")),
}


def of_rows(runs: Runs, rows: Sequence[str] | Cells) -> Runs:
    """The runs whose label is one of these rows, no number beside it, and the same notes."""
    return Runs([run for run in runs if runs.label(run) in rows], runs.notes)


def cell_table(runs: Runs, cells: Cells, metrics: Sequence[str]) -> pandas.DataFrame:
    """A row a setting and cell: mean and standard deviation over seeds, and what it costs.

    Args:
        runs: see `run_sets.load_runs`.
        cells: which row of methods is which cell.
        metrics: keys of metrics.csv.

    Returns:
        setting, source, besides, method, seeds; for each role and measure ``ROLE_METRIC`` and ``ROLE_METRIC_sd`` (of
        several seeds); and `COSTS`: bytes of a client and round, and seconds at a client for each step.
    """
    groups = runs.groups()
    rows = [
        {"setting": setting, "source": source, "besides": besides, "method": method, **_cell(group, metrics)}
        for setting in runs.settings
        for method, (source, besides) in cells.items()
        for group in [groups.get((setting, method), [])]
    ]
    return pandas.DataFrame(rows)


def _cell(group: Sequence[Run], metrics: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": len(group)}
    for role in ROLES:
        for metric in metrics:
            values = seed_values(group, role, metric)
            row[f"{role}_{metric}"] = float(numpy.mean(values)) if values else math.nan
            row[f"{role}_{metric}_sd"] = float(numpy.std(values, ddof=1)) if len(values) > 1 else math.nan
    return row | (_costs(group) if group else dict.fromkeys(COSTS, math.nan))


def seed_values(group: Sequence[Run], role: str, metric: str) -> list[float]:
    """A measure's value of every run, nothing unless all have it."""
    tables = [run.values(role) for run in group if run.answer(role) is not None]
    there = len(tables) == len(group) and all(metric in table.index for table in tables)
    return [float(table.loc[metric, "value"]) for table in tables] if there else []


def _costs(group: Sequence[Run]) -> dict[str, float]:
    """Means over seeds."""
    counts = [run.manifest.get("parameters", {}) for run in group]
    named = {"parameters_trained": "trainable", "parameters_shared": "shared"}
    costs = {name: float(numpy.mean([count.get(key, math.nan) for count in counts])) for name, key in named.items()}
    travelled = comparison.cost_of(group)
    costs |= {name: travelled[name] for name in ("bytes_up", "bytes_down")}
    return costs | {"seconds_a_step": float(numpy.mean([_seconds_a_step(run) for run in group]))}


def _seconds_a_step(run: Run) -> float:
    """What all clients took to train and validate, by the number of their batches."""
    paths = [run.folder / name for name in ("timing.csv", "rounds.csv")]
    if not all(path.is_file() for path in paths):
        return math.nan
    timing = read_table(paths[0], ("local_seconds",), "make the run again")
    rounds = read_table(paths[1], ("round",), "make the run again")
    trained = rounds["num_examples"].dropna() if "num_examples" in rounds else rounds["round"].iloc[:0]
    settings = run.configuration.profile.training
    steps = numpy.ceil(trained / settings.batch_size).sum() * settings.local_epochs
    return float(timing["local_seconds"].sum() / steps) if steps else math.nan


def write_cells(
    table: pandas.DataFrame, runs: Runs, metrics: Sequence[str], out_folder: pathlib.Path | str, name: str
) -> list[pathlib.Path]:
    """Write a `cell_table` as CSV, and as Markdown and LaTeX with a page a role and one of costs for each setting.

    Pages leave out cells without runs, and a role that no run was tested in.
    """
    titles = {metric: runs.measures.names[metric] for metric in metrics}
    pages = []
    for setting, part in table[table["seeds"] > 0].groupby("setting", sort=False):
        tested = [role for role in ROLES if part[[f"{role}_{metric}" for metric in metrics]].notna().any(axis=None)]
        for role in tested:
            header = ("Source of prompts", "Trained besides", "Seeds", *titles.values())
            rows = tuple(
                (*_place(row), *(_mean_cell(row, f"{role}_{metric}") for metric in titles))
                for _, row in part.iterrows()
            )
            pages.append(Page(f"{setting}, {ROLES[role]}", header, rows, _rules(part)))
        header = ("Source of prompts", "Trained besides", "Seeds", *(title for title, _ in COSTS.values()))
        rows = tuple(
            (*_place(row), *(make(row[key]) for key, (_, make) in COSTS.items())) for _, row in part.iterrows()
        )
        pages.append(Page(f"{setting}, what it costs", header, rows, _rules(part)))
    below = [
        *data_notes(runs.settings),
        f"Means over seeds, ± standard deviation over them. {EMPTY}: not run, or of one seed alone no deviation.",
        "Up, down: bytes on the wire of one client in one round, training and validation. Seconds: at a client, its "
        "validation included, on one thread of the machine of the run and beside whatever else ran there.",
        *runs.measures.notes,
        *runs.notes,
    ]
    return write_pages(table, out_folder, name, pages, below)


def _place(row: pandas.Series) -> tuple[Cell, Cell, Cell]:
    return Cell(row["source"]), Cell(row["besides"]), Cell(f"{row['seeds']}")


def _mean_cell(row: pandas.Series, key: str) -> Cell:
    if pandas.isna(row[key]):
        return Cell(EMPTY)
    deviation = row[f"{key}_sd"]
    return Cell(f"{row[key]:.3f}", "" if pandas.isna(deviation) else f"± {deviation:.3f}")


def _rules(part: pandas.DataFrame) -> frozenset[int]:
    besides = part["besides"].tolist()
    return frozenset(place for place in range(1, len(besides)) if besides[place] != besides[place - 1])


def differences(runs: Runs, pairs: Sequence[tuple[str, str]]) -> pandas.DataFrame:
    """`comparison.paired_differences` of every pair and setting; without common seeds its numbers are blank."""
    labels = {label for pair in pairs for label in pair}
    found = comparison.paired_differences(of_rows(runs, sorted(labels)), pairs)
    places = found[["setting", "role", "metric"]].drop_duplicates()
    asked = places.merge(pandas.DataFrame(pairs, columns=["first", "second"]), how="cross")
    return asked.merge(found, how="left", on=["setting", "role", "first", "second", "metric"], sort=False)


def write_differences(
    table: pandas.DataFrame, runs: Runs, metrics: Sequence[str], out_folder: pathlib.Path | str, name: str
) -> list[pathlib.Path]:
    """Write `differences` as CSV, and as Markdown and LaTeX with a page a setting and role.

    Measures that no study adds to by itself, as CIDEr, have no paired difference and no column; pairs that have no
    seed in common have no row.
    """
    pages = []
    compared = table[table["difference"].notna()]
    for (setting, role), part in compared.groupby(["setting", "role"], sort=False):
        shown = [metric for metric in metrics if metric in set(part["metric"])]
        header = ("Difference", "Seeds", *(runs.measures.names[metric] for metric in shown))
        by_pair = part.set_index(["first", "second", "metric"])
        pairs = part[["first", "second"]].drop_duplicates().itertuples(index=False)
        rows = tuple(_difference_row(by_pair, pair, shown) for pair in pairs)
        pages.append(Page(f"{setting}, {ROLES[role]}", header, rows, frozenset()))
    below = [
        *data_notes(runs.settings),
        f"The first minus the second on the same studies and seeds, with its paired {CONFIDENCE:.0%} interval over "
        "both; above zero, the first is ahead.",
        f"*: paired exchange test, p < {SIGNIFICANT:.2f} after Holm's correction for the number of differences that "
        "have runs. Call one clear only when interval and test agree.",
        "Seeds: those that both have. With one seed an interval is over studies alone.",
        *runs.measures.notes,
        *runs.notes,
    ]
    return write_pages(table, out_folder, name, pages, below)


def _difference_row(by_pair: pandas.DataFrame, pair: tuple[str, str], metrics: Sequence[str]) -> tuple[Cell, ...]:
    found = [by_pair.loc[(*pair, metric)] for metric in metrics]
    seeds = max((int(row["seeds_tested"]) for row in found if pandas.notna(row["seeds_tested"])), default=0)
    cells = [difference_cell(row) if pandas.notna(row["difference"]) else Cell(EMPTY) for row in found]
    return Cell(" − ".join(pair)), Cell(f"{seeds}"), *cells
