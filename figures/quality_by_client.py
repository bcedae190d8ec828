"""Quality by client and on the unseen centre, each adapter and the mean of both, with floors, from metrics.csv."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.statistics import CONFIDENCE
from fedmrg_core.runs.metric_table import METRIC_COLUMNS
from fedmrg_core.tasks.reports.floors import FLOORS
from fedmrg_core.tasks.reports.predictions import ADAPTER_NAMES
from figures import common

METRICS = {
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "clinical_f1_example_14_uncertain_negative": "Clinical F1, example, 14\n(uncertain as negative)",
    "clinical_f1_macro_14_uncertain_negative": "Clinical F1, macro, 14\n(uncertain as negative)",
}
CAPTION = (
    f"Test studies; bars: {CONFIDENCE:.0%} bootstrap intervals.\nLeft of the grey line: each client by itself; "
    "right of it: all clients' test studies together (home), and the centre that never trained (unseen)."
)
TO_SEE = (
    "A point above the three horizontal lines of its place beats every floor: its reports are better than copied ones. "
    "How high the lowest point lies shows whether one hospital is served worse than the others."
)
_FLOOR_STYLES = dict(zip(FLOORS, (":", "--", "-"), strict=True))
_HALF = 0.36  # half the width of a scope's floor line


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """One figure a run: points with bootstrap intervals for the adapters, lines for the floors.

    Raises:
        InputError: metrics.csv is missing or holds none of `METRICS`.
    """
    runs = common.check_runs(run_folders)
    return [path for run in runs for path in _draw_run(run, runs, out_folder)]


def _draw_run(run: pathlib.Path, runs: Sequence[pathlib.Path], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    table = common.read_run_table(run, "metrics.csv", METRIC_COLUMNS)
    data = table[table["metric"].isin(METRICS)].reset_index(drop=True)
    if data.empty:
        raise InputError(f"{run / 'metrics.csv'} has none of the metrics {', '.join(METRICS)}; score the run first.")
    metrics = [metric for metric in METRICS if metric in set(data["metric"])]
    clients = sorted(set(data["scope"]) - {"home", "unseen"})
    scopes = [*clients, *(scope for scope in ("home", "unseen") if scope in set(data["scope"]))]
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, axes = common.new_figure(rows, columns, 2.9 * columns, 2.5 * rows + 0.6, sharex=True)
    shown = [name for name in ADAPTER_NAMES if name in set(data["adapter"])]
    colours = dict(zip(ADAPTER_NAMES, seaborn.color_palette(common.PALETTE, len(ADAPTER_NAMES)), strict=True))
    colours = {name: colours[name] for name in shown}
    for axis, metric in zip(axes, metrics, strict=False):
        _panel(axis, data[data["metric"] == metric], scopes, colours)
        axis.set_title(METRICS[metric])
        axis.set_ylim(bottom=0)
    for axis in axes[len(metrics) :]:
        axis.set_visible(False)
    seaborn.despine(figure)
    handles = [Line2D([], [], color=colours[name], marker="o", ls="", label=ADAPTER_NAMES[name]) for name in shown]
    names = [name for name in FLOORS if name in set(data["system"])]
    handles += [
        Line2D([], [], color="0.4", ls=_FLOOR_STYLES[name], label=name.replace("_", ": ") + " report") for name in names
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    common.caption(figure, CAPTION, [run])
    return common.save_figure(figure, common.figure_name("quality_by_client", run, runs), data, out_folder)


def _panel(axis: Axes, data: pandas.DataFrame, scopes: list[str], colours: dict) -> None:
    places = {scope: place for place, scope in enumerate(scopes)}
    for floor, style in _FLOOR_STYLES.items():
        for row in data[data["system"] == floor].itertuples():
            place = places[row.scope]
            axis.hlines(row.value, place - _HALF, place + _HALF, colors="0.4", linestyles=style, lw=1)
    for place, adapter in enumerate(colours):
        shift = 0.2 * (place - (len(colours) - 1) / 2)
        shown = data[(data["system"] == "model") & (data["adapter"] == adapter)]
        x = shown["scope"].map(places) + shift
        errors = [(shown["value"] - shown["low"]).clip(lower=0), (shown["high"] - shown["value"]).clip(lower=0)]
        axis.errorbar(x, shown["value"], errors, fmt="o", ms=4, lw=1.2, color=colours[adapter], zorder=3)
    axis.axvline(sum(scope not in ("home", "unseen") for scope in scopes) - 0.5, color="0.85", lw=0.8, zorder=0)
    axis.set_xticks(range(len(scopes)), map(common.plain, scopes), rotation=40, ha="right")


if __name__ == "__main__":
    common.run_script(draw, __doc__)
