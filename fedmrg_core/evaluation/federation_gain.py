"""What did federation add: each method beside the floor it started from, hospitals alone, and everything in one place.

Differences are paired study by study, also those of the worst client and of the harmonic mean over clients: a
resample draws studies, and each client's mean is made of those of its own that were drawn. So all of them have an
interval and a test of the same kind [ours].
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
import pandas

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import Runs
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.evaluation.table_writers import (
    EMPTY,
    SIGNIFICANT,
    Cell,
    Page,
    data_notes,
    difference_cell,
    write_pages,
)
from fedmrg_core.metrics.statistics import (
    CONFIDENCE,
    RESAMPLES,
    StudyStatistics,
    difference_statistics,
    exchange_test,
    holm,
    pooled_seeds,
    seed_intervals,
)
from fedmrg_core.runs.measures import numbered
from fedmrg_core.seeds import numpy_stream
from fedmrg_core.training.adapter_names import BOTH, GENERIC, SPECIALISED, answer_label

MEAN, WORST, HARMONIC, DEVIATION = "mean", "worst_client", "harmonic_mean", "deviation"
DIFFERENCE = ("difference", "difference_low", "difference_high", "p_value", "p_holm", "seeds_tested")
HOME = "home"
_ADAPTERS = tuple(answer_label(name) for name in (GENERIC, SPECIALISED, BOTH))  # in the order of rows


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a table asks of the runs.

    Attributes:
        measure: key of the measure, a mean over studies.
        parts: keys of the same over some of the studies, with their column's title.
        floor: system of metrics.csv that a method started from; its answers are stored under its name.
        others: rows that a method is held against as well.
    """

    measure: str
    parts: dict[str, str]
    floor: str
    others: tuple[str, ...]

    @property
    def titles(self) -> dict[str, str]:
        """The columns of means, by key."""
        return {MEAN: "All", **self.parts, WORST: "Worst client", HARMONIC: "Harmonic mean"}


@dataclasses.dataclass(frozen=True)
class _Row:
    """A method's runs that differ in the seed alone, and one of its adapters; None: the one that counts."""

    setting: str
    method: str
    runs: Sequence[Run]
    adapter: str | None = None

    @property
    def title(self) -> str:
        return self.method if self.adapter is None else f"{self.method}, {self.adapter}"


def _rows(runs: Runs) -> list[_Row]:
    """A row a method, or one of each of its adapters where all its runs answered under several."""
    rows = []
    for (setting, method), group in runs.groups().items():
        there = set.intersection(*(set(run.answers(HOME)) for run in group))
        order = [name for name in _ADAPTERS if name in there] + sorted(there - {*_ADAPTERS})
        rows += [_Row(setting, method, group, name) for name in (order if len(order) > 1 else [None])]
    return rows


def value_table(runs: Runs, asked: Asked) -> pandas.DataFrame:
    """A row a setting, method and adapter, the floor first: means over seeds, as metrics.csv has them.

    Returns:
        setting, method, seeds, and `Asked.titles` and `DEVIATION` (between clients) as columns.
    """
    rows = []
    for setting in runs.settings:
        here = [row for row in _rows(runs) if row.setting == setting]
        rows.append({"setting": setting, "method": asked.floor, **_values(here[0], asked, asked.floor)})
        rows += [{"setting": setting, "method": row.title, **_values(row, asked)} for row in here]
    return pandas.DataFrame(rows)


def _values(row: _Row, asked: Asked, system: str = "model") -> dict[str, Any]:
    found = [_values_of(run, asked, system, row.adapter) for run in row.runs]
    return {"seeds": len(row.runs), **{key: float(numpy.mean([each[key] for each in found])) for key in found[0]}}


def _values_of(run: Run, asked: Asked, system: str, adapter: str | None) -> dict[str, float]:
    table, key = run.values(HOME, system, adapter)["value"], asked.measure
    names = {MEAN: key, **{part: part for part in asked.parts}}
    names |= {name: f"{name}_{key}" for name in (WORST, HARMONIC)}
    values = {name: float(table.get(stored, math.nan)) for name, stored in names.items()}
    by_client = run.values_by_client(key, system, adapter)
    return values | {DEVIATION: float(by_client.std(ddof=1)) if len(by_client) > 1 else math.nan}


