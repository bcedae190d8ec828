"""Communication: bytes on the wire by round and module, up and down, from ledger.csv."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
import seaborn

from fedmrg_core.errors import InputError
from figures import common

WHOLE_MESSAGE = "message"
SMALLEST_SHARE = 0.005  # modules below this share of a run's bytes are drawn together
REST = "all else"
DIRECTIONS = {"up": "Up: clients to server", "down": "Down: server to clients"}
CAPTION = "Measured on the serialised messages, training and validation."
TO_SEE = (
    "The height of a bar is what one round costs, its colours which parts of the model travelled. A part that "
    "the legend does not name stayed where it was."
)
_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "bytes"))


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """One figure a run: stacked bars, one a round, for each direction; the CSV keeps every module by itself.

    Raises:
        InputError: ledger.csv is missing or holds no module's bytes.
    """
    runs = common.check_runs(run_folders)
    return [path for run in runs for path in _draw_run(run, runs, out_folder)]


def _draw_run(run: pathlib.Path, runs: Sequence[pathlib.Path], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    data = _by_module(run)
    stacked = data.pivot_table("bytes", ["direction", "round"], "drawn_as", "sum", fill_value=0)
    order = stacked.sum().sort_values(ascending=False, kind="stable").index.tolist()
    order = [name for name in order if name != REST] + [name for name in order if name == REST]
    size, unit = next((s, u) for s, u in _UNITS if stacked.sum(axis=1).max() >= s or s == 1)
    figure, axes = common.new_figure(1, 2, 7.6, 2.9, sharey=True)
    colours = seaborn.color_palette(common.PALETTE, max(len(order), 1))
    for axis, (direction, title) in zip(axes, DIRECTIONS.items(), strict=True):
        if direction in stacked.index.get_level_values("direction"):
            bars = stacked.loc[direction]
            bottom = pandas.Series(0.0, index=bars.index)
            for module, colour in zip(order, colours, strict=True):
                axis.bar(bars.index, bars[module] / size, 0.8, bottom, color=colour, label=module.replace("_", " "))
                bottom += bars[module] / size
        axis.set(title=title, xlabel="Round")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel(f"All clients together ({unit})")
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes), key=lambda pair: len(pair[0]))
    axes[-1].legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.02, 1.0), title="Module")
    seaborn.despine(figure)
    common.caption(figure, CAPTION, [run])
    return common.save_figure(figure, common.figure_name("communication", run, runs), data, out_folder)


def _by_module(run: pathlib.Path) -> pandas.DataFrame:
    ledger = common.read_run_table(run, "ledger.csv", ("round", "client", "direction", "module", "bytes"))
    modules = ledger[ledger["module"] != WHOLE_MESSAGE]
    if modules.empty:
        raise InputError(f"{run / 'ledger.csv'} has no rows of modules; expected bytes by module.")
    data = modules.groupby(["round", "direction", "module"], as_index=False)["bytes"].sum()
    share = data.groupby("module")["bytes"].sum() / data["bytes"].sum()
    small = set(share[share < SMALLEST_SHARE].index)
    return data.assign(drawn_as=[REST if module in small else module for module in data["module"]])


if __name__ == "__main__":
    common.run_script(draw, __doc__)
