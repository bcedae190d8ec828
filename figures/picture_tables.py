"""What notebook 10 shows of visual prompts: the table of all methods, what they send against full, and curves."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas

from fedmrg_core.evaluation import comparison
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from fedmrg_core.evaluation.table_writers import (
    EMPTY,
    Cell,
    Page,
    bytes_cell,
    data_notes,
    write_comparison,
    write_pages,
)
from figures import picture_curves
from figures.quality_against_bytes import by_data
from figures.showing import Benchmark, show_table

WHOLE = "full"  # the row that bytes are held against


def show_methods(benchmark: Benchmark, *experiments: str) -> None:
    """Tables of each experiment's runs, named after it; nothing where none is there."""
    for name in experiments:
        if benchmark.holds(name, ""):
            for paths in write_methods(benchmark.stored(name), benchmark.out, name, benchmark.same_code):
                show_table(paths)


def show_curves(benchmark: Benchmark, *experiments: str) -> None:
    """The figure of shares of the pictures and numbers of prompts; nothing where no run is there."""
    if any(benchmark.holds(name, "") for name in experiments):
        benchmark.show(picture_curves.draw, benchmark.stored(*experiments))


def write_methods(
    folders: Sequence[pathlib.Path], out_folder: pathlib.Path, name: str, same_code: bool = False
) -> list[list[pathlib.Path]]:
    """Write NAME, every measure with its test against the generator, and NAME-bytes, what is sent for it.

    Raises:
        InputError: see `load_runs`.
    """
    loaded = [load_runs(group, same_code=same_code) for group in by_data(folders).values()]
    table = pandas.concat([comparison.main_table(runs) for runs in loaded], ignore_index=True)
    measures = loaded[0].measures
    notes = list(dict.fromkeys(note for runs in loaded for note in runs.notes))
    known = table.dropna(subset=["value"])
    compared = write_comparison(known, out_folder, name, measures=measures, notes=notes, differences=True)
    sent = byte_table(known[known["metric"].isin(measures.tested)])
    pages = [_page(part, str(setting), loaded[0]) for setting, part in sent.groupby("setting", sort=False)]
    below = [
        *data_notes(sent["setting"]),
        f"Up: bytes on the wire of one client in one round; beside it as a share of those of {WHOLE}.",
        *notes,
    ]
    return [compared, write_pages(sent, out_folder, f"{name}-bytes", pages, below)]


def byte_table(table: pandas.DataFrame) -> pandas.DataFrame:
    """One row a setting and method of a long table of one measure each: home, unseen, bytes_up, against_full.

    `against_full` is blank where `WHOLE` is not there, or the method sends no model.
    """
    rows = []
    for (setting, method), part in table.groupby(["setting", "method"], sort=False):
        values = part.set_index("role")["value"]
        first = part.iloc[0]
        sent = first["bytes_up"] if first["exchange"] == "federated" else float("nan")
        roles = {role: values.get(role, float("nan")) for role in ("home", "unseen")}
        rows.append({"setting": setting, "method": method, "metric": first["metric"], **roles, "bytes_up": sent})
    found = pandas.DataFrame(rows)
    whole = found[found["method"] == WHOLE].set_index("setting")["bytes_up"]
    return found.assign(against_full=found["bytes_up"] / found["setting"].map(whole))


def _page(part: pandas.DataFrame, setting: str, runs: Runs) -> Page:
    name = runs.measures.names[part["metric"].iloc[0]]
    header = ("Method", f"{name}, home", "Unseen centre", "Up", f"Of {WHOLE}")
    rows = tuple(
        (
            Cell(row.method), _number(row.home), _number(row.unseen), bytes_cell(row.bytes_up),
            Cell(EMPTY if pandas.isna(row.against_full) else f"{row.against_full:.1%}"),
        )
        for row in part.itertuples()
    )  # fmt: skip
    return Page(setting, header, rows, frozenset())


def _number(value: float) -> Cell:
    return Cell(EMPTY if pandas.isna(value) else f"{value:.3f}")
