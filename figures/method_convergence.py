"""Convergence of several methods: validation measures by round, mean over clients, range over seeds."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
from matplotlib.ticker import LogLocator, NullLocator

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from figures import common, curves
from figures.convergence import MEASURES


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A panel a measure, a line a method, a band from the lowest to the highest seed.

    Raises:
        InputError: see `load_runs`; or rounds.csv is missing or holds no validation measure.
    """
    runs = load_runs(common.check_runs(run_folders))
    data = _by_round(runs)
    measures = [measure for measure in MEASURES if measure in set(data["measure"])]
    figure, axes = common.new_figure(1, len(measures), max(3.1 * len(measures) + 1.6, 6.4), 3.6)
    looks = curves.styles(sorted(set(data["line"])))
    for axis, measure in zip(axes, measures, strict=True):
        for line, rows in data[data["measure"] == measure].groupby("line"):
            by_round = rows.groupby("round")["value"].agg(["mean", "min", "max"])
            axis.plot(by_round.index, by_round["mean"], lw=1.2, ms=3.5, mew=0.8, label=line, **looks[line])
            axis.fill_between(
                by_round.index, by_round["min"], by_round["max"], color=looks[line]["color"], alpha=0.15, lw=0
            )
        axis.set(xlabel="Round", ylabel=MEASURES[measure])
        if "loss" in measure:  # models trained whole begin far above those on a pretrained LLM
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.yaxis.set_minor_locator(NullLocator())
        axis.xaxis.get_major_locator().set_params(integer=True)
    curves.legend_beside(axes)
    text = "Validation studies; mean over clients and seeds, band: range over seeds. Language loss in nats a token"
    prompted = dict.fromkeys(runs.label(run) for run in runs if "diagnosis_head" in run.configuration.method.modules)
    text += f";\nthat of {', '.join(prompted)} with predicted prompts, wrong ones among them." if prompted else "."
    return curves.finish(figure, "method_convergence", data, runs, text, out_folder)


def _by_round(runs: Runs) -> pandas.DataFrame:
    tables = []
    for run in runs:
        rounds = common.read_run_table(run.folder, "rounds.csv", ("round", "client"))
        present = [measure for measure in MEASURES if measure in rounds]
        means = rounds.groupby("round")[present].mean().reset_index().melt("round", var_name="measure")
        tables.append(means.dropna(subset="value").assign(line=runs.label(run), setting=run.setting, seed=run.seed))
    data = pandas.concat(tables, ignore_index=True)
    if data.empty:
        raise InputError(f"No rounds.csv of these runs has any of {', '.join(MEASURES)}; train the runs first.")
    if data["setting"].nunique() > 1:
        data["line"] = data["line"] + ", " + data["setting"]
    return data


if __name__ == "__main__":
    common.run_script(draw, __doc__)
