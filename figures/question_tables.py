"""What notebook 10 shows of medical questions: what federation added, in tables and figures of the runs there are."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import pandas

from fedmrg_core.evaluation import federation_gain
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from fedmrg_core.tasks.medical_qa.answering import ELSEWHERE, HERE, PROBABILITY
from fedmrg_core.tasks.medical_qa.measures import BASE_FLOOR, MAIN, MATRIX, MATRIX_BY_ROUND
from figures import question_rounds
from figures.showing import Benchmark, show_table

ASKED = federation_gain.Asked(
    measure=MAIN,
    parts={f"{MAIN}_{HERE}": "Answer held here", f"{MAIN}_{ELSEWHERE}": "Held elsewhere"},
    floor=BASE_FLOOR,
    others=("local", "centralised"),
)
# Where no question has options: how likely a right answer is, and how well one is written.
ASKED_OPEN = dataclasses.replace(ASKED, measure=PROBABILITY, parts={"token_f1": "Token F1"})


def show_gain(benchmark: Benchmark, experiment: str) -> None:
    """Table and figures of an experiment's runs, named after it; nothing where none is there."""
    if not benchmark.holds(experiment, ""):
        return
    folders = benchmark.stored(experiment)
    show_table(write_gain(folders, benchmark.out, experiment, benchmark.same_code))
    kept = [folder for folder in folders if (folder / MATRIX_BY_ROUND).is_file()]
    benchmark.show(question_rounds.draw, kept, least=1)
    benchmark.show(question_rounds.draw_matrices, [f for f in folders if (f / MATRIX).is_file()], least=1)


def show_tables(benchmark: Benchmark, *experiments: str) -> None:
    """The same table of other experiments: models of several sizes, public sets; nothing where none is there."""
    for name in experiments:
        if benchmark.holds(name, ""):
            show_table(write_gain(benchmark.stored(name), benchmark.out, name, benchmark.same_code))


def _asked_of(runs: Runs) -> federation_gain.Asked:
    values = runs.runs[0].values(federation_gain.HOME)["value"]
    return ASKED_OPEN if pandas.isna(values.get(MAIN)) else ASKED


def write_gain(
    folders: Sequence[pathlib.Path], out_folder: pathlib.Path, name: str, same_code: bool = False
) -> list[pathlib.Path]:
    """Write what federation added; runs of several variants stand below each other, each size by itself.

    What is asked is accuracy where there are options, and otherwise the probability of a right answer.

    Raises:
        InputError: see `load_runs`.
    """
    by_variant: dict[str, list[pathlib.Path]] = {}
    for folder in folders:
        by_variant.setdefault(folder.parent.name.partition(",")[2], []).append(folder)
    loaded = {variant: load_runs(group, same_code=same_code) for variant, group in by_variant.items()}
    first = next(iter(loaded.values()))
    values, gains, asked = [], [], _asked_of(first)
    for variant, runs in loaded.items():
        values.append(_named(federation_gain.value_table(runs, asked), variant))
        gains.append(_named(federation_gain.gain_table(runs, asked), variant))
    notes = dict.fromkeys(note for runs in loaded.values() for note in runs.notes)
    together = Runs(first.runs, [*notes])
    tables = pandas.concat(values, ignore_index=True), pandas.concat(gains, ignore_index=True)
    return federation_gain.write_gain(*tables, together, asked, out_folder, name)


def _named(table: pandas.DataFrame, variant: str) -> pandas.DataFrame:
    return table.assign(setting=table["setting"] + f", {variant}") if variant else table
