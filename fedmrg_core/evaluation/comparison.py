"""Methods beside each other: means over seeds with intervals, paired tests, floors, worst clients and bytes.

Everything is a long table with one row for each setting, role, method and measure; `table_writers` makes CSV, Markdown
and LaTeX of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy
import pandas
import scipy.stats

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import Runs
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.metrics.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    StudyStatistics,
    difference_statistics,
    exchange_test,
    holm,
    pooled_seeds,
    seed_intervals,
)
from fedmrg_core.runs.measures import Measure, Measures
from fedmrg_core.seeds import numpy_stream

COLUMNS = (
    "setting",
    "role",
    "method",
    "system",  # model, or a floor
    "exchange",  # federated; local: nothing is shared; centralised
    "metric",
    "value",  # mean over seeds
    "low",
    "high",
    "interval",  # bootstrap: over seeds and studies; approximate: see `approximate_interval`
    "seeds",
    "studies",
    "worst_client",
    "harmonic_mean",
    "bytes_up",  # a client and round, on the wire
    "bytes_down",
    "parameters_sent",  # empty where something else travels, see `Run.parameters_sent`
)
TEST_COLUMNS = ("difference", "difference_low", "difference_high", "p_value", "p_holm", "seeds_tested")


def main_table(
    runs: Runs, against: str | None = None, root_seed: int = 0, resamples: int = RESAMPLES, floors: bool = True
) -> pandas.DataFrame:
    """Every method with its intervals and its paired test against one of them, and the floors.

    Args:
        runs: see `run_sets.load_runs`; several settings stand below each other and are never pooled.
        against: label of the method that the others are tested against; None: the one that the task declares.
        root_seed: names the bootstrap's streams, so that the same runs give the same table.
        resamples: bootstrap resamples and permutations.
        floors: whether floors are added, as the runs of `against` have them.

    Returns:
        Columns `COLUMNS` and `TEST_COLUMNS`; ``difference`` is `against` minus the method, above zero where `against`
        is ahead. Tests need predictions of both methods with the same seeds; without them the columns are empty.

    Raises:
        InputError: two runs of a setting answered different studies.
    """
    against = runs.measures.against if against is None else against
    values = estimates(runs, root_seed, resamples)
    tests = paired_tests(runs, against, root_seed, resamples)
    table = values.merge(tests, how="left", on=["setting", "role", "method", "metric"], sort=False)
    extra = [floor_rows(runs, against)] if floors else []
    parts = [part for part in (table, *extra) if len(part)]
    return pandas.concat(parts, ignore_index=True)[[*COLUMNS, *TEST_COLUMNS]]


def ablation_table(
    runs: Runs, whole: str | None = None, root_seed: int = 0, resamples: int = RESAMPLES
) -> pandas.DataFrame:
    """What each part of a method adds: `main_table` against the whole method.

    Raises:
        InputError: the whole method is not among the runs, or two runs of a setting answered different studies.
    """
    whole = runs.measures.against if whole is None else whole
    if whole not in {runs.label(run) for run in runs}:
        raise InputError(f"There is no run of {whole!r} to compare its parts with; add its run folders.")
    return main_table(runs, whole, root_seed, resamples)


def estimates(runs: Runs, root_seed: int = 0, resamples: int = RESAMPLES) -> pandas.DataFrame:
    """Means over seeds with intervals over seeds and studies, columns `COLUMNS`."""
    rows = []
    for (setting, label), group in runs.groups().items():
        described = {"setting": setting, "method": label, "system": "model", **cost_of(group)}
        for role in runs.measures.answers:
            if any(run.answer(role) is None for run in group):
                continue
            generator = numpy_stream(root_seed, "comparison", setting, role)  # all methods see the same resamples
            rows += [{**described, "role": role, **row} for row in _estimates(group, role, generator, resamples)]
    return pandas.DataFrame(rows, columns=list(COLUMNS))


def cost_of(group: Sequence[Run]) -> dict[str, object]:
    """What travels in runs of several seeds: exchange, bytes_up, bytes_down and parameters_sent, see `COLUMNS`."""
    method = group[0].configuration.method
    shares = "shared" in method.modules.values()
    exchange = "centralised" if method.training == "centralised" else "federated" if shares else "local"
    sent = [run.parameters_sent if exchange == "federated" else 0.0 for run in group]
    wire = {f"bytes_{way}": float(numpy.mean([run.bytes_per_round(way) for run in group])) for way in ("up", "down")}
    if exchange == "centralised":
        wire = dict.fromkeys(wire, 0.0)
    return {"exchange": exchange, **wire, "parameters_sent": float(numpy.mean(sent))}


def _estimates(
    group: Sequence[Run], role: str, generator: numpy.random.Generator, resamples: int
) -> Iterator[dict[str, object]]:
    tables = [run.values(role) for run in group]
    measures, by_seed = _measures(group[0].measures, tables), _common_statistics(group, role)
    drawn = seed_intervals(
        {key: [seed[key] for seed in by_seed] for key in measures if by_seed and key in by_seed[0]},
        generator,
        resamples,
    )
    for key in measures:
        # The value stays the stored one: what a table says is what metrics.csv says.
        bounds = {"low": drawn[key].low, "high": drawn[key].high, "interval": "bootstrap"} if key in drawn else {}
        yield {**_row(tables, group[0].measures.compared[key]), **bounds}


def _measures(declared: Measures, tables: Sequence[pandas.DataFrame]) -> list[str]:
    return [key for key in declared.compared if all(key in table.index for table in tables)]


def _row(tables: Sequence[pandas.DataFrame], measure: Measure) -> dict[str, object]:
    """One measure over the seeds' stored tables."""
    key = measure.key
    interval = approximate_interval(tables, key, measure.least)
    return {
        "metric": key,
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "interval": "bootstrap" if len(tables) == 1 else "approximate",  # one seed's is the stored one, over studies
        "seeds": len(tables),
        "studies": int(tables[0].loc[key, "studies"]),
        **{name: _mean_of(tables, f"{name}_{key}") for name in ("worst_client", "harmonic_mean")},
    }


