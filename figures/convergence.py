"""Convergence: validation measures by round and client, from rounds.csv."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
import seaborn

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.stored_runs import data_of
from figures import common

MEASURES = {
    "validation_language_loss": "Language loss (nats a token)",
    "validation_head_auroc": "AUROC of the diagnosis head",
    "validation_head_f1_micro_14": "Micro F1 of the diagnosis head",
}

_CAPTION = "Validation studies; {lines}. Language loss: with predicted prompts where the method has prompts."
CAPTION = _CAPTION.format(lines="clients and their mean")
TO_SEE = (
    "A loss that falls and flattens has been trained long enough; one that still falls at the last round has not. "
    "A line far from the others is a hospital that the shared model serves less well."
)


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """One panel a measure. One run: a line for each client and their mean; several: each run's mean and range.

    Raises:
        InputError: rounds.csv is missing or holds no validation measure, or two runs are on different data.
    """
    runs = common.check_runs(run_folders)
    _check_data(runs)
    data = pandas.concat([_long_table(run) for run in runs], ignore_index=True)
    measures = [measure for measure in MEASURES if measure in set(data["measure"])]
    figure, axes = common.new_figure(1, len(measures), 3.1 * len(measures) + 1.0, 2.8)
    for axis, measure in zip(axes, measures, strict=True):
        shown = data[data["measure"] == measure]
        last = axis is axes[-1]
        if len(runs) == 1:
            clients = [common.plain(client) for client in sorted(set(data["client"]))]
            shown = shown.assign(client=shown["client"].map(common.plain))
            seaborn.lineplot(
                shown, x="round", y="value", hue="client", hue_order=clients, palette=common.PALETTE, ax=axis,
                legend=last, lw=1.2, marker="o", ms=3,
            )  # fmt: skip
            seaborn.lineplot(
                shown, x="round", y="value", errorbar=None, color="black", lw=2, ls="--", ax=axis,
                label="mean" if last else None, legend=last,
            )  # fmt: skip
        else:
            seaborn.lineplot(shown, x="round", y="value", hue="run", errorbar=("pi", 100), ax=axis, legend=last)
        axis.set(xlabel="Round", ylabel=MEASURES[measure])
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), title="Client" if len(runs) == 1 else "Run")
    seaborn.despine(figure)
    caption = CAPTION if len(runs) == 1 else _CAPTION.format(lines="mean over clients, band: their range")
    common.caption(figure, caption, runs)
    return common.save_figure(figure, "convergence", data, out_folder)


def _check_data(runs: Sequence[pathlib.Path]) -> None:
    first, *others = runs
    for run in others:
        if data_of(first) != data_of(run):
            raise InputError(
                f"{first} and {run} were made with different data (data_fingerprint in manifest.json); draw them apart."
            )


def _long_table(run: pathlib.Path) -> pandas.DataFrame:
    rounds = common.read_run_table(run, "rounds.csv", ("round", "client"))
    present = [measure for measure in MEASURES if measure in rounds]
    table = (
        rounds.melt(["round", "client"], present, "measure", "value")
        .dropna(subset="value")
        .sort_values(["round", "client"], kind="stable")
    )
    if table.empty:
        raise InputError(f"{run / 'rounds.csv'} has none of the measures {', '.join(MEASURES)}; train the run first.")
    table.insert(0, "run", common.run_label(run))
    return table


if __name__ == "__main__":
    common.run_script(draw, __doc__)
