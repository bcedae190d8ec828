"""Rank and bits: quality and bytes over the adapter's rank, the payload's bits and the payload's rank."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import load_runs
from figures import common, curves

AXES = {"Rank of the adapter": "adapter.rank", "Bits of a number": "payload.bits", "Rank of an update": "payload.rank"}
MEBIBYTE = 1024**2


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A column for each number: BLEU-4, clinical F1, and bytes of a client and round up and down together.

    Raises:
        InputError: see `load_runs` and `curves.one_at_a_time`; or none of the three numbers takes two values.
    """
    runs = load_runs(common.check_runs(run_folders), varying=["adapter.rank"])
    data = curves.one_at_a_time(runs, AXES)
    shown = [name for name in AXES if name in set(data["axis"])]
    if not shown:
        raise InputError(f"None of {', '.join(AXES.values())} takes two values in these runs; give runs that differ.")
    figure, axes = common.new_figure(3, len(shown), 2.6 * len(shown) + 1.6, 6.4, sharey="row")
    for column, name in enumerate(shown):
        part = data[data["axis"] == name]
        panels = axes[column :: len(shown)]
        for axis, metric in zip(panels, curves.SHOWN, strict=False):
            curves.draw_lines(axis, part, metric)
        _draw_bytes(panels[-1], part)
        for axis in panels:
            axis.set_xscale("log", base=2)
            axis.set_xticks(sorted(set(part["x"])), [f"{x:g}" for x in sorted(set(part["x"]))])
            axis.set(xlabel=name if axis is panels[-1] else "", ylabel=axis.get_ylabel() if column == 0 else "")
    curves.legend_beside(axes)
    text = (
        f"Test studies; {curves.interval_text(runs)}; bytes measured on the wire.\n"
        f"Along an axis the {curves.held_text(data)}."
    )
    return curves.finish(figure, "rank_and_bits", data, runs, text, out_folder)


def _draw_bytes(axis: common.Axes, part: pandas.DataFrame) -> None:
    looks = curves.styles(sorted(set(part["line"])))
    for line, rows in part.drop_duplicates(["line", "x"]).groupby("line"):
        look = {**looks[line], "ls": "-", "mfc": looks[line]["color"]}
        axis.plot(rows["x"], (rows["bytes_up"] + rows["bytes_down"]) / MEBIBYTE, ms=4, lw=1.2, **look)
    axis.set_yscale("log")
    axis.set_ylabel("Up and down, MiB\na client and round")


if __name__ == "__main__":
    common.run_script(draw, __doc__)
