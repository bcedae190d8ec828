"""Numbers of prompt sources: quality over how many prompts, how wide an affine network, how many training studies."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
from matplotlib.axes import Axes

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.tasks.reports.measures import CLINICAL_F1, MEASURES
from figures import common, curves

SHARE = "training.study_share"
AXES = {
    "Number of prompts N": "prompt_settings.count",
    "Width of an affine network": "prompt_settings.width",
    "Share of the training studies": SHARE,
}
SHOWN = (("home", CLINICAL_F1), ("unseen", CLINICAL_F1), ("home", "bleu_4"))
_APART = 1.06  # lines of equal numbers stand this factor apart, so that their bars are seen


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A column for each number, a row for each measure and place; what a row of methods has not, it has no line of.

    Raises:
        InputError: see `load_runs` and `curves.one_at_a_time`; or none of the three numbers takes two values.
    """
    runs = load_runs(common.check_runs(run_folders), varying=[SHARE])
    data = curves.one_at_a_time(runs, AXES)
    columns = [name for name in AXES if name in set(data["axis"])]
    if not columns:
        raise InputError(f"None of {', '.join(AXES.values())} takes two values in these runs; give runs that differ.")
    figure, axes = common.new_figure(len(SHOWN), len(columns), 2.6 * len(columns) + 1.8, 6.4, sharey="row")
    panels = [(role, metric, name) for role, metric in SHOWN for name in columns]
    for axis, (role, metric, name) in zip(axes, panels, strict=True):
        part = data[data["axis"] == name]
        _panel(axis, part[(part["role"] == role) & (part["metric"] == metric)])
        form = "{:.0%}" if AXES[name] == SHARE else "{:g}"
        axis.set_xticks(sorted(set(part["x"])), [form.format(x) for x in sorted(set(part["x"]))])
        axis.minorticks_off()
        axis.set_ylabel(f"{MEASURES[metric]}\n{curves.ROLES[role]}" if name == columns[0] else "")
    for axis, name in zip(axes[-len(columns) :], columns, strict=True):
        axis.set_xlabel(name)
    curves.legend_beside(axes)
    text = (
        f"Test studies; {curves.interval_text(runs)}; lines are set apart a little sideways.\n"
        f"Along an axis the {curves.held_text(data)}."
    )
    return curves.finish(figure, "prompt_curves", data, runs, text, out_folder)


def _panel(axis: Axes, rows: pandas.DataFrame) -> None:
    lines = sorted(set(rows["line"]))
    axis.set_xscale("log", base=2)
    for place, (line, look) in enumerate(curves.styles(lines).items()):
        points = rows[rows["line"] == line].sort_values("x")
        curves.error_bars(axis, points["x"] * _APART ** (place - (len(lines) - 1) / 2), points, label=line, **look)


if __name__ == "__main__":
    common.run_script(draw, __doc__)