def _mean_of(tables: Sequence[pandas.DataFrame], key: str) -> float:
    if not all(key in table.index for table in tables):
        return math.nan
    return float(numpy.mean([table.loc[key, "value"] for table in tables]))


def approximate_interval(tables: Sequence[pandas.DataFrame], key: str, least: float = 0.0) -> Interval:
    """Mean over seeds, its interval from the seeds' stored intervals over studies and the spread between seeds [ours].

    For what cannot be resampled (of reports METEOR and CIDEr), and runs whose predictions are not stored. The halves'
    squares add up: the mean half of the stored intervals (all seeds have the same studies, so it does not shrink with
    seeds), and a normal interval's half of the mean over seeds. No bound is below `least`, as no value is.
    """
    value = _mean_of(tables, key)
    half = numpy.mean([(table.loc[key, "high"] - table.loc[key, "low"]) / 2 for table in tables])
    if len(tables) == 1:
        return Interval(value, float(tables[0].loc[key, "low"]), float(tables[0].loc[key, "high"]))
    spread = numpy.std([table.loc[key, "value"] for table in tables], ddof=1) / math.sqrt(len(tables))
    whole = math.hypot(half, float(scipy.stats.norm.ppf((1 + CONFIDENCE) / 2)) * spread)
    return Interval(value, max(value - whole, least), value + whole)


def _common_statistics(group: Sequence[Run], role: str) -> list[dict[str, StudyStatistics]]:
    """The measures of each run by study, the studies in one order; nothing if a run has no predictions.

    Raises:
        InputError: two runs answered different studies.
    """
    stored = [run.statistics(role) for run in group]
    if any(each is None for each in stored):
        return []
    ids = stored[0][0]
    for run, (studies, _) in zip(group, stored, strict=True):
        if studies != ids:
            raise InputError(
                f"{group[0].folder} and {run.folder} answered different test studies ({role}); evaluate them on the "
                "same ones."
            )
    return [measures for _, measures in stored]


