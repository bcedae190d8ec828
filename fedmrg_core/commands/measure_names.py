"""What a reader sees of the measures and systems that metrics.csv names by keys."""

from __future__ import annotations

import re

from fedmrg_core.tasks.reports.measures import MEASURES

_SUMMARIES = {"worst_client_": "worst client", "harmonic_mean_": "harmonic mean over clients"}
_DIVERSITY = {
    "distinct_reports": "distinct reports",
    "distinct_share": "share of distinct reports",
    "most_frequent_share": "share of the commonest report",
    "empty_share": "share of empty reports",
    "looping_share": "share of reports that repeat a few words",
}
_CLINICAL = re.compile(
    r"clinical_(?P<kind>precision|recall|f1)_(?P<mean>example|micro|macro)_(?P<findings>\d+)"
    r"_uncertain_(?P<uncertain>positive|negative)"
)
_MEANS = {"example": "mean over studies"}


def measure_name(key: str) -> str:
    """The readable name of a measure: "clinical F1 (micro, 14 findings)" for clinical_f1_micro_14_uncertain_negative.

    Uncertain findings count as negative unless the name says otherwise. A key that nothing here knows is read as words.
    """
    for beginning, summary in _SUMMARIES.items():
        if key.startswith(beginning):
            return f"{measure_name(key.removeprefix(beginning))}, {summary}"
    if found := _CLINICAL.fullmatch(key):
        kind = found["kind"].replace("f1", "F1")
        uncertain = ", uncertain as positive" if found["uncertain"] == "positive" else ""
        return f"clinical {kind} ({_MEANS.get(found['mean'], found['mean'])}, {found['findings']} findings{uncertain})"
    return _DIVERSITY.get(key) or MEASURES.get(key) or key.replace("_", " ")


def floor_name(system: str) -> str:
    """The readable name of a floor, e.g. "nearest report" of floor_nearest."""
    return f"{system.removeprefix('floor_')} report"


def measure_value(key: str, value: float) -> str:
    """A measure as a table shows it: a count as a whole number, the rest with three digits."""
    return f"{value:.0f}" if key.endswith("distinct_reports") else f"{value:.3f}"