def gain_table(runs: Runs, asked: Asked, root_seed: int = 0, resamples: int = RESAMPLES) -> pandas.DataFrame:
    """Each row minus the floor and minus each of `Asked.others`, on the same studies and with the same seeds.

    A row is a method, or one of its adapters; what it is held against answers with the adapter that counts. Holm's
    correction goes over the rows, for each setting, what they are held against, and column.

    Returns:
        setting, method, against, column, and `DIFFERENCE`; nothing where a run holds no scores of single studies. Of
        data whose scores are stored without their clients there is neither worst client nor harmonic mean.

    Raises:
        InputError: two runs of a setting answered different studies.
    """
    groups = runs.groups()
    rows = [
        {"setting": row.setting, "method": row.title, "against": against, **found}
        for row in _rows(runs)
        for against in (asked.floor, *asked.others)
        if row.method != against
        for found in _differences(
            row, groups.get((row.setting, against), ()), asked, against, (root_seed, row.setting, against), resamples
        )
    ]
    table = pandas.DataFrame(rows, columns=["setting", "method", "against", "column", *DIFFERENCE])
    for _, family in table.groupby(["setting", "against", "column"]):
        adjusted = holm(dict(zip(family.index, family["p_value"], strict=True)))
        table.loc[family.index, "p_holm"] = [adjusted[place] for place in family.index]
    return table.astype(dict.fromkeys(DIFFERENCE, float))


def _differences(
    row: _Row,
    others: Sequence[Run],
    asked: Asked,
    against: str,
    stream: tuple[int, str, str],
    resamples: int,
) -> Iterator[dict[str, Any]]:
    floor = against == asked.floor
    theirs = {run.seed: run for run in (row.runs if floor else others)}
    pairs = [(run, theirs[run.seed]) for run in row.runs if run.seed in theirs]
    system = against if floor else "model"
    sides = [(_columns(a, asked, adapter=row.adapter), _columns(b, asked, system)) for a, b in pairs]
    if not sides or any(not each for side in sides for each in side):
        return
    keys = [key for key in asked.titles if all(key in each for side in sides for each in side)]
    _check_studies(pairs, system)
    differences = {key: [difference_statistics(a[key], b[key]) for a, b in sides] for key in keys}
    root_seed, *names = stream
    intervals = seed_intervals(differences, numpy_stream(root_seed, "gain", *names), resamples)
    for key in keys:
        pooled = [pooled_seeds([side[place][key] for side in sides]) for place in (0, 1)]
        yield {
            "column": key,
            "difference": intervals[key].value,
            "difference_low": intervals[key].low,
            "difference_high": intervals[key].high,
            "p_value": exchange_test(*pooled, numpy_stream(root_seed, "gain exchange", *names), resamples),
            "seeds_tested": len(sides),
        }


def _check_studies(pairs: Sequence[tuple[Run, Run]], system: str) -> None:
    first = pairs[0][0]
    expected, _ = first.statistics(HOME)
    for run, name in [(a, "model") for a, _ in pairs] + [(b, system) for _, b in pairs]:
        if run.statistics(HOME, name)[0] != expected:
            raise InputError(
                f"{first.folder} and {run.folder} answered different test studies; evaluate them on the same ones."
            )


def _columns(run: Run, asked: Asked, system: str = "model", adapter: str | None = None) -> dict[str, StudyStatistics]:
    """The columns that a run's stored answers give, over the same studies; nothing without them."""
    stored = run.statistics(HOME, system, adapter)
    if stored is None or asked.measure not in stored[1]:
        return {}
    studies, measures = stored
    whole = measures[asked.measure]
    columns = {MEAN: whole, **{part: measures[part] for part in asked.parts if part in measures}}
    if run.predictions is None:
        return columns
    sites = dict(zip(run.predictions["study_id"].map(numbered(run.predictions)), run.predictions["site"], strict=True))
    return columns | over_clients(whole, [sites[study] for study in studies])


def over_clients(whole: StudyStatistics, sites: Sequence[str]) -> dict[str, StudyStatistics]:
    """Worst client and harmonic mean of a measure that is a ratio of two sums, as functions of every client's sums.

    Args:
        whole: over N studies, its summands (N, 2).
        sites: the client of each.

    Returns:
        By `WORST` and `HARMONIC`. A client of whom a resample has no study keeps its mean over all its studies.
    """
    clients = sorted(set(sites))
    held = numpy.array(sites)[:, None] == numpy.array(clients)  # (N, K)
    sums = (held[:, :, None] * whole.summands[:, None, :]).reshape(len(held), -1)
    means = _ratios(sums.sum(axis=0), numpy.zeros(len(clients)))
    known = sums.reshape(len(held), len(clients), 2)[:, :, 1].any(axis=0)

    def of_clients(resampled: numpy.ndarray) -> numpy.ndarray:
        return _ratios(resampled, means)[..., known]

    return {
        WORST: StudyStatistics(sums, lambda resampled: of_clients(resampled).min(axis=-1)),
        HARMONIC: StudyStatistics(sums, lambda resampled: _harmonic(of_clients(resampled))),
    }