def paired_tests(
    runs: Runs, against: str | None = None, root_seed: int = 0, resamples: int = RESAMPLES
) -> pandas.DataFrame:
    """`against` minus every other method of the same setting, on the same studies and with the same seeds.

    The interval resamples seeds and studies (`statistics.seed_intervals` of the differences). The p value exchanges
    the two methods' answers study by study, a study's answers of all seeds at once, as if these runs were the only
    ones there could be. Holm's correction goes over the methods, for each setting, role and measure.

    Returns:
        setting, role, method, metric and `TEST_COLUMNS`; methods without predictions or common seeds are left out.

    Raises:
        InputError: two runs of a setting answered different studies.
    """
    against = runs.measures.against if against is None else against
    labels = dict.fromkeys(label for _, label in runs.groups())
    table = paired_differences(runs, [(against, label) for label in labels], root_seed, resamples)
    return table.drop(columns="first").rename(columns={"second": "method"})


def paired_differences(
    runs: Runs, pairs: Sequence[tuple[str, str]], root_seed: int = 0, resamples: int = RESAMPLES
) -> pandas.DataFrame:
    """The first label of each pair minus the second, wherever a setting has both, as `paired_tests` has them.

    Holm's correction goes over the pairs, for each setting, role and measure.

    Returns:
        setting, role, first, second, metric and `TEST_COLUMNS`.

    Raises:
        InputError: two runs of a setting answered different studies.
    """
    groups = runs.groups()
    rows = [
        {"setting": setting, "role": role, "first": first, "second": second, **row}
        for setting in runs.settings
        for first, second in pairs
        if first != second and {(setting, first), (setting, second)} <= groups.keys()
        for role in runs.measures.answers
        for row in _tests(groups[setting, first], groups[setting, second], role, (root_seed, setting), resamples)
    ]
    names = ["setting", "role", "first", "second", "metric"]
    table = pandas.DataFrame(rows, columns=[*names, *TEST_COLUMNS])
    for _, family in table.groupby(["setting", "role", "metric"]):
        adjusted = holm(dict(zip(family.index, family["p_value"], strict=True)))
        table.loc[family.index, "p_holm"] = [adjusted[place] for place in family.index]
    return table.astype(dict.fromkeys(TEST_COLUMNS, float))


def _tests(
    first: Sequence[Run], second: Sequence[Run], role: str, stream: tuple[int, str], resamples: int
) -> Iterator[dict[str, object]]:
    seeds = sorted({run.seed for run in first} & {run.seed for run in second})
    pairs = [[run for run in group if run.seed in seeds and run.answer(role)] for group in (first, second)]
    if not seeds or len(pairs[0]) != len(seeds) or len(pairs[1]) != len(seeds):
        return
    stored = _common_statistics([*pairs[0], *pairs[1]], role)
    if not stored:
        return
    ours, theirs = stored[: len(seeds)], stored[len(seeds) :]
    measures = [key for key in first[0].measures.compared if key in ours[0]]
    differences = {
        key: [difference_statistics(a[key], b[key]) for a, b in zip(ours, theirs, strict=True)] for key in measures
    }
    root_seed, setting = stream
    intervals = seed_intervals(differences, numpy_stream(root_seed, "comparison", setting, role), resamples)
    for key in measures:
        pooled = [pooled_seeds([seed[key] for seed in side]) for side in (ours, theirs)]
        yield {
            "metric": key,
            "difference": intervals[key].value,
            "difference_low": intervals[key].low,
            "difference_high": intervals[key].high,
            "p_value": exchange_test(*pooled, numpy_stream(root_seed, "exchange", setting, role), resamples),
            "seeds_tested": len(seeds),
        }


def floor_rows(runs: Runs, against: str | None = None) -> pandas.DataFrame:
    """The floors of each setting, as the runs of one method have them (the nearest image is found by its encoder).

    Args:
        runs: see `main_table`.
        against: the method; where a setting lacks it, its first method.
    """
    groups, declared = runs.groups(), runs.measures.compared
    against = runs.measures.against if against is None else against
    rows = []
    for setting in runs.settings:
        labels = [label for place, label in groups if place == setting]
        group = groups[setting, against if against in labels else labels[0]]
        for floor in runs.measures.floors:
            for role in runs.measures.answers:
                tables = [run.values(role, floor) for run in group]
                described = {"setting": setting, "role": role, "method": floor, "system": floor, "exchange": "floor"}
                rows += [{**described, **_row(tables, declared[key])} for key in _measures(runs.measures, tables)]
    return pandas.DataFrame(rows, columns=[*COLUMNS, *TEST_COLUMNS])
