"""What updates give away: the words, findings and pictures that come back from one, beside floors that saw none."""

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
WORDS, CRAFTED, FINDINGS, PICTURES = "words", "words, crafted start", "findings", "pictures"
TITLES = {
    WORDS: ("Words, honest but curious server", "Share of the tokens found"),
    CRAFTED: ("Words, server that crafts its model", "Share of the tokens found"),
    FINDINGS: ("Findings, honest but curious server", "F1 of findings that occur"),
    PICTURES: ("Pictures, honest but curious server", "PSNR in decibels"),
}


def draw(
    words: pandas.DataFrame, findings: pandas.DataFrame, pictures: pandas.DataFrame, out_folder: pathlib.Path | str
) -> list[pathlib.Path]:
    """Four panels over the number of studies of an update, one local step and no defence.

    Args:
        words: columns of `attack_words`, and seed.
        findings: columns of `attack_findings`, and seed.
        pictures: columns of `attack_run`, and seed.
        out_folder: where PDF, PNG and CSV are written.
    """
    parts = _named(words, "tokens"), _named(findings, "occurring"), _named(pictures, "psnr")
    shown = pandas.concat(parts, ignore_index=True)
    table = shown.groupby(KEYS, sort=False)["value"].agg(["mean", "min", "max", "count"]).reset_index()
    table = table.rename(columns={"count": "seeds"})
    figure, axes = common.new_figure(2, 2, 8.5, 6.0)
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
    if value != "tokens":
        rows["panel"] = PICTURES if value == "psnr" else FINDINGS
        rows["what"] = [_what(each.rebuilt_by, each.method, "") for each in rows.itertuples()]
    else:
        rows["panel"] = rows["server"].map(lambda server: WORDS if server == "curious" else CRAFTED)
        rows["what"] = [_what(each.rebuilt_by, each.method, each.sent) for each in rows.itertuples()]
    return rows[[*KEYS, "seed", "value"]].groupby([*KEYS, "seed"], sort=False, as_index=False).mean()


def _what(rebuilt_by: str, method: str, sent: str) -> str:
    """A line's name; floors are the same for every row of methods."""
    if rebuilt_by in ("attack", "matching"):
        return f"{method}, {sent}" if sent else method
    attack = rebuilt_by in ("closed form", "table of prompts", "bias of the head")
    return f"{method}, {rebuilt_by}" if attack else f"floor: {rebuilt_by}"


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
