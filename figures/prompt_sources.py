"""Sources of prompts: quality of every source, by what else is trained, each seed a point."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import pandas
from matplotlib.axes import Axes

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.prompt_table import of_rows, seed_values
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from fedmrg_core.tasks.reports import prompt_cells
from fedmrg_core.tasks.reports.measures import CLINICAL_F1, MEASURES, REFERENCE
from figures import common, curves

PANELS = (("home", CLINICAL_F1), ("unseen", CLINICAL_F1), ("home", "cider"), ("home", "bleu_4"))
COLUMNS = ("setting", "source", "besides", "method", "role", "metric", "seed", "value")
_STYLES = dict(
    zip(
        [*prompt_cells.BASES, *prompt_cells.CENTRALISED],
        [
            {"color": "#117733", "marker": "o"},
            {"color": "#CC6677", "marker": "s"},
            {"color": "#332288", "marker": "D"},
            {"color": "0.45", "marker": "o", "mfc": "white"},
        ],
        strict=True,
    )
)


def draw(
    run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str, name: str = "prompt_sources"
) -> list[pathlib.Path]:
    """Panels: clinical F1 at home and on the unseen centre, CIDEr and BLEU-4 at home; a source without runs is blank.

    Where no centre is held out, there is no panel of it.

    Raises:
        InputError: see `load_runs`; there are several settings, or no run is of a cell of the table.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs)
    cells = {**prompt_cells.prompt_cells(), **prompt_cells.prompt_cells(prompt_cells.CENTRALISED)}
    shown = of_rows(runs, cells)
    if not len(shown):
        raise InputError("None of these runs is of a source of prompts; give some of experiment mrg-llm's.")
    data = _values(shown, cells)
    panels = [panel for panel in PANELS if (data[["role", "metric"]] == panel).all(axis=1).any()]
    shape = (2, 2, 8.6, 6.2) if len(panels) == len(PANELS) else (1, len(panels), 3.5 * len(panels), 3.4)
    figure, axes = common.new_figure(*shape, sharey=True)
    for axis, (role, metric) in zip(axes, panels, strict=True):
        _panel(axis, data[(data["role"] == role) & (data["metric"] == metric)])
        axis.set_title(f"{MEASURES[metric]}, {curves.ROLES[role]}")
    curves.legend_beside(axes, "Trained besides")
    text = (
        "Test studies; large: mean over seeds, small: each seed; further right is better.\n"
        f"Star and line: {REFERENCE}'s own row. A cell without a mark has no run."
    )
    return curves.finish(figure, name, data, shown, text, out_folder)


def _values(runs: Runs, cells: dict[str, tuple[str, str]]) -> pandas.DataFrame:
    groups = runs.groups()
    rows = [
        (setting, *cells[method], method, role, metric, run.seed, value)
        for setting in runs.settings
        for method in cells
        for group in [groups.get((setting, method), [])]
        for role, metric in PANELS
        for run, value in zip(group, seed_values(group, role, metric), strict=False)
    ]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def _panel(axis: Axes, rows: pandas.DataFrame) -> None:
    sources = prompt_cells.SOURCES
    for place in range(0, len(sources), 2):
        axis.axhspan(place - 0.5, place + 0.5, color="0.95", lw=0, zorder=0)
    for (source, besides), cell in rows.groupby(["source", "besides"], sort=False):
        height = sources.index(source) + 0.2 * (list(_STYLES).index(besides) - (len(_STYLES) - 1) / 2)
        look: dict[str, Any] = {"ls": "", **_STYLES[besides]}
        axis.plot(cell["value"], [height] * len(cell), **{**look, "ms": 2.5, "alpha": 0.5}, zorder=2)
        mean = cell["value"].mean()
        if cell["method"].iloc[0] == REFERENCE:
            axis.axvline(mean, color="black", lw=0.8, ls=":", zorder=1)
            look |= {"marker": "*", "color": "black", "ms": 10}
            besides = f"{besides}: {REFERENCE}"
        axis.plot(mean, height, **{"ms": 5.5, **look}, label=besides, zorder=3)
    axis.set_yticks(range(len(sources)), sources)
    axis.set_ylim(len(sources) - 0.5, -0.5)


if __name__ == "__main__":
    common.run_script(draw, __doc__)