def _ratios(sums: numpy.ndarray, otherwise: numpy.ndarray) -> numpy.ndarray:
    """(..., 2 K) sums to (..., K) ratios."""
    pairs = sums.reshape(*sums.shape[:-1], -1, 2)
    fallback = numpy.broadcast_to(otherwise, pairs.shape[:-1]).copy()
    return numpy.divide(pairs[..., 0], pairs[..., 1], out=fallback, where=pairs[..., 1] > 0)


def _harmonic(values: numpy.ndarray) -> numpy.ndarray:
    """Over the last axis; zero where one is zero."""
    positive = (values > 0).all(axis=-1)
    inverse = numpy.divide(1.0, values, out=numpy.ones_like(values), where=values > 0)
    return numpy.where(positive, values.shape[-1] / inverse.sum(axis=-1), 0.0)


def write_gain(
    values: pandas.DataFrame,
    gains: pandas.DataFrame,
    runs: Runs,
    asked: Asked,
    out_folder: pathlib.Path | str,
    name: str,
) -> list[pathlib.Path]:
    """Write both tables as one CSV, and as Markdown and LaTeX with a page of values and one of each difference.

    Args:
        values: of :func:`value_table`.
        gains: of :func:`gain_table`.
        runs: that they are of.
        asked: what the tables ask.
        out_folder: where to.
        name: of the files.

    Returns:
        The three paths.
    """
    pages = []
    for setting, part in values.groupby("setting", sort=False):
        pages.append(_value_page(part, runs, asked, str(setting)))
        here = gains[gains["setting"] == setting]
        pages += [
            _gain_page(rows, part, asked, str(setting), str(a)) for a, rows in here.groupby("against", sort=False)
        ]
    below = [
        *data_notes(runs.settings),
        "Means over seeds. The first row is the floor: what every method started from. A method with several adapters "
        "has a row for each. Between clients: standard deviation of the clients' means.",
        f"Differences: the row minus what it is held against, on the same studies and seeds, with a paired "
        f"{CONFIDENCE:.0%} interval over both; above zero, the row is ahead.",
        f"*: paired exchange test, p < {SIGNIFICANT:.2f} after Holm's correction for the number of rows. Call a "
        "difference clear only when interval and test agree.",
        "The lowest of several clients falls with chance: of the worst client look at the interval.",
        *runs.measures.notes,
        *runs.measures.floor_notes,
        *runs.notes,
    ]
    table = values.merge(_wide(gains), how="left", on=["setting", "method"], sort=False)
    return write_pages(table, out_folder, name, pages, [note.format(against=runs.measures.against) for note in below])


def _value_page(part: pandas.DataFrame, runs: Runs, asked: Asked, setting: str) -> Page:
    columns = {**asked.titles, DEVIATION: "Between clients"}
    title = f"{setting}, {runs.measures.names[asked.measure]}"
    rows = [
        (Cell(row["method"]), Cell(f"{row['seeds']}"), *(_number(row[key]) for key in columns))
        for _, row in part.iterrows()
    ]
    return Page(title, ("Method", "Seeds", *columns.values()), tuple(rows), frozenset({1}))


def _gain_page(rows: pandas.DataFrame, part: pandas.DataFrame, asked: Asked, setting: str, against: str) -> Page:
    columns = {key: title for key, title in asked.titles.items() if key in set(rows["column"])}
    by_place = rows.set_index(["method", "column"])
    lines = []
    for method in part["method"]:
        found = [by_place.loc[(method, key)] if (method, key) in by_place.index else None for key in columns]
        if any(each is not None for each in found):
            seeds = max(int(each["seeds_tested"]) for each in found if each is not None)
            cells = [Cell(EMPTY) if each is None else difference_cell(each) for each in found]
            lines.append((Cell(method), Cell(f"{seeds}"), *cells))
    return Page(f"{setting}, minus {against}", ("Method", "Seeds", *columns.values()), tuple(lines), frozenset())


def _number(value: float) -> Cell:
    return Cell(EMPTY if pandas.isna(value) else f"{value:.3f}")


def _wide(gains: pandas.DataFrame) -> pandas.DataFrame:
    """A row a setting and method, a column each number of each difference: ``AGAINST_COLUMN_difference``."""
    index, names = ["setting", "method"], ["difference", "difference_low", "difference_high", "p_holm", "seeds_tested"]
    if gains.empty:
        return pandas.DataFrame(columns=index)
    table = gains.pivot(index=index, columns=["against", "column"], values=names)
    table.columns = [f"minus_{against}_{column}_{name}" for name, against, column in table.columns]
    return table.reset_index()
