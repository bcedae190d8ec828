"""Attack tolerance: quality of the honest clients over the number of dishonest ones, for each rule of the server."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
from matplotlib.axes import Axes

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.run_sets import Runs, load_runs
from fedmrg_core.evaluation.stored_runs import Run
from fedmrg_core.federation.round_record import LEFT_OUT
from fedmrg_core.runs.attack import TOLD, Attack, attackers
from figures import common, curves

VARYING = ("attack.kind", "attack.clients", "attack.strength")
KEPT = 0.9  # of the clean average's quality: the line that is drawn
POINT = ["method", "rule", "attack", "strength", "attackers"]
NAME = "attack_tolerance"


def draw(run_folders: Sequence[pathlib.Path | str], out_folder: pathlib.Path | str) -> list[pathlib.Path]:
    """A column an attack: quality of the honest clients above, its share of the clean average's below.

    Attacks of another strength than most are in the table alone.

    Raises:
        InputError: see `load_runs`; there are several settings, no attack, or no clean average beside an attacked run.
    """
    runs = load_runs(common.check_runs(run_folders), varying=VARYING)
    curves.one_setting(runs)
    table = by_point(by_run(runs))
    attacked = table[table["attack"] != "none"]
    kinds = [kind for kind in TOLD if kind in set(attacked["attack"])]
    usual = attacked["strength"].mode().iloc[0]
    drawn = table[(table["attack"] == "none") | (table["strength"] == usual)]
    figure, axes = common.new_figure(2, len(kinds), 2.2 * len(kinds) + 1.6, 4.4, sharex=True, sharey="row")
    for place, kind in enumerate(kinds):
        points = drawn[drawn["attack"].isin(["none", kind])]
        above, below = axes[place], axes[place + len(kinds)]
        _lines(above, points, "value")
        _lines(below, points, "kept")
        below.axhline(KEPT, color="0.6", lw=0.8, ls=":")
        above.set_title(TOLD[kind])
        below.set_xlabel("Dishonest clients")
        below.set_xticks(sorted(set(drawn["attackers"])))
    axes[0].set_ylabel(f"{runs.measures.names[_measure(runs)]},\nhonest clients")
    axes[len(kinds)].set_ylabel("Share of the clean\naverage's, same clients")
    curves.legend_beside(axes[:1])
    seeds = int(table["seeds"].min())
    text = f"Test studies at home; {_bars(seeds)}; dotted: {KEPT:.0%}; an area of .5 is chance."
    return curves.finish(figure, NAME, table, runs, text, out_folder)


def by_run(runs: Runs) -> pandas.DataFrame:
    """A row a run: `POINT`, seed, value, kept, and the share of the attackers' updates that were refused.

    value: mean of the main measure over honest clients, each on its own test studies. kept: the same over that of the
    run of the same seed with the average and without an attack, on the same clients.
    """
    measure = _measure(runs)
    averages = [run for run in runs if run.configuration.method.server.rule == "fedavg"]
    clean = {run.seed: run for run in averages if not _attack(run).planned}
    if len(rows_of := sorted({run.method for run in averages})) > 1:
        raise InputError(f"{' and '.join(rows_of)} are rows of rule fedavg; give the runs of one of them.")
    if not any(_attack(run).planned for run in runs):
        raise InputError("None of these runs was attacked; give runs with attack.kind and attack.clients as well.")
    rows = []
    for run in runs:
        if run.seed not in clean:
            raise InputError(f"{run.folder}: no clean run of rule fedavg and seed {run.seed} is there; give it, too.")
        values, usual = (each.values_by_client(measure) for each in (run, clean[run.seed]))
        dishonest = attackers(values.index, _attack(run), run.seed)
        honest = [client for client in usual.index if client not in dishonest]
        value = float(values[honest].mean())
        rows.append(
            {
                "method": run.method,
                "rule": run.configuration.method.server.rule,
                "attack": _attack(run).kind,
                "strength": _attack(run).strength,
                "attackers": len(dishonest),
                "seed": run.seed,
                "metric": measure,
                "value": value,
                "kept": value / float(usual[honest].mean()),
                "refused": _refused(run, dishonest),
            }
        )
    return pandas.DataFrame(rows)


def by_point(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Means over seeds, with the lowest and the highest seed's, in the order of `TOLD` and of the attackers."""
    groups = rows.groupby([*POINT, "metric"], sort=False)
    table = groups.agg(
        seeds=("seed", "nunique"),
        value=("value", "mean"),
        low=("value", "min"),
        high=("value", "max"),
        kept=("kept", "mean"),
        kept_low=("kept", "min"),
        kept_high=("kept", "max"),
        refused=("refused", "mean"),
    ).reset_index()
    order = table["attack"].map({"none": -1, **{kind: place for place, kind in enumerate(TOLD)}})
    table = table.assign(order=order).sort_values(["order", "strength", "attackers"], kind="stable")
    return table.drop(columns="order")


def _lines(axis: Axes, points: pandas.DataFrame, column: str) -> None:
    low, high = ("low", "high") if column == "value" else ("kept_low", "kept_high")
    names = list(dict.fromkeys(points["method"]))
    looks = curves.styles(names)
    for place, name in enumerate(names):
        rows = points[points["method"] == name].sort_values("attackers")
        bars = rows[[column, low, high]].set_axis(["value", "low", "high"], axis=1)
        x = rows["attackers"] + 0.05 * (place - (len(names) - 1) / 2)  # points at one height stay apart
        curves.error_bars(axis, x, bars, label=f"{name} ({rows['rule'].iloc[0]})", **looks[name])


def _bars(seeds: int) -> str:
    return "one seed" if seeds == 1 else f"means, lowest and highest of {seeds} seeds"


def _attack(run: Run) -> Attack:
    return run.configuration.profile.attack


def _measure(runs: Runs) -> str:
    """The first measure that a hospital tests and that these runs have."""
    return next(key for key in runs.measures.tested if not runs[0].values_by_client(key).empty)


def _refused(run: Run, dishonest: Sequence[str]) -> float:
    """The share of the dishonest clients' updates that the server's checks kept out; NaN where there are none."""
    rounds = common.read_run_table(run.folder, "rounds.csv", ("round", "client", "status"))
    return float((rounds.loc[rounds["client"].isin(dishonest), "status"] == LEFT_OUT).mean())


if __name__ == "__main__":
    common.run_script(draw, __doc__)
