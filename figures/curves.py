"""What the figures of several runs share: checked runs, points with intervals, curves over a number of the runs."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmrg_core.evaluation.comparison import CLINICAL_F1, MEASURES, REFERENCE, estimates
from fedmrg_core.evaluation.run_sets import Runs
from fedmrg_core.evaluation.statistics import CONFIDENCE
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.methods import load_methods
from figures import common

SHOWN = ("bleu_4", CLINICAL_F1)
ROLES = {"home": "at home", "unseen": "unseen centre"}
_MARKERS = "osD^vP*X<>dp"
# Paul Tol's "muted", safe for colour-blind readers, its sand darker: the main table has more methods than colours.
_COLOURS = ("#DDAA33", "#CC6677", "#117733", "#88CCEE", "#882255", "#999933", "#44AA99", "#AA4499", "#332288")


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker, its filling and line by name; a row of methods.yaml looks the same in every figure.

    The reference is black. Where colours come round again, markers are hollow and lines dashed.
    """
    rows = [name for name in load_methods() if name != REFERENCE]
    rows.sort(key=lambda name: not name.startswith(f"{REFERENCE}-"))  # then no two of the main table look alike
    order = [*rows, *sorted(set(names) - {REFERENCE, *rows})]
    found = {REFERENCE: {"color": "black", "marker": "o", "mfc": "black", "ls": "-"}}
    for place, name in enumerate(order):
        turn, colour = place // len(_COLOURS), _COLOURS[place % len(_COLOURS)]
        filled = {"mfc": "white", "ls": "--"} if turn % 2 else {"mfc": colour, "ls": "-"}
        found[name] = {"color": colour, "marker": _MARKERS[(place + turn) % len(_MARKERS)], **filled}
    return {name: found[name] for name in names}


def points(runs: Runs, x: Callable[[Run], float | None], name: str = "x") -> pandas.DataFrame:
    """Means over seeds with intervals of every group of runs that has an x.

    Args:
        runs: checked runs.
        x: what is drawn along the axis, of a run; None leaves it out.
        name: what the column of x is called.

    Returns:
        The columns of `comparison.estimates`, `line` (the row of methods.yaml) and `name`, sorted by line and x.
    """
    keys = [
        {"setting": setting, "method": label, "line": group[0].method, name: x(group[0])}
        for (setting, label), group in runs.groups().items()
    ]
    table = estimates(runs).merge(pandas.DataFrame(keys), on=["setting", "method"])
    return table.dropna(subset=name).sort_values(["line", name], kind="stable").reset_index(drop=True)


def one_at_a_time(runs: Runs, axes: dict[str, str]) -> pandas.DataFrame:
    """Points along each axis, taken from the runs whose other axes are where most runs of their method have them.

    Args:
        runs: checked runs.
        axes: dotted key of a profile or method by the axis's name, e.g. {"tau": "training.contrast_temperature"}.

    Returns:
        As `points`, with a column axis. A method without two values along an axis is not on it.
    """
    contents = {id(run): run.content() for run in runs}
    usual: dict[tuple[str, str], Any] = {}
    for key in axes.values():
        for method in dict.fromkeys(run.method for run in runs):
            values = collections.Counter(contents[id(run)][key] for run in runs if run.method == method)
            usual[method, key] = values.most_common(1)[0][0]
    parts = []
    for axis, key in axes.items():
        others = set(axes.values()) - {key}

        def value(run: Run, key: str = key, others: set[str] = others) -> float | None:
            content = contents[id(run)]
            return content[key] if all(content[o] == usual[run.method, o] for o in others) else None

        table = points(runs, value)
        several = table.groupby("line")["x"].transform("nunique") > 1
        parts.append(table[several].assign(axis=axis))
    return pandas.concat(parts, ignore_index=True)


def error_bars(axis: Axes, x: Sequence[float] | pandas.Series, rows: pandas.DataFrame, **style: Any) -> None:
    """Values with their intervals; bounds beyond the value on the wrong side count as none."""
    errors = [(rows["value"] - rows["low"]).clip(lower=0), (rows["high"] - rows["value"]).clip(lower=0)]
    axis.errorbar(x, rows["value"], errors, **{"ms": 4, "lw": 1.2, "elinewidth": 1, "capsize": 2, **style})


def draw_lines(axis: Axes, data: pandas.DataFrame, metric: str, x: str = "x") -> None:
    """A line each method (column line) and role: full at home, dashed and hollow on the unseen centre."""
    looks = styles(sorted(set(data["line"])))
    shown = data[data["metric"] == metric]
    for (line, role), rows in shown.groupby(["line", "role"], sort=False):
        rows = rows.sort_values(x)
        home = {"ls": "-", "mfc": looks[line]["color"]}
        look = home if role == "home" else {"ls": "--", "mfc": "white", "elinewidth": 0.6}
        error_bars(axis, rows[x], rows, label=f"{line}, {ROLES[role]}", **{**looks[line], **look})
    axis.set_ylabel(MEASURES[metric])


def legend_beside(axes: Sequence[Axes], title: str = "Method") -> None:
    """One legend for all axes, to the right of the figure."""
    found = {label: handle for each in axes for handle, label in zip(*each.get_legend_handles_labels(), strict=True)}
    # Of the figure, not of the axis: a long legend of an axis would stretch that axis's row.
    axes[0].figure.legend(found.values(), found.keys(), loc="outside right upper", title=title)


def interval_text(runs: Runs, several: str = "bootstrap intervals over seeds and studies") -> str:
    """What the bars are, for a caption; `several` where a group of the runs has more than one seed."""
    one_seed = all(len(group) == 1 for group in runs.groups().values())
    return f"bars: {CONFIDENCE:.0%} {'bootstrap intervals over studies; one seed' if one_seed else several}"


def finish(
    figure: Figure, name: str, data: pandas.DataFrame, runs: Runs, text: str, out_folder: pathlib.Path | str
) -> list[pathlib.Path]:
    """Caption (with what the reader has to know about the runs) and files."""
    seaborn.despine(figure)
    common.caption(figure, "\n".join([text, *runs.notes]), runs.folders)
    return common.save_figure(figure, name, data, out_folder)
