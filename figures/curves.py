"""What the figures of several runs share: checked runs, points with intervals, curves over a number of the runs."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.comparison import estimates
from fedmrg_core.evaluation.run_sets import Runs, content_now
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.metrics.statistics import CONFIDENCE
from fedmrg_core.runs.methods import load_methods
from fedmrg_core.tasks.reports.measures import CLINICAL_F1, MEASURES, REFERENCE
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


def one_setting(runs: Runs, **alike: Any) -> None:
    """Refuse runs of several settings, which a figure would join into one line.

    Args:
        runs: checked runs.
        alike: fields of config.yaml in which the runs may differ all the same, e.g. clients=None, each with the value
            by which the settings are told apart.

    Raises:
        InputError: there are several settings.
    """
    settings: dict[str, Run] = {}
    for run in runs:
        alike_configuration = run.configuration.model_copy(update=alike)
        settings.setdefault(dataclasses.replace(run, configuration=alike_configuration).setting, run)
    if len(settings) > 1:
        apart = f" apart from {', '.join(alike)}" if alike else ""
        raise InputError(
            f"This figure shows one setting{apart}; these runs have {' and '.join(settings)}, e.g. "
            f"{' and '.join(str(run.folder) for run in settings.values())}; give the runs of one."
        )


def points(
    runs: Runs, x: Callable[[Run], float | None], name: str = "x", line: Callable[[Run], str] = lambda run: run.method
) -> pandas.DataFrame:
    """Means over seeds with intervals of every group of runs that has an x.

    Args:
        runs: checked runs.
        x: what is drawn along the axis, of a run; None leaves it out.
        name: what the column of x is called.
        line: which line a run is on; by itself the row of methods.yaml.

    Returns:
        The columns of `comparison.estimates`, `line` and `name`, sorted by line and x.

    Raises:
        InputError: a line has two points at the same x.
    """
    keys: dict[tuple[str, float], dict[str, Any]] = {}
    for (setting, label), group in runs.groups().items():
        place = line(group[0]), x(group[0])
        key = {"setting": setting, "method": label, "line": place[0], name: place[1], "folder": group[0].folder}
        if place[1] is not None and (other := keys.setdefault(place, key)) is not key:
            raise InputError(
                f"{other['folder']} and {key['folder']} are both at {name} {place[1]:g} of the line {place[0]!r}; "
                "give runs that differ in what the figure varies, and in nothing else."
            )
    columns = ["setting", "method", "line", name]
    table = estimates(runs).merge(pandas.DataFrame(keys.values(), columns=columns), on=["setting", "method"])
    return table.sort_values(["line", name], kind="stable").reset_index(drop=True)


def one_at_a_time(runs: Runs, axes: dict[str, str]) -> pandas.DataFrame:
    """Points along each axis, taken from runs of a method whose other axes are alike.

    They are where row and profile have them now, or most runs of the method if none is there. If fewer than two points
    are left so, they are where they leave the most.

    Args:
        runs: checked runs.
        axes: dotted key of a profile or method by the axis's name, e.g. {"tau": "training.contrast_temperature"}. A
            method that has no such number is not on that axis.

    Returns:
        As `points`, with the columns axis, and held: which other axes are not as row and profile have them now, e.g.
        "payload.rank 8 instead of 28"; the line's name says so too. A method without two values along an axis is not
        on it.

    Raises:
        InputError: two runs differ in something else than the axes, or there are several settings.
    """
    one_setting(runs)
    tables = [
        _along(runs, key, [other for other in axes.values() if other != key]).assign(axis=axis)
        for axis, key in axes.items()
        if any(key in run.content() for run in runs)
    ]
    return pandas.concat(tables, ignore_index=True)


def held_text(data: pandas.DataFrame) -> str:
    """What the lines of `one_at_a_time` have in common, and which have something else, for a caption."""
    odd = data[data["held"] != ""].drop_duplicates(["axis", "line"])
    but = [f"{row.held} for {row.line.partition(' ')[0]} over '{row.axis}'" for row in odd.itertuples()]
    return ", but ".join(["other numbers are as row and profile have them", *filter(None, [" and ".join(but)])])


def _along(runs: Runs, key: str, others: Sequence[str]) -> pandas.DataFrame:
    """Points along one axis, see `one_at_a_time`."""
    held, lines, odd = {}, {}, {}
    for method in dict.fromkeys(run.method for run in runs if key in run.content()):
        alike = [run for run in runs if run.method == method]
        now, contents = content_now(alike[0]), [run.content() for run in alike]
        held[method] = _held(contents, key, [other for other in others if other in contents[0]], now)
        different = {other: value for other, value in held[method].items() if value != now.get(other, value)}
        named = ", ".join(f"{other} {value}" for other, value in different.items())
        lines[method] = f"{method} at {named}" if named else method
        odd[lines[method]] = ", ".join(f"{other} {value} instead of {now[other]}" for other, value in different.items())

    def x(run: Run) -> float | None:
        content = run.content()
        alike = run.method in held and all(content[other] == value for other, value in held[run.method].items())
        return content[key] if alike else None

    table = points(runs, x, line=lambda run: lines.get(run.method, run.method))
    lines_of_several = table[table.groupby("line")["x"].transform("nunique") > 1]
    return lines_of_several.assign(held=lines_of_several["line"].map(odd))


def _held(contents: Sequence[dict[str, Any]], key: str, others: Sequence[str], now: dict[str, Any]) -> dict[str, Any]:
    """Where the other axes of a method's runs are on its line along `key`."""
    along: dict[tuple[Any, ...], set[Any]] = {}
    for content in contents:
        along.setdefault(tuple(content[other] for other in others), set()).add(content[key])
    usual = []
    for other in others:
        there = collections.Counter(content[other] for content in contents)
        usual.append(now[other] if other in now and now[other] in there else there.most_common(1)[0][0])
    chosen = tuple(usual)
    if len(along.get(chosen, ())) < 2:
        chosen = max(along, key=lambda values: len(along[values]))
    return dict(zip(others, chosen, strict=True))


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
