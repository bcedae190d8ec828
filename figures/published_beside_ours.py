"""The published numbers beside ours [secondary]: other data and another scale, so only the order may compare."""

from __future__ import annotations

import pathlib
import textwrap
from collections.abc import Sequence

import scipy.stats

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.comparison import estimates
from fedmrg_core.evaluation.published import published_note, published_table, published_tag
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.tasks.reports.measures import MEASURES
from figures import common, curves


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A panel a measure: published value across, ours at home upwards, with Spearman's rank correlation.

    Raises:
        InputError: see `load_runs`; there are several settings, or no method of the published table.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs)
    ours = estimates(runs).query("role == 'home'")
    published = published_table().drop(columns="parameters_sent").rename(columns={"value": "published_secondary"})
    data = ours.merge(published, on=["method", "metric"]).query("metric in @curves.SHOWN").reset_index(drop=True)
    if data.empty:
        raise InputError("None of these runs is of a method in the published table; give runs of the main table.")
    figure, axes = common.new_figure(1, len(curves.SHOWN), 8.6, 3.4)
    looks = curves.styles(sorted(set(data["method"])))
    for axis, metric in zip(axes, curves.SHOWN, strict=True):
        rows = data[data["metric"] == metric]
        for row in rows.index:
            one = rows.loc[[row]]
            name = one["method"].item()
            curves.error_bars(axis, one["published_secondary"], one, label=name, **{**looks[name], "ls": ""})
        axis.set(xlabel=f"{MEASURES[metric]}, published {published_tag()}", ylabel=f"{MEASURES[metric]}, here")
        if len(rows) > 2:
            rank = scipy.stats.spearmanr(rows["published_secondary"], rows["value"]).statistic
            axis.set_title(f"rank correlation {rank:.2f}, {len(rows)} methods")
    curves.legend_beside(axes)
    text = f"Test studies at home; {curves.interval_text(runs)}.\n{textwrap.fill(published_note(), 130)}"
    return curves.finish(figure, "published_beside_ours", data, runs, text, out_folder)


if __name__ == "__main__":
    common.run_script(draw, __doc__)
