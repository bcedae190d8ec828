"""metrics.csv of any task: a long table of measures, by client, at home and at an unseen centre."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pandas

from fedmrg_core.files.stored_tables import read_table, table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.metrics.diversity import harmonic_mean, worst_client

# scope: a client, home or unseen; adapter: which answer of the model's; system: the model, or a floor.
METRIC_COLUMNS: tuple[str, ...] = ("scope", "adapter", "system", "metric", "value", "low", "high", "studies")
ROLES: tuple[str, ...] = ("home", "unseen")
SUMMARIES = {"worst_client": worst_client, "harmonic_mean": harmonic_mean}  # over clients, in scope home


def write_metrics(path: pathlib.Path | str, metrics: pandas.DataFrame) -> None:
    """Write metrics.csv atomically."""
    table = metrics[list(METRIC_COLUMNS)]
    write_text(pathlib.Path(path), table_text(table))


def read_metrics(path: pathlib.Path | str) -> pandas.DataFrame:
    """Read metrics.csv.

    Raises:
        InputError: the file is missing, unreadable or lacks a column.
    """
    return read_table(path, METRIC_COLUMNS, "score the predictions with notebook 07")


def scopes_of(group: pandas.DataFrame) -> Iterator[tuple[str, pandas.DataFrame]]:
    """The rows of each client, of all clients together (home) and of the unseen centre."""
    home = group[group["role"] == "home"]
    yield from ((str(site), studies) for site, studies in home.groupby("site", sort=True))
    for role in ROLES:
        studies = group[group["role"] == role]
        if len(studies):
            yield role, studies


def fairness_rows(
    rows: Iterable[dict[str, Any]],
    home: pandas.DataFrame,
    named: dict[str, Any],
    measures: Sequence[str],
    lower: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Worst client and harmonic mean of measures, over the clients at home that have a value.

    Args:
        rows: of metrics.csv, with those of single clients.
        home: the studies at home that they were made of, with their client as ``site``.
        named: adapter and system of the rows that count, and of those that come back.
        measures: beginnings of the measures' names.
        lower: those of them that are better the lower.
    """
    clients = set(home["site"])
    values: dict[str, list[float]] = {}
    for row in rows:
        same = all(row[key] == value for key, value in named.items())
        if same and row["scope"] in clients and str(row["metric"]).startswith(tuple(measures)):
            values.setdefault(str(row["metric"]), []).append(float(row["value"]))
    empty = {"scope": "home", **named, "low": math.nan, "high": math.nan, "studies": len(home)}
    return [
        {"metric": f"{name}_{key}", "value": _summary(name, known, key in lower), **empty}
        for name in SUMMARIES
        for key, by_client in values.items()
        for known in [[value for value in by_client if not math.isnan(value)]]
    ]


def _summary(name: str, values: Sequence[float], lower: bool) -> float:
    """Over clients: NaN of none, and a harmonic mean of none below zero."""
    if not values or (name == "harmonic_mean" and min(values) < 0):
        return math.nan
    return max(values) if lower and name == "worst_client" else SUMMARIES[name](values)
