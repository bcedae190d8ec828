"""One finished run, read back from its folder for tables and figures."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import pandas

from fedmrg_core.data.site_names import sites_part
from fedmrg_core.data.sources import corpus_name, data_source
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.equal_data import current_fingerprint
from fedmrg_core.files.stored_tables import read_table
from fedmrg_core.files.strict_yaml import Strict
from fedmrg_core.metrics.statistics import StudyStatistics
from fedmrg_core.runs.configuration import Profile
from fedmrg_core.runs.measures import PREDICTIONS, STUDY_SCORES, Measures, measures_of
from fedmrg_core.runs.methods import Method
from fedmrg_core.runs.metric_table import read_metrics
from fedmrg_core.runs.run_configuration import RunConfiguration, read_configuration

LEDGER_COLUMNS = ("round", "client", "direction", "module", "bytes", "phase")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One finished and evaluated run.

    Attributes:
        folder: its run folder.
        configuration: config.yaml.
        manifest: manifest.json.
        metrics: metrics.csv, see `metric_table.METRIC_COLUMNS`.
        ledger: ledger.csv; without rows where nothing travelled.
    """

    folder: pathlib.Path
    configuration: RunConfiguration
    manifest: Mapping[str, Any]
    metrics: pandas.DataFrame
    ledger: pandas.DataFrame

    @property
    def method(self) -> str:
        """The row of methods.yaml."""
        return self.configuration.method.name

    @property
    def seed(self) -> int:
        """The root seed."""
        return self.configuration.seed

    @functools.cached_property
    def measures(self) -> Measures:
        """What its task declares for evaluation."""
        return measures_of(self.configuration.task)

    @property
    def fingerprint(self) -> str:
        """The prepared studies' fingerprint, as the same data have it today."""
        return current_fingerprint(str(self.manifest["data_fingerprint"]))

    @property
    def setting(self) -> str:
        """Data, and how they were dealt where that is not the default, e.g. ``phantom,style,clients=3``."""
        given = self.configuration
        default = {(), data_source(given.data).unseen_sites}
        unseen = () if given.unseen_sites is None else given.unseen_sites
        parts = [given.data, "" if given.partition == "site" else given.partition]
        parts += [f"clients={given.clients}" if given.clients else ""]
        parts += ["" if unseen in default else f"unseen={sites_part(unseen)}"]
        return ",".join(filter(None, parts))

    def content(self) -> dict[str, Any]:
        """Every number of profile and method by dotted key, e.g. ``training.contrast_temperature``."""
        return numbers_of(self.configuration.profile, self.configuration.method)

    def answer(self, role: str) -> str | None:
        """The adapter that counts there (see `Measures.answers`); None if the run has no answers there."""
        rows = self.metrics[(self.metrics["scope"] == role) & (self.metrics["system"] == "model")]
        return self.measures.counting_answer(role, set(rows["adapter"]), self.configuration.method)

    def answers(self, role: str) -> list[str]:
        """Every adapter that answered there, in the alphabet, as metrics.csv has them."""
        rows = self.metrics[(self.metrics["scope"] == role) & (self.metrics["system"] == "model")]
        return sorted(set(rows["adapter"]))

    def values(self, role: str, system: str = "model", adapter: str | None = None) -> pandas.DataFrame:
        """Metrics of what counts in a role, or of one adapter, by metric: value, low, high and studies."""
        adapter, table = (adapter or self.answer(role)) if system == "model" else "none", self.metrics
        chosen = (table["scope"] == role) & (table["system"] == system) & (table["adapter"] == adapter)
        return table[chosen].set_index("metric")[["value", "low", "high", "studies"]]

    def values_by_client(self, key: str, system: str = "model", adapter: str | None = None) -> pandas.Series:
        """A measure of what counts at home, or of one adapter, by client."""
        adapter, table = (adapter or self.answer("home")) if system == "model" else "none", self.metrics
        chosen = (table["metric"] == key) & (table["system"] == system) & (table["adapter"] == adapter)
        return table[chosen & ~table["scope"].isin(["home", "unseen"])].set_index("scope")["value"].dropna()

    @functools.cached_property
    def predictions(self) -> pandas.DataFrame | None:
        """The model's own rows of predictions.csv; None if the folder holds numbers only."""
        path = next((self.folder / name for name in PREDICTIONS if (self.folder / name).is_file()), None)
        return None if path is None else self.measures.read_answers(path)

    @functools.cached_property
    def scores(self) -> pandas.DataFrame | None:
        """The model's answers as `Measures.study_scores` has them; None if the folder holds neither."""
        if self.predictions is not None:
            return self.measures.study_scores(self.predictions)
        path = self.folder / STUDY_SCORES
        return self.measures.read_scores(path) if path.is_file() else None

    @functools.cached_property
    def _statistics(self) -> dict[tuple[str, str], tuple[tuple[str, ...], dict[str, StudyStatistics]]]:
        return {}

    def statistics(
        self, role: str, system: str = "model", adapter: str | None = None
    ) -> tuple[tuple[str, ...], dict[str, StudyStatistics]] | None:
        """Its studies as the scores call them, sorted, and the measures in that order; computed once.

        None without answers there, or where the folder holds only numbers of whole test sets.

        Args:
            role: home or unseen.
            system: the model, or a floor whose answers are stored under its name.
            adapter: of the model; None: the one that counts.
        """
        answer = (adapter or self.answer(role)) if system == "model" else system
        if answer is None or self.scores is None:
            return None
        if (role, answer) not in self._statistics:
            rows = self.scores[(self.scores["role"] == role) & (self.scores["adapter"] == answer)]
            if rows.empty:
                return None
            self._statistics[role, answer] = (tuple(rows["study"]), self.measures.statistics(rows))
        return self._statistics[role, answer]

    @property
    def holds_scores(self) -> bool:
        """Whether the folder has numbers of single studies, so that it can be compared study by study."""
        return any((self.folder / name).is_file() for name in (*PREDICTIONS, STUDY_SCORES))

    def bytes_per_round(self, direction: str) -> float:
        """Mean bytes on the wire of a client that sent a training update in a round, training and validation together.

        A client that had a pause, or whose update did not come, is not in the mean, though it may have validated.

        Args:
            direction: "up", from the client; "down", to it.
        """
        rows = self.ledger[self.ledger["module"] == "message"]
        sent = rows.loc[(rows["phase"] == "train") & (rows["direction"] == "up"), ["round", "client"]].drop_duplicates()
        counted = rows[rows["direction"] == direction].merge(sent, on=["round", "client"])
        return float(counted["bytes"].sum() / len(sent)) if len(sent) else 0.0

    @property
    def parameters_sent(self) -> float:
        """Shared parameters, where a client sends these each round and nothing else.

        NaN if the manifest does not say, where factors travel in their place, and where SCAFFOLD's controls go along.
        """
        method = self.configuration.method
        if method.payload.rank is not None or method.client.control_variates:
            return math.nan
        return float(self.manifest.get("parameters", {}).get("shared", math.nan))


