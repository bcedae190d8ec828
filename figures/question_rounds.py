"""Medical questions by round: every kept adapter on every client's test questions, at home and elsewhere."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
import seaborn
from matplotlib.axes import Axes

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.tasks.medical_qa.answering import PROBABILITY
from fedmrg_core.tasks.medical_qa.measures import MAIN, MATRIX, MATRIX_BY_ROUND
from figures import common, curves

COLUMNS = ("adapter", "of", "on", "metric", "value")
# What a matrix may hold: its name, the end of its scale (None: the largest value), and how a number is written.
SCALES: dict[str, tuple[str, float | None, str]] = {
    MAIN: ("Share of right answers", 1.0, ".2f"),
    PROBABILITY: ("Probability of a right open answer, per token", None, ".3f"),
}
PANELS = {"home": "own client's questions", "worst": "worst client", "away": "other clients' questions"}
TEXT = (
    "{name}. Test questions, asked after the last round.\n"
    "Lines: means over clients and seeds, bands: range over seeds. "
    "A shared adapter is every client's own. Grey: the base model as it came."
)


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A panel each for a client's own questions, the worst client, and other clients' questions.

    Raises:
        InputError: see `load_runs`; or no run kept adapters of its rounds, or their matrices hold several measures.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs)
    data = _by_round(runs)
    name, top, _ = _scale(data)
    panels = {panel: title for panel, title in PANELS.items() if panel in set(data["panel"])}
    figure, axes = common.new_figure(1, len(panels), 3.0 * len(panels) + 1.8, 3.2, sharey=True)
    looks = curves.styles(sorted(set(data["line"]) - {"base"}))
    for axis, (panel, title) in zip(axes, panels.items(), strict=True):
        _panel(axis, data[data["panel"] == panel], looks, top)
        axis.set(xlabel="Round", title=title)
    axes[0].set_ylabel(name)
    curves.legend_beside(axes, "Method, adapter")
    return curves.finish(figure, "question_rounds", data, runs, TEXT.format(name=name), out_folder)


def _panel(axis: Axes, data: pandas.DataFrame, looks: dict[str, dict], top: float | None) -> None:
    for line, rows in data.groupby("line"):
        by_round = rows.groupby("round")["value"].agg(["mean", "min", "max"])
        if line == "base":
            axis.axhline(by_round["mean"].iloc[0], color="0.6", lw=1, zorder=0)
            continue
        axis.plot(by_round.index, by_round["mean"], lw=1.2, ms=3.5, mew=0.8, label=line, **looks[line])
        axis.fill_between(
            by_round.index, by_round["min"], by_round["max"], color=looks[line]["color"], alpha=0.15, lw=0
        )
    axis.set_ylim(0, top)
    axis.xaxis.get_major_locator().set_params(integer=True)


def _by_round(runs: Runs) -> pandas.DataFrame:
    """line, seed, round, panel, metric, value."""
    parts = [_panels(runs, run) for run in runs if (run.folder / MATRIX_BY_ROUND).is_file()]
    if not parts:
        raise InputError(f"No run has {MATRIX_BY_ROUND}; set questions.kept_rounds in the profile and run again.")
    return pandas.concat(parts, ignore_index=True)


def _scale(data: pandas.DataFrame) -> tuple[str, float | None, str]:
    """How the one measure of all rows is shown, see `SCALES`.

    Raises:
        InputError: there are several, or one that no matrix has.
    """
    metrics = sorted(set(data["metric"]))
    if len(metrics) > 1:
        raise InputError(
            f"The matrices (column metric of {MATRIX}) hold {' and '.join(metrics)}, which have no scale in common; "
            "draw runs with one of them."
        )
    if metrics[0] not in SCALES:
        raise InputError(f"{MATRIX}: metric is {metrics[0]!r}; expected one of {', '.join(SCALES)}.")
    return SCALES[metrics[0]]


def _panels(runs: Runs, run: Run) -> pandas.DataFrame:
    matrix = _cells(run, MATRIX_BY_ROUND, "round")
    names = set(matrix["adapter"])
    label = runs.label(run)
    matrix = matrix.assign(line=matrix["adapter"].map(lambda name: f"{label}, {name}" if len(names) > 1 else label))
    base = _cells(run, MATRIX)
    base = base[base["adapter"] == "base"].assign(line="base", round=0)
    cells = pandas.concat([matrix, base])
    own = cells[(cells["of"] == "") | (cells["of"] == cells["on"])].groupby(["line", "round", "metric"])["value"]
    away = cells[(cells["of"] != "") & (cells["of"] != cells["on"])].groupby(["line", "round", "metric"])["value"]
    parts = [own.mean().rename("home"), own.min().rename("worst"), away.mean().rename("away")]
    long = pandas.concat(parts, axis=1).reset_index().melt(["line", "round", "metric"], var_name="panel")
    return long.dropna(subset="value").assign(seed=run.seed)


def _cells(run: Run, name: str, *further: str) -> pandas.DataFrame:
    """A matrix of a run; of a shared adapter, which is nobody's own, ``of`` is empty."""
    as_written = {"dtype": {"of": str, "on": str, "adapter": str, "metric": str}, "na_values": {"value": ["", "nan"]}}
    return common.read_run_table(run.folder, name, (*further, *COLUMNS), **as_written)


def draw_matrices(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A heat map a method: every adapter of the chosen model on every client's test questions, mean over seeds.

    Raises:
        InputError: see `load_runs`; or matrix.csv is missing, or the runs' hold several measures.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs)
    tables = [_cells(run, MATRIX).assign(method=runs.label(run)) for run in runs]
    data = pandas.concat(tables, ignore_index=True)
    name, top, digits = _scale(data)
    data["row"] = (data["adapter"] + " " + data["of"]).str.strip().map(common.plain)
    mean = data.groupby(["method", "row", "on", "metric"], sort=False)["value"].mean().reset_index()
    methods = list(dict.fromkeys(mean["method"]))
    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)
    figure, axes = common.new_figure(rows, columns, max(3.2 * columns, 6.4), 2.6 * rows + 0.4)
    for axis, method in zip(axes, methods, strict=False):
        table = mean[mean["method"] == method].pivot(index="row", columns="on", values="value")
        shown = {"annot": True, "fmt": digits, "annot_kws": {"size": 7}, "cbar": False, "cmap": "viridis"}
        seaborn.heatmap(table, vmin=0, vmax=top or mean["value"].max(), ax=axis, **shown)
        axis.set(title=method, xlabel="test questions of", ylabel="")
        axis.tick_params(axis="y", rotation=0)
        axis.tick_params(axis="x", rotation=90)  # names of hospitals are wider than cells
    for axis in axes[len(methods) :]:
        axis.set_visible(False)
    text = f"{name}, under the adapter that validation chose; mean over seeds."
    return curves.finish(figure, "question_matrix", mean, runs, text, out_folder)


if __name__ == "__main__":
    common.run_script(draw, __doc__)
