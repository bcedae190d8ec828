"""Ablation: what is lost without each part, the whole method minus the row, with paired intervals."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
from matplotlib.axes import Axes

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.comparison import ablation_table
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.metrics.statistics import CONFIDENCE
from fedmrg_core.tasks.reports.measures import MEASURES, REFERENCE
from figures import common, curves

# What a row of methods.yaml lacks, after the name of the whole method.
LABELS = {
    "without-contrast": r"without contrast $L_{cl}$",
    "without-inter": r"without $L_{inter}$",
    "without-intra": r"without $L_{intra}$",
    "without-prompts": "without diagnosis prompts",
    "without-g2l": r"without $L_{g2l}$",
    "without-l2g": r"without $L_{l2g}$",
    "without-dual": "without dual adapter",
}


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A row of panels for home and one for the unseen centre; right of zero the part helps.

    Raises:
        InputError: see `load_runs`; the whole method is missing, there are several settings, or no predictions.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs)
    table = ablation_table(runs)
    data = table[table["difference"].notna() & table["metric"].isin(curves.SHOWN)].reset_index(drop=True)
    if data.empty:
        raise InputError(
            "No two runs have predictions and a seed in common; an ablation needs them for its differences."
        )
    roles, methods = list(dict.fromkeys(data["role"])), list(dict.fromkeys(data["method"]))[::-1]
    figure, axes = common.new_figure(
        len(roles), len(curves.SHOWN), 7.6, len(roles) * (0.9 + 0.26 * len(methods)), sharey=True, sharex="col"
    )
    for axis, (role, metric) in zip(axes, [(r, m) for r in roles for m in curves.SHOWN], strict=True):
        _forest(axis, data[(data["role"] == role) & (data["metric"] == metric)], methods)
        axis.set_title(f"{MEASURES[metric]}, {curves.ROLES[role]}")
    for axis in axes[-len(curves.SHOWN) :]:
        axis.set_xlabel(f"{REFERENCE} minus the row")
    text = f"Test studies; bars: paired {CONFIDENCE:.0%} intervals over seeds and studies; filled: p < 0.05 after Holm."
    return curves.finish(figure, "ablation", data, runs, text, out_folder)


def _forest(axis: Axes, rows: pandas.DataFrame, methods: list[str]) -> None:
    axis.axvline(0, color="0.7", lw=0.8, zorder=0)
    for row in rows.itertuples():
        place, clear = methods.index(row.method), row.p_holm < 1 - CONFIDENCE
        axis.plot([row.difference_low, row.difference_high], [place, place], color="black", lw=1.2)
        axis.plot(row.difference, place, "o", ms=5, color="black", mfc="black" if clear else "white")
        # One large part sets the axis: the small ones are there to read.
        axis.annotate(
            f"{row.difference:+.3f}" if abs(row.difference) >= 0.0005 else "0.000",
            (row.difference, place),
            (0, 5),
            textcoords="offset points",
            ha="center",
            size="x-small",
        )
    parts = [name.removeprefix(f"{REFERENCE}-") for name in methods]
    axis.set_yticks(range(len(methods)), [LABELS.get(part, part.replace("-", " ")) for part in parts])
    axis.set_ylim(-0.6, len(methods) - 0.4)


if __name__ == "__main__":
    common.run_script(draw, __doc__)
