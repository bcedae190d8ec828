"""What notebook 10 shows of sources of prompts: tables and figures of the runs there are, or nothing."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from fedmrg_core.evaluation import comparison, prompt_table, table_writers
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from fedmrg_core.tasks.reports import prompt_cells
from fedmrg_core.tasks.reports.measures import REFERENCE
from figures import prompt_curves, prompt_sources
from figures.showing import Benchmark, show_table

ROWS = "mrg-llm"  # in the name of every row that only these experiments ask for


def show_sources(benchmark: Benchmark, experiment: str) -> None:
    """Tables and figure of an experiment of sources against what else is trained, named after it."""
    if not benchmark.holds(experiment, ROWS):
        return
    folders = benchmark.stored(experiment)
    runs = load_runs(folders, same_code=benchmark.same_code)
    for paths in write_tables(runs, benchmark.out, experiment):
        show_table(paths)
    data = experiment.removesuffix(ROWS).replace("-", "_")
    benchmark.show(prompt_sources.draw, folders, name=f"{data}prompt_sources")


def show_curves(benchmark: Benchmark, experiment: str) -> None:
    """The figure of an experiment of numbers of prompts, widths and shares of the studies."""
    if benchmark.holds(experiment, ROWS):
        benchmark.show(prompt_curves.draw, benchmark.stored(experiment))


def write_tables(runs: Runs, out_folder: pathlib.Path, name: str) -> list[list[pathlib.Path]]:
    """Write the cells, and what of these has runs to compare.

    They are NAME; NAME-against-fedmrg, every cell; NAME-order, customised, static and no prompts; NAME-centralised, all
    studies in one place and in hospitals; NAME-alignment, with and without it.
    """
    cells, metrics = prompt_cells.prompt_cells(), prompt_cells.SHOWN
    everywhere = {**cells, **prompt_cells.prompt_cells(prompt_cells.CENTRALISED)}
    table = prompt_table.cell_table(runs, everywhere, metrics)
    written = [prompt_table.write_cells(table, runs, metrics, out_folder, name)]
    compared = {
        f"{name}-against-{REFERENCE}": [(REFERENCE, other) for other in cells if other != REFERENCE],
        f"{name}-order": prompt_cells.order_of_sources(),
        f"{name}-centralised": prompt_cells.centralised_pairs(),
    }
    for file, pairs in compared.items():
        found = prompt_table.differences(runs, pairs)
        if len(found):
            written.append(prompt_table.write_differences(found, runs, metrics, out_folder, file))
    return [*written, *_alignment(runs, out_folder, f"{name}-alignment", prompt_cells.ALIGNMENT)]


def _alignment(runs: Runs, out_folder: pathlib.Path, name: str, rows: Sequence[str]) -> list[list[pathlib.Path]]:
    there = prompt_table.of_rows(runs, rows)
    if len({run.method for run in there}) < 2:
        return []
    table = comparison.main_table(there, rows[0], floors=False)
    notes = {"measures": runs.measures, "notes": runs.notes}
    return [
        table_writers.write_comparison(table, out_folder, name, against=rows[0], differences=True, **notes),
    ]
