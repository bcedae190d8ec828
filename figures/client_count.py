"""Number of clients: quality over K, and its change beside the published one [secondary]."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
from matplotlib.axes import Axes

from fedmrg_core.evaluation.published import published_client_curve, published_tag
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.tasks.reports.measures import REFERENCE
from figures import common, curves

COMPARED_AT = 5  # clients; the publication's default


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A panel a measure, a line a method; and BLEU-1 + BLEU-4 against their value at five clients.

    Raises:
        InputError: see `load_runs`; there are several data or partitions; or two runs of a method with as many clients
            differ in more than the seed.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs, clients=None)
    data = curves.points(runs, clients_of, "clients")
    figure, axes = common.new_figure(1, len(curves.SHOWN) + 1, 10.4, 2.8)
    for axis, metric in zip(axes, curves.SHOWN, strict=False):
        curves.draw_lines(axis, data, metric, "clients")
    curves.legend_beside(axes[: len(curves.SHOWN)])
    data = pandas.concat([data, _draw_change(axes[-1], data)], ignore_index=True)
    for axis in axes:
        axis.set_xlabel("Clients")
        axis.xaxis.get_major_locator().set_params(integer=True)
    text = (
        f"Test studies; {curves.interval_text(runs)}. {published_tag()}: transcribed from a follow-up paper; "
        "MIMIC-CXR, models of another scale."
    )
    return curves.finish(figure, "client_count", data, runs, text, out_folder)


def clients_of(run: Run) -> int:
    """The number of clients that config.yaml asks for, or that the data's sites made."""
    scopes = run.metrics.loc[run.metrics["system"] == "model", "scope"]
    return run.configuration.clients or len(set(scopes) - set(curves.ROLES))


def _draw_change(axis: Axes, data: pandas.DataFrame) -> pandas.DataFrame:
    """BLEU-1 + BLEU-4 of the method itself at home, and the published curve, both less their value at five clients."""
    home = data[(data["line"] == REFERENCE) & (data["role"] == "home") & data["metric"].isin(["bleu_1", "bleu_4"])]
    own = home.groupby("clients")["value"].sum()
    published = published_client_curve().set_index("clients")["value"]
    named = {"this repository": own, f"published {published_tag()}": published}
    parts = []
    for (name, curve), look in zip(named.items(), ("o-", "s:"), strict=True):
        if COMPARED_AT in curve.index:
            change = curve - curve[COMPARED_AT]
            axis.plot(change.index, change, look, color="black" if look == "o-" else "0.5", ms=4, lw=1.2, label=name)
            parts.append(pandas.DataFrame({"line": name, "clients": change.index, "value": change.to_numpy()}))
    axis.set_ylabel(f"BLEU-1 + BLEU-4,\nchange from {COMPARED_AT} clients")
    axis.legend(loc="best")
    return pandas.concat(parts).assign(metric="bleu_1 + bleu_4, change")


if __name__ == "__main__":
    common.run_script(draw, __doc__)
