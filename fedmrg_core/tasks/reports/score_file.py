"""Score anybody's reports: a table of references and generated reports, every measure with its interval.

The measures are the `evaluate` modules in `modules/`, which also load alone: ``evaluate.load("FOLDER/report_text")``.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Iterator

import pandas

from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.report_words import language_warning, why_no_report
from fedmrg_core.errors import InputError
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.metrics.diversity import diversity
from fedmrg_core.metrics.statistics import RESAMPLES
from fedmrg_core.tasks.reports.predictions import BLANK

COLUMNS = ("study_id", "reference", "generated")
logger = logging.getLogger(__name__)


def read_reports(path: pathlib.Path | str) -> pandas.DataFrame:
    """Read a table of reports: a row a study, with the columns `COLUMNS`; others are passed over.

    Raises:
        InputError: the file is missing or no CSV file in UTF-8, a column is missing, there are no rows, a study has no
            id or stands twice, or a reference is no report. An empty generated report is allowed and earns nothing.
    """
    remedy = f"expected a CSV table with the columns {', '.join(COLUMNS)}, a row a study"
    table = read_table(path, COLUMNS, remedy, dtype=str, na_values=[])[list(COLUMNS)]
    if not len(table):
        raise InputError(f"{path}: there are no rows; {remedy}.")
    seen: set[str] = set()
    for number, (study, reference, _) in enumerate(table.itertuples(index=False), start=1):
        if not study.strip() or study in seen:
            fault = f"study_id {study!r} a second time" if study.strip() else "no study_id"
            raise InputError(f"{path}: row {number} has {fault}; every study needs one row and an id of its own.")
        if reason := why_no_report(reference):
            raise InputError(f"{path}: row {number} (study {study!r}): {reason} (reference); take the row out.")
        seen.add(study)
    return table


def score_reports(
    table: pandas.DataFrame, meteor: bool = True, seed: int = 0, resamples: int = RESAMPLES
) -> pandas.DataFrame:
    """Every measure of generated reports against their references, with its bootstrap interval over studies.

    Args:
        table: of `read_reports`.
        meteor: False leaves METEOR out, whose Java takes seconds to start.
        seed: root seed of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        Columns metric, value, low, high, studies. What cannot be said is NaN, its reason is logged; shares and counts
        of distinct reports have no interval.
    """
    from fedmrg_core.metrics.modules import load_metric  # `evaluate` takes long to import

    references, generated = table["reference"].tolist(), table["generated"].tolist()
    states = [[label_report(text) for text in texts] for texts in (references, generated)]
    numbers = load_metric("report_text").compute(
        predictions=generated, references=references, meteor=meteor, resamples=resamples, seed=seed
    ) | load_metric("report_clinical").compute(
        predictions=states[1], references=states[0], resamples=resamples, seed=seed
    )
    rows = [
        {"metric": key, "value": value, "low": numbers[f"{key}_low"], "high": numbers[f"{key}_high"]}
        for key, value in numbers.items()
        if f"{key}_low" in numbers
    ]
    varied = diversity(generated)
    rows += [{"metric": key, "value": getattr(varied, key)} for key in ("distinct_share", "empty_share")]
    scored = pandas.DataFrame(rows).assign(studies=len(table))
    for sentence in _warnings(table, scored, varied.degenerate_reason()):
        logger.warning("%s", sentence)
    return scored


def _warnings(table: pandas.DataFrame, scored: pandas.DataFrame, degenerate: str | None) -> Iterator[str]:
    blank = scored["metric"][scored["value"].isna()]
    yield from (sentence for prefix, sentence in BLANK.items() if blank.str.startswith(prefix).any())
    if degenerate is not None:
        yield degenerate
    ids = table["study_id"]
    for column in ("reference", "generated"):
        if sentence := language_warning(zip(ids, table[column], strict=True), f"column {column!r}"):
            yield sentence
