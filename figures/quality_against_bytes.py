"""Quality against bytes of every method, a column for each data set: reports, classes and masks beside each other."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
from matplotlib.axes import Axes

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.comparison import estimates
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from figures import common, curves
from figures.communication_quality import MEBIBYTE

_LINES = {"centralised": "-", "local": "--"}


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """Rows: home and unseen centre. The measure is the last of those that a task tests and that its runs have.

    What sends no model is a line across. Each column has its own measure, so heights are not compared between columns.

    Raises:
        InputError: see `load_runs`.
    """
    parts = {data: load_runs(folders) for data, folders in by_data(run_folders).items()}
    table = pandas.concat([rows_of(runs).assign(data=data) for data, runs in parts.items()], ignore_index=True)
    roles = [role for role in curves.ROLES if role in set(table["role"])]
    figure, axes = common.new_figure(len(roles), len(parts), 3.2 * len(parts) + 1.8, 2.7 * len(roles), sharex="col")
    panels = [(role, data) for role in roles for data in parts]
    looks = curves.styles(list(dict.fromkeys(table["method"])))
    for axis, (role, data) in zip(axes, panels, strict=True):
        rows = table[(table["role"] == role) & (table["data"] == data)]
        _panel(axis, rows, looks)
        axis.set_title(f"{data}, {curves.ROLES[role]}")
        axis.set_ylabel(rows["measure"].iloc[0] if len(rows) else "")
        axis.set_xlabel("Sent up, MiB a client and round" if role == roles[-1] else "")
    curves.legend_beside(axes)
    everything = Runs([run for runs in parts.values() for run in runs], _notes(parts))
    text = f"Test studies; {curves.interval_text(everything)}; bytes up, measured on the wire."
    return curves.finish(figure, "quality_against_bytes", table, everything, text, out_folder)


def by_data(run_folders: Sequence[pathlib.Path | str]) -> dict[str, list[pathlib.Path]]:
    """Run folders by the name of their data, in the order they come.

    Raises:
        InputError: there is none, or one is no run folder.
    """
    found: dict[str, list[pathlib.Path]] = {}
    for folder in common.check_runs(run_folders):
        found.setdefault(common.data_name(folder), []).append(folder)
    return found


def rows_of(runs: Runs) -> pandas.DataFrame:
    """One row a method and role: the columns of `comparison.estimates`, and `measure`, as a reader calls it."""
    table = estimates(runs)
    known = set(table.dropna(subset=["value"])["metric"])
    key = [key for key in runs.measures.tested if key in known][-1:]
    if not key:
        raise InputError(f"{runs[0].folder}: there is none of the measures that its task tests; evaluate it again.")
    return table[table["metric"] == key[0]].assign(measure=runs.measures.names[key[0]]).reset_index(drop=True)


def _panel(axis: Axes, rows: pandas.DataFrame, looks: dict[str, dict[str, object]]) -> None:
    for method, row in rows.groupby("method", sort=False):
        exchange = row["exchange"].iloc[0]
        if exchange == "federated":
            style = {**looks[method], "ls": "", "ms": 5, "zorder": 3}
            curves.error_bars(axis, row["bytes_up"] / MEBIBYTE, row, label=method, **style)
        else:
            colour = looks[method]["color"]
            axis.axhline(row["value"].iloc[0], color=colour, ls=_LINES[exchange], lw=1, label=method)
    axis.set_xscale("log")


def _notes(parts: dict[str, Runs]) -> list[str]:
    """Each note once, of whichever data set."""
    return list(dict.fromkeys(note for runs in parts.values() for note in runs.notes))


if __name__ == "__main__":
    common.run_script(draw, __doc__)
