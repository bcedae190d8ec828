"""Several finished runs for one table or figure: held against each other, and labelled by what tells them apart."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from fedmrg_core.data.publishing import publishable_metrics
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.equal_data import label_note
from fedmrg_core.evaluation.stored_runs import Run, dotted, load_run, numbers_of
from fedmrg_core.runs.attack import attack_notes
from fedmrg_core.runs.configuration import load_profile
from fedmrg_core.runs.measures import Measures
from fedmrg_core.runs.methods import load_methods

# Packages whose version can change a number.
PACKAGES = ("torch", "transformers", "peft", "flwr", "numpy", "scikit-learn", "pycocoevalcap")
# Keys of the profile in which methods may differ from one another: each is owed a learning rate that suits it.
PACES = ("training.learning_rate", "training.adapter_learning_rate")


class Runs(collections.abc.Sequence):
    """Runs that may stand in one table.

    Args:
        runs: each with another setting, method, content or seed.
        notes: what a reader of the table has to know about them, a sentence each.
    """

    def __init__(self, runs: Sequence[Run], notes: Sequence[str] = ()) -> None:
        self.runs, self.notes = tuple(runs), tuple(notes)
        self._labels = dict(zip(map(id, self.runs), _labels(self.runs), strict=True))

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, index: int) -> Run:
        return self.runs[index]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def label(self, run: Run) -> str:
        """Method, and the numbers in which it differs from the others, e.g. ``fedmrg payload.bits=4``."""
        return self._labels[id(run)]

    @property
    def folders(self) -> list[pathlib.Path]:
        """The run folders."""
        return [run.folder for run in self.runs]

    @property
    def measures(self) -> Measures:
        """What the runs' task declares."""
        return self.runs[0].measures

    @property
    def settings(self) -> list[str]:
        """The settings in the order they come."""
        return list(dict.fromkeys(run.setting for run in self.runs))

    def groups(self) -> dict[tuple[str, str], list[Run]]:
        """Runs that differ in nothing but the seed, by setting and label, in order of their seeds."""
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            groups.setdefault((run.setting, self.label(run)), []).append(run)
        order = dict.fromkeys((run.setting, self.label(run)) for run in self.runs)
        return {key: groups[key] for key in order}


def load_runs(folders: Sequence[pathlib.Path | str], varying: Collection[str] = (), same_code: bool = False) -> Runs:
    """Read run folders and make sure that they may stand in one table or figure.

    Measures that may not be published (`fedmrg_core.data.publishing`) are not in it.

    Args:
        folders: finished and evaluated runs.
        varying: dotted keys of the profile that may differ, e.g. ``training.contrast_temperature``.
        same_code: refuse runs of different training code, instead of a note.

    Raises:
        InputError: no folder, a broken one, two folders of the same run, or runs of another task, of other data,
            of another profile (but for the learning rates of different methods, which are noted) or, if asked for, of
            other code; the sentence names both folders.
    """
    if not folders:
        raise InputError("There is no run folder; give at least one finished run.")
    runs = [_publishable(load_run(folder)) for folder in folders]
    _check_task(runs)
    _check_data(runs)
    _check_profiles(runs, varying)
    attacks = attack_notes(run.configuration.profile.attack for run in runs)
    origins = [*_code_notes(runs, same_code), *_label_notes(runs)]
    loaded = Runs(runs, [*attacks, *origins, *_pace_notes(runs), *_pairing_notes(runs)])
    _check_twice(loaded)
    _check_studies(loaded)
    return loaded


def _publishable(run: Run) -> Run:
    """The run with the measures that may be published: tables and figures of several runs are made for that."""
    metrics = publishable_metrics(run.configuration.data, run.metrics)
    return run if metrics is run.metrics else dataclasses.replace(run, metrics=metrics)


def _check_task(runs: Sequence[Run]) -> None:
    for run in runs:
        first, task = runs[0].configuration.task, run.configuration.task
        if task != first:
            raise InputError(
                f"{runs[0].folder} and {run.folder} are runs of the tasks {first!r} and {task!r}; compare runs of one."
            )


def _check_data(runs: Sequence[Run]) -> None:
    first: dict[str, Run] = {}
    for run in runs:
        other = first.setdefault(run.configuration.data, run)
        if other.fingerprint != run.fingerprint:
            raise InputError(
                f"{other.folder} and {run.folder} were made with different data, though both are called "
                f"{run.configuration.data!r} (data_fingerprint in manifest.json); make one of them again."
            )


def _check_profiles(runs: Sequence[Run], varying: Collection[str]) -> None:
    first_of_method: dict[str, Run] = {}
    for run in runs:
        alike = first_of_method.setdefault(run.method, run)
        for key, value in dotted(run.configuration.profile).items():
            other = alike if key in PACES else runs[0]
            expected = dotted(other.configuration.profile)[key]
            if key not in varying and expected != value:
                raise InputError(
                    f"{other.folder} and {run.folder} have different profiles: {key} is {expected!r} and "
                    f"{value!r}; compare runs of one profile."
                )


