"""How far a measure moves between seeds beyond what its studies explain: the yardstick of `verify`.

Two runs that differ in chance alone (another seed, or other last bits on another processor) differ in a measure by two
shares. Single studies are answered otherwise: that share falls with the number of studies and is seen in the comparison
itself. And a run as a whole ends a little better or worse: that share does not fall, and only several runs show it.
With m the measure on fixed studies, d = m_1 - m_2 and s the standard error of d over studies,

    E[d^2] = E[s^2] + 2 tau^2,

so tau^2 is estimated by the mean of (d^2 - s^2) / 2 over pairs of seeds [ours]. Where no scores of studies are stored
(METEOR, losses, the nearest image's reports, single centres of data of level scores, all of level aggregates), the
variance between seeds of the number itself holds both shares, s^2 as it was between these seeds.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy
import pandas
from tqdm.auto import tqdm

from fedmrg_core.data.sources import data_family
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.answers import NUMBER, answers_of, stored_numbers
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.files.stored_tables import read_table, table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.metrics.statistics import difference_statistics, jackknife_error
from fedmrg_core.runs.measures import Answers
from fedmrg_core.runs.methods import family_of

FILE = "seed_variance.csv"
KEYS = ("data", "family", *NUMBER)
COLUMNS = (*KEYS, "between_seeds", "beyond_studies", "degrees")
CLIENT = "client"  # stands for every client in the column scope


def kind_of(scope: str) -> str:
    """Clients share a variance; home and the unseen centre have their own."""
    return scope if scope in ("home", "unseen") else CLIENT


def seed_variance(runs: Iterable[Run], workers: int = 1) -> pandas.DataFrame:
    """The variance tau^2 of a run as a whole, for each measure, pooled over methods that ran with several seeds.

    Three seeds of one method alone would know a variance by two degrees of freedom, and hardly a difference could be
    told from chance. So methods of one family (`methods.family_of`: FedMRG and its ablations) are pooled, over profiles
    and ways of dealing; a variant with several seeds, such as fewer clients in a round, stands for itself [ours].

    Args:
        runs: finished and evaluated runs; those of one setting and method that differ in the seed form a group.
        workers: processes that score runs side by side; the table does not depend on their number.

    Returns:
        Columns `COLUMNS`: data set, family, scope (client, home, unseen), adapter, measure; the variance between seeds
        of the number, and the part of it beyond studies, tau^2 (0 where seeds differ by no more than their studies
        explain; empty without scores of studies); and the degrees of freedom, the sum over methods of seeds less one.

    Raises:
        InputError: a run lacks the scores of studies that its data allow, or the seeds of a method answered different
            studies.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        name = run.configuration.profile.name
        groups.setdefault((name, run.setting, run.folder.parent.name), []).append(run)
    several = [group for group in groups.values() if len(group) > 1]
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        scored = pool.map(_of_group, several)
        parts = list(tqdm(scored, total=len(several), desc="methods with several seeds"))
    table = pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=list(COLUMNS))
    return table.groupby(list(KEYS), sort=True).apply(_pooled, include_groups=False).reset_index()[list(COLUMNS)]


def families_of(run: Run) -> list[str]:
    """Under which names the table may hold a run's variances, the first that it has: its variant's, its row's."""
    folder, family = run.folder.parent.name, family_of(run.method, task=run.configuration.task)
    return [folder, family] if "," in folder else [family]


def variances_of(table: pandas.DataFrame, run: Run) -> pandas.DataFrame:
    """A run's rows of the table, indexed by `NUMBER`.

    Raises:
        InputError: there are none.
    """
    for family in families_of(run):
        rows = table[(table["data"] == data_family(run.configuration.data)) & (table["family"] == family)]
        if len(rows):
            return rows.set_index(list(NUMBER))
    raise InputError(
        f"{FILE} has no variance between seeds for {run.folder.parent.name} on {run.configuration.data}; keep "
        "references of a second seed and make it again with `fedmrg seed-variance`."
    )


def _pooled(rows: pandas.DataFrame) -> pandas.Series:
    """The methods' estimates, each with the weight of its degrees of freedom."""
    mean = {}
    for name in ("between_seeds", "beyond_studies"):
        known = rows[rows[name].notna()]
        mean[name] = numpy.average(known[name], weights=known["degrees"]) if len(known) else math.nan
    mean["beyond_studies"] = numpy.maximum(mean["beyond_studies"], 0.0)  # NaN stays
    return pandas.Series({**mean, "degrees": rows["degrees"].sum()})


def _of_group(group: Sequence[Run]) -> pandas.DataFrame:
    """The estimates of one method, below zero where they fall so; clients together, for they share their runs."""
    answers, measures = [answers_of(run) for run in group], group[0].measures
    places = set.intersection(*(set(each) for each in answers))
    beyond = {
        (*place, metric): excess
        for place in sorted(places)
        for metric, excess in _excesses(
            [each[place] for each in answers], f"{group[0].folder}, {place[0]}", measures.compared
        )
    }
    numbers = pandas.concat([stored_numbers(run)["value"] for run in group], axis=1, join="inner")
    rows = [
        {"scope": kind_of(scope), "adapter": adapter, "metric": metric, "between_seeds": variance,
         "beyond_studies": beyond.get((scope, adapter, metric), math.nan)}
        for (scope, adapter, metric), variance in numbers.var(axis=1, ddof=1).items()
        if adapter not in measures.fixed_floors
    ]  # fmt: skip
    mean = pandas.DataFrame(rows).groupby(list(NUMBER), sort=True).mean().reset_index()
    data = data_family(group[0].configuration.data)
    return mean.assign(data=data, family=families_of(group[0])[0], degrees=len(group) - 1)


def _excesses(seeds: Sequence[Answers], name: str, measures: Iterable[str]) -> Iterator[tuple[str, float]]:
    """For each measure the mean of (d^2 - s^2) / 2 over pairs of seeds; nothing for a single study, whose s is none."""
    if any(seed.studies != seeds[0].studies for seed in seeds):
        raise InputError(f"{name}: the seeds answered different studies; evaluate them on the same ones.")
    for key in measures:
        if len(seeds[0].studies) < 2 or not all(key in seed.measures for seed in seeds):
            continue
        changes = [difference_statistics(*pair) for pair in itertools.combinations([s.measures[key] for s in seeds], 2)]
        yield key, sum(change.estimate() ** 2 - jackknife_error(change) ** 2 for change in changes) / 2 / len(changes)


def write_seed_variance(path: pathlib.Path, table: pandas.DataFrame) -> None:
    """Write seed_variance.csv atomically, nine digits a number."""
    write_text(path, table_text(table, float_format="%.9g"))


def read_seed_variance(path: pathlib.Path) -> pandas.DataFrame:
    """Read seed_variance.csv.

    Raises:
        InputError: the file is missing, unreadable or lacks a column.
    """
    return read_table(path, COLUMNS, "make it with `fedmrg seed-variance`")
