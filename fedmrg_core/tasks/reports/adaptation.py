"""How many studies of its own a centre needs that joins after the federation [ours].

The selected shared model goes on alone on the first n of the centre's training studies: its adapters and prompts learn,
encoder, projection and diagnosis head are frozen. Epochs, steps and learning rate were set before anything was run;
nothing is chosen on the way, so no study is needed for validation.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas
from tqdm.auto import tqdm

from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.errors import InputError
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.seeds import numpy_stream, torch_threads
from fedmrg_core.tasks.reports.fine_tuning import train_alone
from fedmrg_core.tasks.reports.finished_run import FinishedRun
from fedmrg_core.tasks.reports.methods import ReportMethod
from fedmrg_core.tasks.reports.predictions import score_predictions
from fedmrg_core.tasks.reports.trained_run import (
    TestSet,
    drop_outdated_reports,
    load_trained,
    place_reports,
    predictions_path,
    shares_a_model,
    stored_reports,
    stored_rows,
    test_sets,
)
from fedmrg_core.training.adapter_names import ADAPTER_MODULES, GENERIC, SPECIALISED
from fedmrg_core.training.client_update import Plan

COUNTS = (0, 8, 32, 128)
EPOCHS = 10
LEAST_STEPS = 20
RATE = 0.3  # of each module's pace, held constant
COLUMNS = ("count", "metric", "value", "low", "high", "studies")


def evaluate_adaptation(folder: pathlib.Path) -> pandas.DataFrame:
    """Write adaptation.csv of a finished run: every measure on the unseen centres by number of their own studies.

    Returns:
        The long table: count, metric, value, low, high (a bootstrap interval), studies (test studies scored).

    Raises:
        InputError: the run is not finished, shares no model, or no unseen centre has training studies of its own.
    """
    run = FinishedRun(folder)
    drop_outdated_reports(folder, run)
    settings = run.configuration
    with torch_threads(settings.threads):
        by_count = adapt_to_sites(folder, run)
    labels = {frame.adapter.iloc[0]: count for count, frame in by_count.items()}
    reports = pandas.concat(by_count.values(), ignore_index=True)
    scored = score_predictions(reports, settings.seed, settings.profile.bootstrap_samples)
    scored = scored[(scored["scope"] == "unseen") & scored["adapter"].isin(labels)]
    table = scored.assign(count=scored["adapter"].map(labels))[list(COLUMNS)].reset_index(drop=True)
    write_text(folder / "adaptation.csv", table_text(table))
    return table


def adapt_to_sites(
    folder: pathlib.Path, run: FinishedRun, counts: Sequence[int] = COUNTS
) -> dict[int, pandas.DataFrame]:
    """Adapt the selected model to each unseen centre and write its test reports.

    A count is left out unless every such centre has as many studies: otherwise fewer centres would be compared with
    more. Reports are stored as predictions/<site>-adapted-<count>.csv as soon as they are there, and not written again.

    Args:
        folder: of the finished run.
        run: the same, opened.
        counts: numbers of the centre's own training studies; 0 is the selected model as it is.

    Returns:
        Rows of predictions by count, all centres together.

    Raises:
        InputError: the method shares no model, or no unseen centre has training studies of its own.
    """
    if not shares_a_model(run.configuration.method):
        raise InputError(f"{folder}: its method shares no model that a new centre could adapt; choose another method.")
    studies = {s: ClientTensors(part) for s, part in run.adaptation().items()}
    if not studies:
        raise InputError(f"{folder}: no unseen centre has training studies of its own to adapt with; prepare some.")
    places = [place for place in test_sets(run) if place.role == "unseen" and place.site in studies]
    usable = [count for count in counts if all(len(studies[place.site]) >= count for place in places)]
    jobs = [(count, place) for count in usable for place in places]
    frames: dict[int, list[pandas.DataFrame]] = {}
    for count, place in tqdm(jobs, desc="adaptation"):
        frames.setdefault(count, []).append(_reports(folder, run, place, studies[place.site], count))
    return {count: pandas.concat(parts, ignore_index=True) for count, parts in frames.items()}


def _reports(
    folder: pathlib.Path, run: FinishedRun, place: TestSet, studies: ClientTensors, count: int
) -> pandas.DataFrame:
    """One centre's test reports after adaptation to `count` of its studies, stored or written now."""
    if count == 0:
        return place_reports(folder, run, place, GENERIC)
    label = f"adapted-{count}"
    path = predictions_path(folder, place.site, label)
    if path.is_file():
        return stored_rows(path)
    adapt(folder, run, place.site, studies, count)
    return stored_reports(path, run, place, GENERIC, label)


def adapt(folder: pathlib.Path, run: FinishedRun, site: str, studies: ClientTensors, count: int) -> None:
    """Leave in memory the selected model adapted to the first `count` studies of one centre, in a seeded order.

    The studies of a smaller count are among those of a larger one. A specialised adapter starts as a copy of the
    generic one: the centre has none of its own.
    """
    settings, model = run.configuration, run.model
    load_trained(folder, run)
    if {GENERIC, SPECIALISED} <= settings.method.modules.keys():
        model.load_state({f"{SPECIALISED}/{key}": t.detach() for key, t in model.tensors_of(GENERIC).items()})
    order = numpy_stream(settings.seed, "adaptation", site).permutation(len(studies)).tolist()
    plan = Plan(adapted_modules(settings.method), EPOCHS, RATE, LEAST_STEPS, order[:count])
    stream = ("adaptation", site, count)
    train_alone(
        model, studies, plan, stream=stream, profile=settings.profile, method=settings.method, seed=settings.seed
    )


def adapted_modules(method: ReportMethod) -> frozenset[str]:
    """The modules that adaptation trains: adapters and prompts, else the decoder, else the projection [ours].

    Of a prompt source those that go at the adapters' pace: the prompt table, but not the diagnosis head.
    """
    source = method.prompt_type
    light = {module for modules in ADAPTER_MODULES.values() for module in modules}
    light |= source.own_modules.keys() - source.encoder_paced
    for wanted in (light, {"decoder"}, {"projection"}):
        if found := wanted & method.modules.keys():
            return frozenset(found)
    return frozenset(method.modules)
