"""Communication against quality: every method a point with its interval."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import pandas
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))  # for `python figures/communication_quality.py`

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.comparison import MEASURES, main_table
from fedmrg_core.evaluation.run_sets import load_runs
from figures import common, curves

MEBIBYTE = 1024**2
_LINES = {"centralised": "-", "local": "--"}


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """Columns: home and unseen centre; rows: BLEU-4 and clinical F1; what sends no model is a line across.

    Raises:
        InputError: see `load_runs`; or there are several settings.
    """
    runs = load_runs(common.check_runs(run_folders))
    if len(runs.settings) > 1:
        raise InputError(f"This figure shows one setting; these runs have {', '.join(runs.settings)}.")
    table = main_table(runs, floors=False)
    data = table[table["metric"].isin(curves.SHOWN)].reset_index(drop=True)
    data.insert(0, "bytes", data["bytes_up"] + data["bytes_down"])
    roles = [role for role in curves.ROLES if role in set(data["role"])]
    figure, axes = common.new_figure(
        len(curves.SHOWN), len(roles), 3.2 * len(roles) + 1.8, 5.4, sharex=True, sharey="row"
    )
    for axis, (metric, role) in zip(axes, [(m, r) for m in curves.SHOWN for r in roles], strict=True):
        _panel(axis, data[(data["metric"] == metric) & (data["role"] == role)], sorted(set(data["method"])))
        first, last = role == roles[0], metric == curves.SHOWN[-1]
        axis.set(xlabel="MiB of a client and round" if last else "", title="" if last else curves.ROLES[role])
        axis.set_ylabel(MEASURES[metric] if first else "")
    curves.legend_beside(axes)
    text = f"Test studies; {curves.INTERVALS}; bytes up and down, training and validation, measured on the wire."
    return curves.finish(figure, "communication_quality", data, runs, text, out_folder)


def _panel(axis: Axes, rows: pandas.DataFrame, methods: list[str]) -> None:
    looks = curves.styles(methods)
    for method, row in rows.groupby("method", sort=False):
        exchange = row["exchange"].iloc[0]
        if exchange == "federated":
            curves.error_bars(axis, row["bytes"] / MEBIBYTE, row, ls="", label=method, **looks[method])
        else:
            axis.axhline(row["value"].iloc[0], color=looks[method]["color"], ls=_LINES[exchange], lw=1, label=method)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_minor_locator(NullLocator())


if __name__ == "__main__":
    common.run_script(draw, __doc__)