def _pace_notes(runs: Sequence[Run]) -> list[str]:
    """A sentence for each learning rate in which methods differ."""
    notes = []
    for key in PACES:
        methods: dict[float, dict[str, None]] = {}  # a dictionary keeps the order of the runs, a set would not
        for run in runs:
            methods.setdefault(dotted(run.configuration.profile)[key], {})[run.method] = None
        usual, *others = sorted(methods, key=lambda value: -len(methods[value]))
        if others:
            differing = "; ".join(f"{value:g} for {', '.join(methods[value])}" for value in others)
            notes.append(f"{key.rpartition('.')[2].replace('_', ' ').capitalize()} {usual:g}, but {differing}.")
    return notes


def _pairing_notes(runs: Sequence[Run]) -> list[str]:
    """A sentence where runs have no numbers of single studies, without which nothing is compared study by study."""
    lacking = [run for run in runs if not run.holds_scores]
    if not lacking:
        return []
    data = ", ".join(sorted({run.configuration.data for run in lacking}))
    return [f"{len(lacking)} of {len(runs)} runs hold no scores of single studies ({data}): none of them is tested."]


def _check_twice(runs: Runs) -> None:
    seen: dict[tuple[str, str, int], Run] = {}
    for run in runs:
        other = seen.setdefault((run.setting, runs.label(run), run.seed), run)
        if other is not run:
            raise InputError(f"{other.folder} and {run.folder} are the same run; give each run once.")


def _check_studies(runs: Runs) -> None:
    """In one setting every run's test set of a role has the same number of studies; `comparison` compares their ids."""
    first: dict[tuple[str, str], tuple[Run, int]] = {}
    for run in runs:
        for role in run.measures.answers:
            if run.answer(role) is None:
                continue
            studies = int(run.values(role)["studies"].iloc[0])
            other, expected = first.setdefault((run.setting, role), (run, studies))
            if expected != studies:
                raise InputError(
                    f"{other.folder} and {run.folder} were tested on {expected} and {studies} studies ({role}); "
                    "evaluate them on the same ones."
                )


def _code_notes(runs: Sequence[Run], same_code: bool) -> list[str]:
    notes = []
    codes: dict[Any, Run] = {}
    for run in runs:
        codes.setdefault(run.manifest.get("training_code"), run)
    if len(codes) > 1:
        first, second = list(codes.values())[:2]
        if same_code:
            raise InputError(f"{first.folder} and {second.folder} were made by different code; make one of them again.")
        notes.append(f"Runs of {len(codes)} states of the training code, e.g. {_tail(first)} and {_tail(second)}.")
    commits = {str(run.manifest.get("commit"))[:7] for run in runs}
    if len(commits) > 1:
        notes.append(f"Runs of {len(commits)} commits: {', '.join(sorted(commits))}.")
    if changed := sum(bool(run.manifest.get("uncommitted_changes")) for run in runs):
        notes.append(f"{changed} of {len(runs)} runs were made with uncommitted changes.")
    for package in PACKAGES:
        versions = {str(run.manifest.get("packages", {}).get(package)) for run in runs}
        if len(versions) > 1:
            notes.append(f"Runs with several versions of {package}: {', '.join(sorted(versions))}.")
    if gpus := [run.manifest["gpu"]["name"] for run in runs if run.manifest.get("gpu")]:
        notes.append(f"{len(gpus)} of {len(runs)} runs were made on a GPU ({', '.join(sorted(set(gpus)))}).")
    models: dict[str, set[Any]] = {}
    for run in runs:
        base = run.manifest.get("fingerprints", {}).get("base_models")
        models.setdefault(corpus_name(run.configuration.data), set()).add(base)
    notes += [
        f"Runs on {data} start from {len(found)} base models." for data, found in models.items() if len(found) > 1
    ]
    return notes


def _label_notes(runs: Sequence[Run]) -> list[str]:
    by_data: dict[str, list[str]] = {}
    for run in runs:
        by_data.setdefault(run.configuration.data, []).append(str(run.manifest["data_fingerprint"]))
    return [note for fingerprints in by_data.values() if (note := label_note(fingerprints))]


def _tail(run: Run) -> str:
    return "/".join(run.folder.parts[-3:])


def _labels(runs: Sequence[Run]) -> list[str]:
    """A label a run: its method, and where its numbers are not the usual ones, which and how."""
    contents = [run.content() for run in runs]
    labels = []
    for run, content in zip(runs, contents, strict=True):
        alike = [other for each, other in zip(runs, contents, strict=True) if each.method == run.method]
        usual = _usual_content(run, alike)
        different = [f"{key}={content[key]}" for key in content if key in usual and content[key] != usual[key]]
        labels.append(" ".join([run.method, *different]))
    return labels


def content_now(run: Run) -> dict[str, Any]:
    """What the run's row and profile say now, as `Run.content` has it; empty for a row or profile of another time."""
    settings = run.configuration
    return _content_now(run.method, settings.profile.name, settings.data, settings.task)


def _usual_content(run: Run, contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the run's method and profile say now if one of these is so, otherwise what most of them are."""
    now = content_now(run)
    if now in contents:
        return now
    by_text = collections.Counter(json.dumps(content, sort_keys=True) for content in contents)
    return json.loads(by_text.most_common(1)[0][0])


@functools.cache
def _content_now(method: str, profile: str, data: str, task: str) -> dict[str, Any]:
    try:
        return numbers_of(_profile_now(profile, data), _methods_now(task=task)[method])
    except (InputError, KeyError):  # a row or profile of another time
        return {}


_profile_now, _methods_now = functools.cache(load_profile), functools.cache(load_methods)
