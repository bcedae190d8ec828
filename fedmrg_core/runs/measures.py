"""What evaluation asks of a task: which measures there are, which answer counts where, what is stored of each study.

A task declares a `Measures` under its name (`task_registry`). References, `verify`, comparison and tables ask for
nothing else. The class itself serves tasks whose measures are means of one number a study; others override what
differs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence

import pandas

from fedmrg_core.errors import InputError
from fedmrg_core.files.stored_tables import read_table, table_text
from fedmrg_core.files.whole_files import write_text
from fedmrg_core.metrics.statistics import RESAMPLES, StudyStatistics, bootstrap_intervals, mean_statistics
from fedmrg_core.runs.methods import Method
from fedmrg_core.runs.metric_table import METRIC_COLUMNS, SUMMARIES, fairness_rows, scopes_of, write_metrics
from fedmrg_core.runs.task_registry import measures_entry
from fedmrg_core.seeds import numpy_stream

PREDICTIONS = ("predictions.csv", "predictions.csv.gz")  # as evaluation leaves them; as reference runs keep them
STUDY_SCORES = "study_scores.csv.gz"  # as references of data of level scores keep them
KEYS = ("study", "role", "adapter")  # what names a row of the scores
_SET_LENGTH = 8  # hexadecimal digits of a test set's digest
_NUMBER_LENGTH = 6  # digits of a study's number, so that names sort as numbers do
Place = tuple[str, str]  # scope (a client, home, unseen) and adapter


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measure by which runs are compared: study by study where `Measures.statistics` has it, else as a whole.

    Attributes:
        key: as metrics.csv has it.
        name: as a reader sees it.
        higher_is_better: whether the highest value is the best.
        least: no value is below it.
    """

    key: str
    name: str
    higher_is_better: bool = True
    least: float = 0.0


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers of one adapter to the studies of one scope.

    Attributes:
        studies: what the N studies are called, sorted.
        measures: every measure of these studies, rows in that order.
    """

    studies: tuple[str, ...]
    measures: dict[str, StudyStatistics]


class Measures:
    """A task's declaration.

    Attributes:
        compared: the measures by which runs are compared, in the order of tables.
        further: keys of metrics.csv that are stored and not compared.
        blank: beginnings of measures' names that may be without a value, and why.
        answers: by role, the answers that count there, the first that a run has.
        floors: systems of metrics.csv that are no model.
        fixed_floors: those that follow from the studies alone, whatever was trained.
        against: the method that others are tested against unless told otherwise; "" for none.
        shown: keys that tables have a column for.
        tested: keys whose differences, worst client and harmonic mean tables show.
        notes: sentences below a table, about its measures.
        floor_notes: about its floors, with the place ``{against}``.
        tables: further files of a run of numbers over many studies each, with a column ``studies``.

    Args:
        compared: see above.
    """

    further: Collection[str] = ()
    blank: Mapping[str, str] = {}
    answers: Mapping[str, tuple[str, ...]] = {"home": ("own",), "unseen": ("shared",)}
    floors: tuple[str, ...] = ()
    fixed_floors: tuple[str, ...] = ()
    against: str = ""
    shown: tuple[str, ...]
    tested: tuple[str, ...]
    notes: tuple[str, ...] = ()
    floor_notes: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    def __init__(self, *compared: Measure) -> None:
        self.compared = {measure.key: measure for measure in compared}
        self.shown = self.tested = tuple(self.compared)

    @property
    def names(self) -> dict[str, str]:
        """The readable names by key."""
        return {key: measure.name for key, measure in self.compared.items()}

    @property
    def lower(self) -> set[str]:
        """The measures that are better the lower."""
        return {key for key, measure in self.compared.items() if not measure.higher_is_better}

    def counting_answer(self, role: str, there: Collection[str], method: Method) -> str | None:
        """Of a method's answers that are there, the one that counts in a role; None if there is none."""
        return next((answer for answer in self.answers[role] if answer in there), None)

    def check_metrics(self, metrics: pandas.DataFrame, source: str) -> None:
        """Hold a table of metrics.csv against the declaration.

        Raises:
            InputError: a measure is in it that is not declared.
        """
        single = {*self.compared, *self.further}
        declared = single | {f"{summary}_{key}" for summary in SUMMARIES for key in single}
        if unknown := sorted(set(metrics["metric"].map(str)) - declared):
            raise InputError(
                f"{source}: metric {unknown[0]!r} is none that its task declares; expected {', '.join(self.compared)}, "
                "or declare it with the task's measures."
            )

    # ---- what is stored of single studies ----

    def read_answers(self, path: pathlib.Path) -> pandas.DataFrame:
        """The model's own rows of a file of `PREDICTIONS`: study_id, site, role, adapter and what measures are made of.

        Raises:
            InputError: it is no such file.
        """
        table = read_table(path, self._columns("study_id", "site"), "evaluate the run again")
        return self._checked(table, path)

    def study_scores(self, answers: pandas.DataFrame) -> pandas.DataFrame:
        """What may be kept of answers to data of level scores: `KEYS`, sorted by them, and numbers of studies."""
        rows = answers.assign(study=answers["study_id"].map(numbered(answers)))
        return rows.sort_values(list(KEYS))[self._columns("study")].reset_index(drop=True)

    def read_scores(self, path: pathlib.Path) -> pandas.DataFrame:
        """Read a file of `study_scores`.

        Raises:
            InputError: it is no such file.
        """
        text = dict.fromkeys(KEYS, str)
        return self._checked(
            read_table(path, self._columns("study"), "restore it or keep the run again", dtype=text), path
        )

    def statistics(self, scores: pandas.DataFrame) -> dict[str, StudyStatistics]:
        """Every measure that a study adds to by itself and that is not blank, over rows of scores in their order."""
        return {key: mean_statistics(scores[key].to_numpy(dtype=float)) for key in self.compared}

    def answers_by_place(self, answers: pandas.DataFrame) -> dict[Place, Answers]:
        """Of answers every measure that can be said, by client, home and unseen centre, adapter by adapter."""
        rows = answers.sort_values(["adapter", "study_id"])
        return {
            (scope, str(adapter)): Answers(tuple(studies["study_id"]), self.statistics(studies))
            for adapter, group in rows.groupby("adapter", sort=True)
            for scope, studies in scopes_of(group)
        }

    # ---- what evaluation of a run leaves ----

    def write(self, run_folder: pathlib.Path, answers: pandas.DataFrame, root_seed: int) -> None:
        """Write predictions.csv and metrics.csv of the model's answers to its test studies.

        Raises:
            InputError: there are no rows, or a column is missing or holds no number.
        """
        answers = self._checked(answers, run_folder)[self._columns("study_id", "site")]
        metrics = self.score(answers, root_seed)
        write_text(run_folder / PREDICTIONS[0], table_text(answers))
        write_metrics(run_folder / "metrics.csv", metrics)

    def score(self, answers: pandas.DataFrame, root_seed: int, resamples: int = RESAMPLES) -> pandas.DataFrame:
        """Every measure with its bootstrap interval over studies, see `metric_table.METRIC_COLUMNS`."""
        rows = []
        for (scope, adapter), each in self.answers_by_place(answers).items():
            drawn = bootstrap_intervals(each.measures, numpy_stream(root_seed, "bootstrap", scope), resamples)
            named = {"scope": scope, "adapter": adapter, "system": "model", "studies": len(each.studies)}
            rows += [{**named, "metric": key, **dataclasses.asdict(interval)} for key, interval in drawn.items()]
        for adapter, group in answers[answers["role"] == "home"].groupby("adapter", sort=True):
            rows += fairness_rows(rows, group, {"adapter": adapter, "system": "model"}, [*self.names], self.lower)
        return pandas.DataFrame(rows)[list(METRIC_COLUMNS)]

    def _columns(self, *names: str) -> list[str]:
        return [*names, "role", "adapter", *self.compared]

    def _checked(self, rows: pandas.DataFrame, source: pathlib.Path) -> pandas.DataFrame:
        for key in self.compared:
            numbers = pandas.to_numeric(rows.get(key, pandas.Series(math.nan, rows.index)), errors="coerce")
            if not len(rows) or numbers.isna().any():
                raise InputError(f"{source}: {key} has no number for some study; evaluate the run again.")
        return rows


def measures_of(task: str) -> Measures:
    """The declaration of a task by its name.

    Raises:
        InputError: no task has this name, it declares no measures, or they cannot be imported.
    """
    entry = measures_entry(task)
    if entry is None:
        raise InputError(
            f"task {task!r} declares no measures, so its runs cannot be compared; add an entry point of the group "
            "fedmrg.measures."
        )
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"task {task!r}: its measures cannot be imported from {entry.value} ({error}).") from error


def numbered(answers: pandas.DataFrame) -> dict[str, str]:
    """What scores call a study in place of its name.

    ``SET-NUMBER``: of the study names of its role, in the order of their digests, it is the NUMBER-th, and SET is a
    digest of all of them together. So runs that answered other studies are told apart, and trying names does not find
    a study, as it would with a digest of each.
    """
    numbers: dict[str, str] = {}
    for _, test_set in answers.groupby("role"):
        names: Sequence[str] = sorted(set(test_set["study_id"]), key=_digest)
        together = _digest("\n".join(names))[:_SET_LENGTH]
        numbers |= {name: f"{together}-{number:0{_NUMBER_LENGTH}}" for number, name in enumerate(names, start=1)}
    return numbers


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
