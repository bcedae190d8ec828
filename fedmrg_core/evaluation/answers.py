"""The measures of one run's answers by study: for each client, home and the unseen centre, adapter by adapter.

What `verify` and the variance between seeds need: two runs are compared on the same studies, so that how hard a study
is drops out.
"""

from __future__ import annotations

import pathlib

import pandas

from fedmrg_core.data.publishing import shows_scores
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.runs.measures import STUDY_SCORES, Answers, Place

NUMBER = ("scope", "adapter", "metric")  # what names a number; adapter: or the floor, or "losses"
LOSSES = ("train_loss", "validation_loss")  # of the chosen round


def answers_of(run: Run, numbered: bool = False) -> dict[Place, Answers]:
    """Every measure of a run's own answers, ready for a comparison study by study.

    A task may leave out what takes long (of reports METEOR). Where a folder holds scores of studies in place of answers
    (data of level scores), so is what needs the answers (CIDEr), and single clients, which need studies' names. A
    folder of data of level aggregates rightly holds neither, and gives nothing.

    Args:
        run: a finished and evaluated run.
        numbered: by scores of studies also where the folder holds answers, to compare it with one that does not.

    Raises:
        InputError: the folder holds neither predictions nor scores of studies, though its data allow them.
    """
    if run.predictions is not None and not numbered:
        return run.measures.answers_by_place(run.predictions)
    if run.scores is None:
        if not shows_scores(run.configuration.data):
            return {}
        raise InputError(
            f"{run.folder} holds no scores of studies (predictions.csv.gz or {STUDY_SCORES}); keep the run again with "
            "`fedmrg reference`."
        )
    groups = run.scores.groupby(["role", "adapter"], sort=True)
    return {
        (role, adapter): Answers(tuple(rows["study"]), run.measures.statistics(rows))
        for (role, adapter), rows in groups
    }


def stored_numbers(run: Run) -> pandas.DataFrame:
    """What is compared with other runs', by scope, adapter or floor, and measure.

    Returns:
        Column ``value``: the measures of metrics.csv but for blank ones (see `Measures.blank`), and under the adapter
        "losses" those of the chosen round, by client and in the mean (home). ``low`` and ``high``: their
        intervals, NaN where there is none.

    Raises:
        InputError: a value is empty that cannot be blank.
    """
    table = run.metrics[run.metrics["metric"].isin(run.measures.compared)]
    chosen = table[table["value"].notna() | ~table["metric"].str.startswith(tuple(run.measures.blank))]
    bounded = chosen[chosen["studies"] > 1]
    if chosen["value"].isna().any() or bounded[["low", "high"]].isna().any(axis=None):
        raise InputError(f"{run.folder}/metrics.csv has empty values; evaluate the run again or restore the file.")
    answering = chosen["adapter"].where(chosen["system"] == "model", chosen["system"])
    measured = chosen.assign(adapter=answering).set_index(list(NUMBER))[["value", "low", "high"]]
    losses = losses_of_round(run.folder, int(run.manifest.get("selected_round", 0)))
    return pandas.concat([measured, losses]) if len(losses) else measured


def losses_of_round(folder: pathlib.Path, round_number: int) -> pandas.DataFrame:
    """The `LOSSES` of one round of rounds.csv, by client and in the mean, as `stored_numbers` has them.

    Without rows where they are not written down.
    """
    path = folder / "rounds.csv"
    rounds = read_table(path, ("round", "client"), "make the run again") if path.is_file() else pandas.DataFrame()
    columns = [name for name in LOSSES if name in rounds]
    if not columns:
        return pandas.DataFrame(columns=["value"])
    here = rounds[rounds["round"] == round_number].set_index("client")[columns].dropna()
    by_client = pandas.concat([here, here.mean().to_frame("home").T]) if len(here) else here
    table = by_client.stack().to_frame("value")
    table.index = pandas.MultiIndex.from_tuples([(str(c), "losses", m) for c, m in table.index], names=NUMBER)
    return table
