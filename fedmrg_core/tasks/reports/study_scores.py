"""What intervals and paired tests need of each answer, without its text: a reference may keep it of any data set.

One row a study and adapter: a number in place of the study's name, the 14 states of both reports, and what the study
adds to BLEU and ROUGE-L. METEOR (its Java) and CIDEr (of a set, not of a study) are left out.
"""

from __future__ import annotations

import pathlib

import pandas

from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.metrics.clinical import per_study_clinical, without_positives
from fedmrg_core.metrics.statistics import StudyStatistics
from fedmrg_core.metrics.text import TEXT_SUMS, statistics_of_sums, text_sums
from fedmrg_core.runs.measures import KEYS, numbered
from fedmrg_core.tasks.reports.predictions import state_array

_STATES = ("states_reference", "states_generated")
COLUMNS: tuple[str, ...] = (*KEYS, *_STATES, *TEXT_SUMS)


def study_scores(predictions: pandas.DataFrame) -> pandas.DataFrame:
    """The scores of predictions, see `predictions.COLUMNS`, in the order of their studies.

    A study is called as `measures.numbered` says.

    Returns:
        Columns `COLUMNS`: states as 14 digits, counts of words, n-grams and matches, ROUGE-L in [0, 1].

    Raises:
        InputError: there are no rows, or a reference report is empty.
    """
    rows = predictions.reset_index(drop=True)
    sums = text_sums(rows["reference"].tolist(), rows["generated"].tolist())
    table = pandas.concat([rows.assign(study=rows["study_id"].map(numbered(rows))), sums], axis=1)
    return table.sort_values(list(KEYS))[list(COLUMNS)].reset_index(drop=True)


def statistics_of(scores: pandas.DataFrame) -> dict[str, StudyStatistics]:
    """Every measure that a study adds to by itself and that is not blank, over the rows of `scores` in their order."""
    reference, generated = (state_array(scores[column]) for column in _STATES)
    blank = without_positives(reference)
    clinical = {key: each for key, each in per_study_clinical(reference, generated).items() if key not in blank}
    return {**statistics_of_sums(scores), **clinical}


def read_study_scores(path: pathlib.Path) -> pandas.DataFrame:
    """Read a file of :func:`study_scores`.

    Raises:
        InputError: it is no such file.
    """
    return read_table(path, COLUMNS, "restore it or keep the run again", dtype=dict.fromkeys((*KEYS, *_STATES), str))
