"""What one run is and how well it did, in one sentence and one small table, from its stored tables alone."""

from __future__ import annotations

import dataclasses
import math
import re
import textwrap
from collections.abc import Sequence

import pandas

from fedmrg_core.commands.measure_names import floor_name, measure_name, measure_value
from fedmrg_core.data.sources import corpus_name
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.stored_runs import Run, is_synthetic
from fedmrg_core.evaluation.table_writers import ROLES
from fedmrg_core.metrics.diversity import Diversity
from fedmrg_core.metrics.statistics import CONFIDENCE
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.methods import Ownership
from fedmrg_core.tasks.reports.answers import ANSWERS
from fedmrg_core.tasks.reports.floors import FLOORS
from fedmrg_core.tasks.reports.measures import CLINICAL_F1, DECLARED
from fedmrg_core.tasks.reports.predictions import ADAPTER_NAMES

MEASURES = ("bleu_4", "meteor", "rouge_l", "cider", CLINICAL_F1)  # of the small table; metrics.csv has the rest
DATA_NAMES = {"phantom": "PhantomCXR", "iu_xray": "IU X-ray", "folder": "your own data"}
CONSOLE_WIDTH = 100  # characters


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """A run for a reader.

    Attributes:
        name: its `RunSettings.name`, with blanks around the slashes.
        sentence: what was run and how it stands against the floors; a second one where the model has collapsed.
        header: of the table.
        rows: measure, the model's value, each floor's value; at most one row for each of `MEASURES`.
        note: what the table's numbers are, in plain sentences.
    """

    name: str
    sentence: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str

    def console(self) -> str:
        """Sentence and table as lines of text."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in (self.header, *self.rows)
        ]
        return "\n".join([*textwrap.wrap(self.sentence, CONSOLE_WIDTH), "", *lines])


def summarise(run: Run) -> RunSummary:
    """What a finished run says of itself.

    The answer that counts at home is shown; where no client has test studies, that at the unseen centre.

    Raises:
        InputError: it is a run of another task, or metrics.csv holds no measure of the model.
    """
    if run.measures is not DECLARED:
        raise InputError(
            f"{run.folder} is a run of task {run.configuration.task!r}, and a summary tells of reports alone; compare "
            "it in a table, see evaluation/table_writers.py."
        )
    role = next((role for role in ANSWERS if run.answer(role) is not None), None)
    if role is None:
        raise InputError(f"{run.folder / 'metrics.csv'} has no row of the model; evaluate the run with notebook 07.")
    name = _method_name(run)
    values = {"model": run.values(role)} | {floor: run.values(role, floor) for floor in FLOORS}
    values = {system: table for system, table in values.items() if len(table)}
    shown = [key for key in MEASURES if key in values["model"].index]
    results = " and ".join(_result(key, {s: _value(t, key) for s, t in values.items()}) for key in DECLARED.tested)
    place = "" if role == "home" else f" at {ROLES[role]}"
    sentence = f"{name}, {_trained(run)}, reaches{place} {results}."
    if reason := _collapsed(values["model"]):
        sentence += f" {reason} So its measures mean little."
    header = ("Measure", name, *(floor_name(system).capitalize() for system in values if system != "model"))
    rows = tuple((measure_name(key), *(_cell(table, key) for table in values.values())) for key in shown)
    return RunSummary(_run_name(run), sentence, header, rows, _note(run, role, int(values["model"]["studies"].max())))


def _run_name(run: Run) -> str:
    """The run folder's name; where the folder is called otherwise, what the configuration says, and no path."""
    given = run.configuration
    parts = run.folder.resolve().parts[-4:]
    try:
        RunSettings.from_name("/".join(parts))
    except InputError:
        parts = (given.profile.name, run.setting, given.method.name, f"seed-{given.seed}")
    return " / ".join(parts)


