"""Communication against quality: every method a point with its interval, over what a client sends in a round."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from fedmrg_core.evaluation.comparison import main_table
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.tasks.reports.measures import MEASURES
from figures import common, curves

MEBIBYTE = 1024**2
_LINES = {"centralised": "-", "local": "--"}
_STEP = 1.03  # markers stand at least this factor apart: enough to see all, too little to mislead about bytes


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """Columns: home and unseen centre; rows: BLEU-4 and clinical F1; what sends no model is a line across.

    Many methods send nearly the same: markers are moved apart sideways, ticks on the axis stand at the true bytes.

    Raises:
        InputError: see `load_runs`; or there are several settings.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs)
    table = main_table(runs, floors=False)
    data = table[table["metric"].isin(curves.SHOWN)].reset_index(drop=True)
    sent = data[data["exchange"] == "federated"].groupby("method")["bytes_up"].first() / MEBIBYTE
    roles = [role for role in curves.ROLES if role in set(data["role"])]
    figure, axes = common.new_figure(
        len(curves.SHOWN), len(roles), 3.6 * len(roles) + 1.8, 5.8, sharex=True, sharey="row"
    )
    for axis, (metric, role) in zip(axes, [(m, r) for m in curves.SHOWN for r in roles], strict=True):
        _panel(axis, data[(data["metric"] == metric) & (data["role"] == role)], sent)
        first, last = role == roles[0], metric == curves.SHOWN[-1]
        axis.set(xlabel="Sent up, MiB a client and round" if last else "", title="" if last else curves.ROLES[role])
        axis.set_ylabel(MEASURES[metric] if first else "")
    curves.legend_beside(axes)
    text = (
        f"Test studies; {curves.interval_text(runs)}; bytes up, training and validation, measured on the wire.\n"
        "Markers of nearly equal bytes are moved apart sideways in their order; ticks along the bottom: the true bytes."
    )
    return curves.finish(figure, "communication_quality", data, runs, text, out_folder)


def _panel(axis: Axes, rows: pandas.DataFrame, sent: pandas.Series) -> None:
    looks, places = curves.styles(rows["method"].unique()), moved_apart(sent)
    for method, row in rows.groupby("method", sort=False):
        exchange = row["exchange"].iloc[0]
        if method in places:
            style = {**looks[method], "ls": "", "ms": 5, "zorder": 3}
            curves.error_bars(axis, [places[method]], row, label=method, **style)
        elif exchange != "federated":
            axis.axhline(row["value"].iloc[0], color=looks[method]["color"], ls=_LINES[exchange], lw=1, label=method)
    axis.plot(sent, [0.0] * len(sent), "|", color="0.4", ms=7, transform=axis.get_xaxis_transform(), clip_on=False)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_locator(NullLocator())


def moved_apart(sent: pandas.Series) -> pandas.Series:
    """Places along a logarithmic axis in the order of `sent`, neighbours at least a factor `_STEP` apart.

    Groups of neighbours that are too close are spread evenly around their geometric mean.
    """
    ordered = sent[sent > 0].sort_values(kind="stable")
    if ordered.empty:
        return ordered
    groups: list[list[float]] = []  # logarithms of the members' true places
    for value in numpy.log(ordered):
        groups.append([value])
        while len(groups) > 1 and _spread(groups[-1])[0] - _spread(groups[-2])[-1] < numpy.log(_STEP):
            last = groups.pop()
            groups[-1] += last
    return pandas.Series(numpy.exp(numpy.concatenate([_spread(group) for group in groups])), ordered.index)


def _spread(group: list[float]) -> numpy.ndarray:
    return numpy.mean(group) + numpy.log(_STEP) * (numpy.arange(len(group)) - (len(group) - 1) / 2)


if __name__ == "__main__":
    common.run_script(draw, __doc__)
