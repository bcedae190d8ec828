"""Participation: quality over the share of the clients that train in a round."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any

import pandas

from fedmrg_core.evaluation.run_sets import Runs, load_runs
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.federation.round_record import NOT_VALIDATED, OK
from figures import common, curves

KEY = "federation.participation"
STATISTICS = "training.own_statistics"  # BatchNorm's: a client's own ones grow old between two rounds that it trains in
_CAPTION_WIDTH = 110  # characters


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A panel a measure, a line a method and kind of BatchNorm statistics at home; the caption says who trained.

    Raises:
        InputError: see `load_runs`; there are several settings, two points at one share of a line, or no rounds.csv.
    """
    runs = load_runs(common.check_runs(run_folders), varying=[KEY, STATISTICS])
    curves.one_setting(runs)
    training = _training(runs)
    points = curves.points(runs, _share, "participation", _line)
    means = training.groupby("method", as_index=False)[["client_updates", "clients", "never_trained"]].mean()
    data = points.merge(means, on="method")
    figure, axes = common.new_figure(1, len(curves.SHOWN), 7.6, 2.8)
    for axis, metric in zip(axes, curves.SHOWN, strict=True):
        curves.draw_lines(axis, data, metric, "participation")
        axis.set_xlabel("Share of the clients in a round")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    curves.legend_beside(axes)
    text = f"Test studies; {curves.interval_text(runs)}.\n{_training_text(training)}"
    return curves.finish(figure, "participation", data, runs, text, out_folder)


def _share(run: Run) -> float:
    return run.content()[KEY]


def _line(run: Run) -> str:
    return f"{run.method}, pooled statistics" if run.content()[STATISTICS] is False else run.method


def _training(runs: Runs) -> pandas.DataFrame:
    """A row a run: label, participation, client updates that its rounds took, clients, and clients that gave none."""
    rows = []
    for run in runs:
        rounds = common.read_run_table(run.folder, "rounds.csv", ("round", "client", "status"))
        updates = rounds.loc[rounds["status"].isin([OK, NOT_VALIDATED]), "client"]
        clients = rounds["client"].nunique()
        rows.append((runs.label(run), _share(run), len(updates), clients, clients - updates.nunique()))
    return pandas.DataFrame(rows, columns=["method", "participation", "client_updates", "clients", "never_trained"])


def _training_text(training: pandas.DataFrame) -> str:
    """What the runs of each share trained, for a caption; runs that did not do the same are told apart by "or"."""
    texts = []
    for share, rows in training.sort_values("participation", ascending=False).groupby("participation", sort=False):
        each = rows.drop_duplicates(["client_updates", "clients", "never_trained"]).sort_values("client_updates")
        told = [f"{row.client_updates} client updates, {_who_trained(row)}" for row in each.itertuples()]
        texts.append(f"at {share:.0%} {' or '.join(told)}")
    return textwrap.fill(f"In all rounds of a run: {'; '.join(texts)}.", _CAPTION_WIDTH)


def _who_trained(row: Any) -> str:
    if row.never_trained:
        return f"{row.never_trained} of {row.clients} clients never trained"
    return f"all {row.clients} clients trained"


if __name__ == "__main__":
    common.run_script(draw, __doc__)
