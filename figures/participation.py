"""Participation: quality over the share of the clients that train in a round."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))  # for `python figures/participation.py`

from fedmrg_core.evaluation.run_sets import load_runs
from figures import common, curves

KEY = "federation.participation"
STATISTICS = "training.own_statistics"  # BatchNorm's: a client's own ones grow old between two rounds that it trains in


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A panel a measure, a line a method and kind of BatchNorm statistics at home.

    Raises:
        InputError: see `load_runs`.
    """
    runs = load_runs(common.check_runs(run_folders), varying=[KEY, STATISTICS])
    data = curves.points(runs, lambda run: run.content()[KEY], "participation")
    pooled = {runs.label(run) for run in runs if run.content()[STATISTICS] is False}
    data.loc[data["method"].isin(pooled), "line"] += ", pooled statistics"
    figure, axes = common.new_figure(1, len(curves.SHOWN), 7.6, 2.8)
    for axis, metric in zip(axes, curves.SHOWN, strict=True):
        curves.draw_lines(axis, data, metric, "participation")
        axis.set_xlabel("Share of the clients in a round")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    curves.legend_beside(axes)
    return curves.finish(
        figure, "participation", data, runs, f"Test studies; {curves.interval_text(runs)}.", out_folder
    )


if __name__ == "__main__":
    common.run_script(draw, __doc__)