def is_synthetic(data: str) -> bool:
    """Whether no patient is in data of this name.

    Raises:
        InputError: no data set has this name.
    """
    return data_source(data).synthetic


def synthetic_note(data: str) -> str:
    """What a table or picture says of synthetic data: which they are."""
    name = corpus_name(data)
    return "Synthetic phantom data" if name == "phantom" else f"Synthetic data: {name.replace('_', ' ')}"


def numbers_of(profile: Profile, method: Method) -> dict[str, Any]:
    """Everything that profile and row say of a run, by dotted key; not what they are called."""
    return dotted(profile, ("name",)) | dotted(method, ("name", "description"))


def dotted(content: Strict, without: Collection[str] = ()) -> dict[str, Any]:
    """A profile or method with dotted keys, one level deep."""
    flat: dict[str, Any] = {}
    for key, value in content.whole().items():
        if key not in without:
            flat |= {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def load_run(folder: pathlib.Path | str) -> Run:
    """Read one run folder.

    Raises:
        InputError: a file is missing, unreadable or lacks what it should hold, or metrics.csv has a measure that the
            run's task does not declare.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a finished run's folder.")
    configuration = read_configuration(folder)
    manifest = read_manifest(folder)
    metrics = read_metrics(folder / "metrics.csv")
    run = Run(folder, configuration, manifest, metrics, _read_ledger(folder))
    run.measures.check_metrics(metrics, str(folder / "metrics.csv"))
    return run


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """A run folder's manifest.json.

    Raises:
        InputError: it is missing or unreadable, or does not say which data the run used.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; finish the run with notebook 06_federated_run first.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); make the run again.") from error
    if not isinstance(manifest, dict) or not manifest.get("data_fingerprint"):
        raise InputError(f"{path} has no entry 'data_fingerprint'; make the run again.")
    return manifest


def data_of(folder: pathlib.Path) -> str:
    """The fingerprint of the studies that a run was made with, as the same data have it today.

    Raises:
        InputError: as `read_manifest`.
    """
    return current_fingerprint(str(read_manifest(folder)["data_fingerprint"]))


def _read_ledger(folder: pathlib.Path) -> pandas.DataFrame:
    path = folder / "ledger.csv"
    if not path.is_file():  # nothing travelled
        return pandas.DataFrame(columns=list(LEDGER_COLUMNS))
    return read_table(path, LEDGER_COLUMNS, "make the run again")