def _trained(run: Run) -> str:
    """How the run was trained, on what, with which seed."""
    configuration = run.configuration
    method, data = configuration.method, configuration.data
    sites = set(run.metrics["scope"][run.metrics["system"] == "model"]) - set(ANSWERS)
    hospitals = _counted(len(sites), "hospital" if configuration.partition == "site" else "client")
    corpus = corpus_name(data)
    given = ["synthetic data" if is_synthetic(data) else "real data"]
    given += ["synthetic attack"] if configuration.profile.attack.planned else []
    given += [f"setting {run.setting}"] if run.setting != corpus else []
    given += [f"profile {configuration.profile.name}", f"seed {configuration.seed}"]
    where = f"{hospitals} of {DATA_NAMES.get(corpus, corpus)} ({', '.join(given)})"
    rounds = _counted(int(run.manifest.get("rounds", configuration.profile.federation.rounds)), "round")
    if method.training == "centralised":
        return f"trained for {rounds} on the studies of {where} in one place"
    if Ownership.SHARED not in method.modules.values():
        return f"trained for {rounds} at {where}, each alone"
    return f"trained for {rounds} at {where}"


def _result(key: str, values: dict[str, float]) -> str:
    """A measure of the model and which floors it is above; equal is what shows the same digits."""
    own = values["model"]
    if math.isnan(own):
        return f"no {measure_name(key)} that can be said"
    sides: dict[str, list[str]] = {"above": [], "level with": [], "below": []}
    for floor in FLOORS:
        if not math.isnan(other := values.get(floor, math.nan)):
            same = measure_value(key, own) == measure_value(key, other)
            sides["level with" if same else "above" if own > other else "below"].append(floor)
    told = [f"{side} {_floors(floors)}" for side, floors in sides.items() if floors]
    return f"{measure_name(key)} {measure_value(key, own)}" + (f" ({', '.join(told)})" if told else "")


def _value(table: pandas.DataFrame, key: str) -> float:
    return float(table.loc[key, "value"]) if key in table.index else math.nan


def _cell(table: pandas.DataFrame, key: str) -> str:
    """Value and interval of a measure; nothing where the system has none."""
    if key not in table.index:
        return ""
    return with_interval(key, *table.loc[key, ["value", "low", "high"]])


def with_interval(key: str, value: float, low: float, high: float) -> str:
    """A value with its interval as a table shows it; the interval is left out where there is none."""
    if math.isnan(value):
        return ""
    interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:.3f}, {high:.3f}]"
    return measure_value(key, value) + interval


def _collapsed(table: pandas.DataFrame) -> str | None:
    """Why the model's reports are of no use, from the shares that metrics.csv keeps; None if nothing speaks against."""
    fields = {field.name: _value(table, field.name) for field in dataclasses.fields(Diversity)}
    if any(map(math.isnan, fields.values())):
        return None
    return Diversity(**fields | {"distinct_reports": int(fields["distinct_reports"])}).degenerate_reason()


def _note(run: Run, role: str, studies: int) -> str:
    adapter = ADAPTER_NAMES.get(str(run.answer(role)), str(run.answer(role)))
    title = ROLES[role][0].upper() + ROLES[role][1:]
    lines = [
        f"{title}: {_counted(studies, 'study', 'studies')}, reports of the {adapter}.",
        f"Brackets: {CONFIDENCE:.0%} bootstrap intervals over studies.",
        "The floors give a training report again: the commonest, a random one, that of the nearest image.",
        "A method that does not beat them writes nothing that copying would not have brought.",
    ]
    if is_synthetic(run.configuration.data):
        lines.append("The data are synthetic: numbers on them say nothing about patients.")
    return " ".join(lines)


def _method_name(run: Run) -> str:
    """The method, spelled as its description begins where that is the same word, and the numbers of its variant."""
    method = run.configuration.method
    first = re.split(r",| \[", method.description)[0]
    name = first if first.lower() == method.name else method.name
    _, comma, variant = run.folder.resolve().parent.name.partition(",")
    return f"{name} with {variant}" if comma else name


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _floors(floors: Sequence[str]) -> str:
    """Some floors in words: "the constant and random report"."""
    names = [floor_name(floor).removesuffix(" report") for floor in floors]
    joined = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) + " report"
    return f"all floors: {joined}" if len(floors) == len(FLOORS) else f"the {joined}"
