"""What of a run may be shown to others, from its data set's level in `fedmrg_core.data.sources` alone.

| level | reports, images, pictures of single studies | numbers of single studies | numbers over many studies |
|---|---|---|---|
| all | yes | yes | yes |
| scores | no | yes | yes |
| aggregates | no | no | of at least `SMALLEST_CELL` studies each |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmrg_core.data.sources import Level, data_source

if TYPE_CHECKING:
    import pandas

SMALLEST_CELL = 10  # studies: of fewer no number is published of data of level aggregates [ours]
TOGETHER = ("home", "unseen")  # scopes of metrics.csv that are no single client
FIGURES_OF_CLIENTS = ("convergence", "quality_by_client", "client_distance")
FIGURES = ("communication", *FIGURES_OF_CLIENTS)  # those of a run that show neither a report nor a single study
FIGURES_OF_STUDIES = ("report_page", "feature_map")
BY_CLIENT = ("worst_client_", "harmonic_mean_")  # measures that are made of the clients' own


def level_of(data: str) -> Level:
    """What may be published of a data set.

    Raises:
        InputError: no data set has this name.
    """
    return data_source(data).publish


def shows_studies(data: str) -> bool:
    """Whether images, reports and pictures of single studies may be shown."""
    return level_of(data) == "all"


def shows_scores(data: str) -> bool:
    """Whether numbers of single studies may be shown."""
    return level_of(data) != "aggregates"


def figures_of(data: str) -> tuple[str, ...]:
    """The figures of a run that may be shown, by name; figures of the user's own are not known here."""
    return FIGURES + (FIGURES_OF_STUDIES if shows_studies(data) else ())


def has_small_cells(data: str, metrics: pandas.DataFrame) -> bool:
    """Whether metrics.csv has a number of fewer studies than may be published."""
    return not shows_scores(data) and bool((metrics["studies"] < SMALLEST_CELL).any())


def publishable_metrics(data: str, metrics: pandas.DataFrame) -> pandas.DataFrame:
    """The rows of metrics.csv that may be published.

    Where one client has too few test studies, no client is shown by itself: the others and the sum would tell it.
    """
    if not has_small_cells(data, metrics):
        return metrics
    together = metrics["scope"].isin(TOGETHER) & ~metrics["metric"].str.startswith(BY_CLIENT)
    return metrics[together & (metrics["studies"] >= SMALLEST_CELL)]


def has_small_clients(data: str, rounds: pandas.DataFrame) -> bool:
    """Whether rounds.csv has losses of a client with fewer training or validation studies than may be published."""
    counts = [name for name in ("num_examples", "validation_examples") if name in rounds]
    return not shows_scores(data) and bool((rounds[counts] < SMALLEST_CELL).any(axis=None))


def publishable_table(data: str, table: pandas.DataFrame) -> pandas.DataFrame:
    """The rows of head_auroc.csv or adaptation.csv that may be published.

    An AUROC counts as one of its positive and of its other studies; of one that may not be shown no count is, either.
    """
    if shows_scores(data):
        return table
    kept = table["studies"] >= SMALLEST_CELL
    if "positive" in table:
        others = table["studies"] - table["positive"]
        kept &= (table["positive"] >= SMALLEST_CELL) & (others >= SMALLEST_CELL)
    return table[kept]
