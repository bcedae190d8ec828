"""Sensitivity: quality over tau, lambda_rep and lambda_kd, one at a time."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import load_runs
from figures import common, curves

AXES = {
    "tau": "training.contrast_temperature",
    "lambda_rep": "losses.contrast_inter",
    "lambda_kd": "losses.generic_to_specialised",
}
TITLES = {
    "tau": r"Contrast temperature $\tau$",
    "lambda_rep": r"Weight of the contrast $\lambda_{rep}$",
    "lambda_kd": r"Weight of the distillation $\lambda_{kd}$",
}


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A panel for each number and measure, the other two numbers as row and profile have them where runs are there.

    Raises:
        InputError: see `load_runs` and `curves.one_at_a_time`; or none of the three numbers takes two values.
    """
    runs = load_runs(common.check_runs(run_folders), varying=[AXES["tau"]])
    data = curves.one_at_a_time(runs, AXES)
    shown = [axis for axis in AXES if axis in set(data["axis"])]
    if not shown:
        raise InputError(
            f"None of {', '.join(AXES.values())} takes two values in these runs; give a sensitivity's runs."
        )
    figure, axes = common.new_figure(len(curves.SHOWN), len(shown), 2.6 * len(shown) + 1.6, 4.6, sharey="row")
    panels = [(metric, name) for metric in curves.SHOWN for name in shown]
    for axis, (metric, name) in zip(axes, panels, strict=True):
        curves.draw_lines(axis, data[data["axis"] == name], metric)
        axis.set(xlabel=TITLES[name], ylabel=axis.get_ylabel() if name == shown[0] else "")
    curves.legend_beside(axes)
    text = f"Test studies; {curves.interval_text(runs)}; along an axis the {curves.held_text(data)}."
    return curves.finish(figure, "sensitivity", data, runs, text, out_folder)


if __name__ == "__main__":
    common.run_script(draw, __doc__)
