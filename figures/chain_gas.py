"""Gas: what each function of the contract takes, and what a round of a run with identities takes in all."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
import seaborn

from figures import common

GAS, COLUMNS = "gas.csv", ("round", "function", "transactions", "gas")
TEXT = "Units of gas of the run's transactions; round 0: deployment, identities and the run, before the first round."


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A panel of gas a transaction by function, and one of gas by round, a bar a run in each.

    Raises:
        InputError: a folder is none, or is of a run without identities.
    """
    folders = common.check_runs(run_folders)
    data = pandas.concat([_gas(folder, folders) for folder in folders], ignore_index=True)
    figure, axes = common.new_figure(1, 2, 7.6, 2.8)
    hue = {"hue": "run"} if len(folders) > 1 else {}
    one = by_function(data).reset_index()
    seaborn.barplot(one, y="function", x="gas a transaction", ax=axes[0], legend=False, **hue)
    rounds = data.groupby(["run", "round"], as_index=False)["gas"].sum()
    seaborn.barplot(rounds, x="round", y="gas", ax=axes[1], **hue)
    for bars in axes[0].containers:
        axes[0].bar_label(bars, fmt="{:,.0f}", fontsize=7, padding=2)
    axes[0].set(xlabel="Gas a transaction", ylabel="", xticks=[])
    axes[0].margins(x=0.2)  # room for the numbers
    axes[1].set(xlabel="Round", ylabel="Gas in all")
    axes[1].yaxis.set_major_formatter("{x:,.0f}")
    seaborn.despine(figure)
    common.caption(figure, TEXT, folders)
    return common.save_figure(figure, "chain_gas", data, out_folder)


def by_function(data: pandas.DataFrame) -> pandas.DataFrame:
    """Transactions, gas in all and gas a transaction by run and function, the dearest first.

    Args:
        data: gas.csv's columns, and run.
    """
    sums = data.groupby(["run", "function"])[["transactions", "gas"]].sum()
    sums["gas a transaction"] = (sums["gas"] / sums["transactions"]).round().astype(int)
    return sums.sort_values(["gas a transaction", "function"], ascending=[False, True])


def _gas(folder: pathlib.Path, folders: Sequence[pathlib.Path]) -> pandas.DataFrame:
    table = common.read_run_table(folder, GAS, COLUMNS)
    return table.assign(run=common.run_label(folder) if len(folders) > 1 else "run")


if __name__ == "__main__":
    common.run_script(draw, __doc__)
