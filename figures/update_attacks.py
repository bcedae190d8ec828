"""What updates give away: the words and pictures that an attack rebuilds, beside floors that saw no update."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
import seaborn
from matplotlib.axes import Axes

from fedmrg_core.evaluation.stored_runs import synthetic_note
from figures import common

NAME = "update_attacks"
KEYS = ["panel", "what", "batch"]
WORDS, CRAFTED, PICTURES = "words", "words, crafted start", "pictures"
TITLES = {
    WORDS: ("Words, honest but curious server", "Share of the tokens found"),
    CRAFTED: ("Words, server that crafts its model", "Share of the tokens found"),
    PICTURES: ("Pictures, honest but curious server", "PSNR in decibels"),
}


def draw(words: pandas.DataFrame, pictures: pandas.DataFrame, out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """Three panels over the number of studies of an update, one local step and no defence.

    Args:
        words: columns of `attack_words`, and seed.
        pictures: columns of `attack_run`, and seed.
        out_folder: where PDF, PNG and CSV are written.
    """
    shown = pandas.concat([_named(words, "tokens"), _named(pictures, "psnr")], ignore_index=True)
    table = shown.groupby(KEYS, sort=False)["value"].agg(["mean", "min", "max", "count"]).reset_index()
    table = table.rename(columns={"count": "seeds"})
    figure, axes = common.new_figure(1, 3, 11.0, 3.2)
    for axis, (panel, (title, label)) in zip(axes, TITLES.items(), strict=True):
        _lines(axis, table[table["panel"] == panel])
        axis.set(title=title, ylabel=label, xlabel="Studies of an update")
    seeds = int(table["seeds"].max())
    text = f"One local step; points: means over {seeds} {'seed' if seeds == 1 else 'seeds'}; bars: lowest and highest."
    seaborn.despine(figure)
    text = f"{synthetic_note('phantom')}. {text} Dashed: floors, which saw no update."
    figure.supxlabel(text, fontsize=7, color="0.35")
    return common.save_figure(figure, NAME, table, out_folder)


def _named(table: pandas.DataFrame, value: str) -> pandas.DataFrame:
    """Rows of one local step without a defence, with their panel, what was sent by whom, and the value."""
    rows = table[(table["defence"] == "none") & (table["steps"] == 1)].copy()
    rows["value"] = rows[value]
    if value == "psnr":
        rows["panel"] = PICTURES
        rows["what"] = [_what(each.rebuilt_by, each.method, "") for each in rows.itertuples()]
    else:
        rows["panel"] = rows["server"].map(lambda server: WORDS if server == "curious" else CRAFTED)
        rows["what"] = [_what(each.rebuilt_by, each.method, each.sent) for each in rows.itertuples()]
    return rows[[*KEYS, "seed", "value"]].groupby([*KEYS, "seed"], sort=False, as_index=False).mean()


def _what(rebuilt_by: str, method: str, sent: str) -> str:
    """A line's name; floors are the same for every row of methods."""
    if rebuilt_by in ("attack", "matching"):
        return f"{method}, {sent}" if sent else method
    return f"{method}, {rebuilt_by}" if rebuilt_by == "closed form" else f"floor: {rebuilt_by}"


def _lines(axis: Axes, table: pandas.DataFrame) -> None:
    for name, line in table.groupby("what", sort=False):
        line, floor = line.sort_values("batch"), name.startswith("floor")
        spread = [line["mean"] - line["min"], line["max"] - line["mean"]]
        style: dict[str, object] = {"ls": "--", "color": "0.5", "marker": "x"} if floor else {"marker": "o"}
        axis.errorbar(line["batch"], line["mean"], yerr=spread, label=name, ms=4, lw=1, capsize=2, **style)
    axis.set_xscale("log", base=2)
    batches = sorted(set(table["batch"]))
    axis.set_xticks(batches, [str(batch) for batch in batches], minor=False)
    axis.legend(fontsize=6)


def summary(table: pandas.DataFrame, keys: Sequence[str], values: Sequence[str]) -> pandas.DataFrame:
    """Means over seeds with their standard deviations, a row a case."""
    grouped = table.groupby(list(keys), sort=False, dropna=False)
    found = grouped[list(values)].mean()
    for value in values:
        found[f"{value}_sd_of_seeds"] = grouped[value].std()
    found["seeds"] = grouped["seed"].nunique()
    return found.reset_index()
