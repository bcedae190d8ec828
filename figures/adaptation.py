"""Adaptation: quality on the unseen centre over the number of its own studies, from adaptation.csv."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas

from fedmrg_core.evaluation.comparison import approximate_interval
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from figures import common, curves

COLUMNS = ("count", "metric", "value", "low", "high", "studies")


def draw(
    run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str, name: str = "adaptation"
) -> list[pathlib.Path]:
    """A panel a measure, a line a method; the files are called `name`.

    Raises:
        InputError: see `load_runs`; there are several settings; or adaptation.csv is missing.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs)
    data = pandas.DataFrame(_rows(runs))
    figure, axes = common.new_figure(1, len(curves.SHOWN), 7.6, 2.8)
    for axis, metric in zip(axes, curves.SHOWN, strict=True):
        curves.draw_lines(axis, data, metric, "count")
        axis.set_xscale("symlog", linthresh=8)
        axis.set_xticks(sorted(set(data["count"])), [str(count) for count in sorted(set(data["count"]))])
        axis.minorticks_off()
        axis.set_xlabel("Studies of the centre itself")
    curves.legend_beside(axes)
    bars = curves.interval_text(runs, "intervals over studies, with the spread between seeds")
    text = f"Test studies of the unseen centre; {bars}."
    return curves.finish(figure, name, data, runs, text, out_folder)


def _rows(runs: Runs) -> list[dict[str, object]]:
    rows = []
    for (setting, label), group in runs.groups().items():
        tables = [common.read_run_table(run.folder, "adaptation.csv", COLUMNS) for run in group]
        counts = set.intersection(*(set(table["count"]) for table in tables))
        for count in sorted(counts):
            by_metric = [table[table["count"] == count].set_index("metric") for table in tables]
            for metric in curves.SHOWN:
                interval = approximate_interval(by_metric, metric)
                rows.append(
                    {"setting": setting, "role": "unseen", "line": label, "count": count, "metric": metric,
                     "value": interval.value, "low": interval.low, "high": interval.high, "seeds": len(group)}
                )  # fmt: skip
    return rows


if __name__ == "__main__":
    common.run_script(draw, __doc__)
