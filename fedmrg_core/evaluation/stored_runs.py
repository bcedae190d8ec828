"""Finished runs, read back from their folders for tables and figures, and held against each other first."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas

from fedmrg_core.configuration import load_methods, load_profile
from fedmrg_core.data.sources import data_source
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.clinical_metrics import per_study_clinical
from fedmrg_core.evaluation.predictions import read_metrics, read_predictions, state_array
from fedmrg_core.evaluation.statistics import StudyStatistics
from fedmrg_core.evaluation.text_metrics import set_free_scores
from fedmrg_core.federation.run_configuration import RunConfiguration, read_configuration
from fedmrg_core.strict_yaml import Strict

# Which of a run's answers counts where [ours]: at home the one that validation chose (HOME_ANSWERS_FILE), else the
# client's own adapter if the method has one; at a centre that never trained the shared one, because it has no other.
HOME_ANSWERS_FILE = "home_answers.csv"
ANSWERS: dict[str, tuple[str, ...]] = {"home": ("specialised", "generic"), "unseen": ("generic",)}
PREDICTIONS = ("predictions.csv", "predictions.csv.gz")  # as notebook 07 leaves them; as reference runs keep them
LEDGER_COLUMNS = ("round", "client", "direction", "module", "bytes")
# Packages whose version can change a number.
PACKAGES = ("torch", "transformers", "peft", "flwr", "numpy", "scikit-learn", "pycocoevalcap")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One finished and evaluated run.

    Attributes:
        folder: its run folder.
        configuration: config.yaml.
        manifest: manifest.json.
        metrics: metrics.csv, see `predictions.METRIC_COLUMNS`.
        ledger: ledger.csv; without rows where nothing travelled.
        home_answer: what home_answers.csv chose; None for a method without a choice.
    """

    folder: pathlib.Path
    configuration: RunConfiguration
    manifest: Mapping[str, Any]
    metrics: pandas.DataFrame
    ledger: pandas.DataFrame
    home_answer: str | None = None

    @property
    def method(self) -> str:
        """The row of methods.yaml."""
        return self.configuration.method.name

    @property
    def seed(self) -> int:
        """The root seed."""
        return self.configuration.seed

    @property
    def fingerprint(self) -> str:
        """The prepared studies' fingerprint."""
        return str(self.manifest["data_fingerprint"])

    @property
    def setting(self) -> str:
        """Data, and how they were dealt where that is not the default, e.g. ``phantom,style,clients=3``."""
        given = self.configuration
        default = {(), data_source(given.data).unseen_sites}
        unseen = () if given.unseen_sites is None else given.unseen_sites
        parts = [given.data, "" if given.partition == "site" else given.partition]
        parts += [f"clients={given.clients}" if given.clients else ""]
        parts += ["" if unseen in default else f"unseen={'+'.join(unseen)}"]
        return ",".join(filter(None, parts))

    def content(self) -> dict[str, Any]:
        """Every number of profile and method by dotted key, e.g. ``training.contrast_temperature``."""
        profile, method = self.configuration.profile, self.configuration.method
        return dotted(profile, ("name",)) | dotted(method, ("name", "description"))

    def answer(self, role: str) -> str | None:
        """The adapter that counts there (see `ANSWERS`); None if the run has no answers there."""
        rows = self.metrics[(self.metrics["scope"] == role) & (self.metrics["system"] == "model")]
        there = set(rows["adapter"])
        chosen = (self.home_answer,) if role == "home" and self.home_answer else ANSWERS[role]
        return next((adapter for adapter in chosen if adapter in there), None)

    def values(self, role: str, system: str = "model") -> pandas.DataFrame:
        """Metrics of what counts in a role, indexed by metric: value, low, high and studies."""
        adapter = self.answer(role) if system == "model" else "none"
        table = self.metrics
        chosen = (table["scope"] == role) & (table["system"] == system) & (table["adapter"] == adapter)
        return table[chosen].set_index("metric")[["value", "low", "high", "studies"]]

    @functools.cached_property
    def predictions(self) -> pandas.DataFrame | None:
        """The model's own rows of predictions.csv; None if the folder holds numbers only."""
        path = next((self.folder / name for name in PREDICTIONS if (self.folder / name).is_file()), None)
        if path is None:
            return None
        rows = read_predictions(path)
        return rows[rows["system"] == "model"]

    @functools.cached_property
    def _statistics(self) -> dict[str, tuple[tuple[str, ...], dict[str, StudyStatistics]]]:
        return {}

    def statistics(self, role: str) -> tuple[tuple[str, ...], dict[str, StudyStatistics]] | None:
        """Study ids, sorted, and the measures that a study adds to by itself, in that order; computed once.

        METEOR (its Java) and CIDEr (of a set, not of a study) are left out. None without answers or predictions.
        """
        if self.answer(role) is None or self.predictions is None:
            return None
        if role not in self._statistics:
            rows = self.predictions
            rows = rows[(rows["role"] == role) & (rows["adapter"] == self.answer(role))].sort_values("study_id")
            measures = {
                **set_free_scores(rows["reference"].tolist(), rows["generated"].tolist(), meteor=False),
                **per_study_clinical(state_array(rows["states_reference"]), state_array(rows["states_generated"])),
            }
            self._statistics[role] = (tuple(rows["study_id"]), measures)
        return self._statistics[role]

    def bytes_per_round(self, direction: str) -> float:
        """Mean bytes on the wire of a client that took part in a round, training and validation together.

        Args:
            direction: "up", from the client; "down", to it.
        """
        rows = self.ledger[(self.ledger["module"] == "message") & (self.ledger["direction"] == direction)]
        taken = len(self.ledger[["round", "client"]].drop_duplicates())
        return float(rows["bytes"].sum() / taken) if taken else 0.0

    @property
    def parameters_sent(self) -> float:
        """Shared parameters, all of which a client sends each round; NaN if the manifest does not say."""
        return float(self.manifest.get("parameters", {}).get("shared", float("nan")))


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


