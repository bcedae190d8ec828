"""Degree of heterogeneity: quality over the strength of image style, of wording, and of both."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas

from fedmrg_core.data.sources import read_name
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.evaluation.stored_runs import Run
from figures import common, curves

PANELS = {"image": "Image style (wording alike)", "wording": "Wording (images alike)", "both": "Both"}


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A column each for image style, wording and both, a line a method; every strength is data of its own.

    Raises:
        InputError: see `load_runs`; the data have no strengths, or too few of them; or they are dealt in several ways.
    """
    runs = load_runs(common.check_runs(run_folders))
    curves.one_setting(runs, data="phantom")
    tables = {name: curves.points(runs, lambda run, name=name: strength(run, name), "strength") for name in PANELS}
    data = pandas.concat([table.assign(panel=name) for name, table in tables.items()], ignore_index=True)
    shown = [name for name in PANELS if tables[name]["strength"].nunique() > 1]
    if not shown:
        raise InputError(
            "The runs' data have no two strengths of image style or wording; give runs that differ in them."
        )
    figure, axes = common.new_figure(len(curves.SHOWN), len(shown), 2.6 * len(shown) + 1.6, 4.6, sharey="row")
    panels = [(metric, name) for metric in curves.SHOWN for name in shown]
    for axis, (metric, name) in zip(axes, panels, strict=True):
        curves.draw_lines(axis, tables[name], metric, "strength")
        last = metric == curves.SHOWN[-1]
        axis.set(xlabel="Strength" if last else "", title="" if last else PANELS[name])
        axis.set_ylabel(axis.get_ylabel() if name == shown[0] else "")
    curves.legend_beside(axes)
    text = f"Test studies; {curves.interval_text(runs)}; strength 1: the data as they are otherwise used."
    return curves.finish(figure, "heterogeneity_degree", data, runs, text, out_folder)


def strength(run: Run, panel: str) -> float | None:
    """Where a run stands in a panel, by its data's name in config.yaml; None if it is not in it."""
    base, options = read_name(run.configuration.data)
    if base != "phantom":
        raise InputError(f"{run.folder}: data {base!r} have no strength of heterogeneity; give runs on phantom data.")
    image, wording = (options.get(name, 1.0) for name in ("image_strength", "wording_strength"))
    if panel == "both":
        return image if image == wording else None
    varied, other = (image, wording) if panel == "image" else (wording, image)
    return varied if other == 0 else None


if __name__ == "__main__":
    common.run_script(draw, __doc__)
