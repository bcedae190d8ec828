"""Visual prompts: quality over how many of the training pictures there are, and over the number of prompts."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from figures import common, curves
from figures.quality_against_bytes import by_data

AXES = {"Share of the training pictures": "training.study_share", "Number of prompts": "pictures.prompts"}


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A row for each data set, at home; a column for each number that takes two values.

    Raises:
        InputError: see `load_runs` and `curves.one_at_a_time`; or none of the numbers takes two values.
    """
    varying = AXES.values()
    loaded = {data: load_runs(folders, varying=varying) for data, folders in by_data(run_folders).items()}
    table = pandas.concat([_along(runs).assign(data=data) for data, runs in loaded.items()], ignore_index=True)
    columns = [name for name in AXES if name in set(table["axis"])]
    if not columns:
        raise InputError(f"None of {', '.join(AXES.values())} takes two values in these runs; give runs that differ.")
    figure, axes = common.new_figure(
        len(loaded), len(columns), 3.0 * len(columns) + 1.8, 2.7 * len(loaded), sharex="col", sharey="row"
    )
    looks = curves.styles(sorted(set(table["line"])))
    for axis, (data, name) in zip(axes, [(data, name) for data in loaded for name in columns], strict=True):
        part = table[(table["data"] == data) & (table["axis"] == name)]
        for line, points in part.groupby("line"):
            curves.error_bars(axis, points["x"], points.sort_values("x"), label=line, **looks[line])
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(set(part["x"])), [f"{x:g}" for x in sorted(set(part["x"]))])
        axis.minorticks_off()
        axis.set_ylabel(f"{data}\n{part['measure'].iloc[0]}" if name == columns[0] and len(part) else "")
        axis.set_xlabel(name if data == [*loaded][-1] else "")
    curves.legend_beside(axes)
    runs = Runs([run for each in loaded.values() for run in each])
    text = f"Test studies at home; {curves.interval_text(runs)}; {curves.held_text(table)}."
    return curves.finish(figure, "picture_curves", table, runs, text, out_folder)


def _along(runs: Runs) -> pandas.DataFrame:
    """`curves.one_at_a_time` at home, of the measure that a task tests and its runs have."""
    table = curves.one_at_a_time(runs, AXES)
    table = table[(table["role"] == "home") & table["metric"].isin(runs.measures.tested)].dropna(subset=["value"])
    return table.assign(measure=table["metric"].map(runs.measures.names))


if __name__ == "__main__":
    common.run_script(draw, __doc__)