def dotted(content: Strict, without: Collection[str] = ()) -> dict[str, Any]:
    """A profile or method with dotted keys, one level deep."""
    flat: dict[str, Any] = {}
    for key, value in content.model_dump(mode="json").items():
        if key not in without:
            flat |= {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def load_run(folder: pathlib.Path | str) -> Run:
    """Read one run folder.

    Raises:
        InputError: a file is missing, unreadable or lacks what it should hold.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a finished run's folder.")
    configuration = read_configuration(folder)
    manifest = _read_manifest(folder / "manifest.json")
    metrics = read_metrics(folder / "metrics.csv")
    return Run(folder, configuration, manifest, metrics, _read_ledger(folder), _read_home_answer(folder))


def _read_home_answer(folder: pathlib.Path) -> str | None:
    path = folder / HOME_ANSWERS_FILE
    if not path.is_file():
        return None
    table = pandas.read_csv(path)
    if not {"answer", "chosen"} <= set(table) or table["chosen"].sum() != 1:
        raise InputError(f"{path}: expected columns answer and chosen with one row chosen; evaluate the run again.")
    return str(table.loc[table["chosen"].astype(bool), "answer"].iloc[0])


def _read_manifest(path: pathlib.Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; finish the run with notebook 06_federated_run first.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); make the run again.") from error
    if not isinstance(manifest, dict) or not manifest.get("data_fingerprint"):
        raise InputError(f"{path} has no entry 'data_fingerprint'; make the run again.")
    return manifest


def _read_ledger(folder: pathlib.Path) -> pandas.DataFrame:
    path = folder / "ledger.csv"
    if not path.is_file():  # nothing travelled
        return pandas.DataFrame(columns=list(LEDGER_COLUMNS))
    ledger = pandas.read_csv(path)
    missing = [name for name in LEDGER_COLUMNS if name not in ledger]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; expected {', '.join(LEDGER_COLUMNS)}.")
    return ledger


def load_runs(folders: Sequence[pathlib.Path | str], varying: Collection[str] = (), same_code: bool = False) -> Runs:
    """Read run folders and make sure that they may stand in one table or figure.

    Args:
        folders: finished and evaluated runs.
        varying: dotted keys of the profile that may differ, e.g. ``training.contrast_temperature``.
        same_code: refuse runs of different training code, instead of a note.

    Raises:
        InputError: no folder, a broken one, two folders of the same run, or runs of other data, of another profile or,
            if asked for, of other code; the sentence names both folders.
    """
    if not folders:
        raise InputError("There is no run folder; give at least one finished run.")
    runs = [load_run(folder) for folder in folders]
    _check_data(runs)
    _check_profiles(runs, varying)
    loaded = Runs(runs, _code_notes(runs, same_code))
    _check_twice(loaded)
    _check_studies(loaded)
    return loaded


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
    first, expected = runs[0], dotted(runs[0].configuration.profile)
    for run in runs:
        for key, value in dotted(run.configuration.profile).items():
            if key not in varying and expected[key] != value:
                raise InputError(
                    f"{first.folder} and {run.folder} have different profiles: {key} is {expected[key]!r} and "
                    f"{value!r}; compare runs of one profile."
                )


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
        for role in ANSWERS:
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
    models: dict[str, set[Any]] = {}
    for run in runs:
        base = run.manifest.get("fingerprints", {}).get("base_models")
        models.setdefault(run.configuration.data.partition("-")[0], set()).add(base)
    notes += [
        f"Runs on {data} start from {len(found)} base models." for data, found in models.items() if len(found) > 1
    ]
    return notes


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


def _usual_content(run: Run, contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the run's method and profile say now if one of these is so, otherwise what most of them are."""
    now = _content_now(run.method, run.configuration.profile.name)
    if now in contents:
        return now
    by_text = collections.Counter(json.dumps(content, sort_keys=True) for content in contents)
    return json.loads(by_text.most_common(1)[0][0])


@functools.cache
def _content_now(method: str, profile: str) -> dict[str, Any]:
    try:
        return dotted(_profile_now(profile), ("name",)) | dotted(_methods_now()[method], ("name", "description"))
    except (InputError, KeyError):  # a row or profile of another time
        return {}


_profile_now, _methods_now = functools.cache(load_profile), functools.cache(load_methods)
