"""Formats of config.yaml. A stored run is read by a newer program: each step lifts its content by one format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedmrg_core.errors import InputError

Content = dict[str, Any]


def _tasks_by_name(content: Content) -> Content:
    """1 to 2: the task stood as the path of its module, which moves."""
    where = content.pop("experiment", "fedmrg_core.federation.report_experiment:ReportExperiment")
    names = {"fedmrg_core.federation.report_experiment:ReportExperiment": "reports"}
    return content | {"task": names.get(where, where)}


def _with_client_folders(content: Content) -> Content:
    """2 to 3: studies were dealt in memory; dealt again they lie in the run folder."""
    return content | {"dealt": "clients"}


STEPS: tuple[Callable[[Content], Content], ...] = (_tasks_by_name, _with_client_folders)
FORMAT = len(STEPS) + 1  # of what is written today; format 1 had no number


def upgraded(content: object, source: str) -> object:
    """The content of a config.yaml in today's format; what is no mapping is left for the reader to refuse.

    Args:
        content: as read.
        source: the file, for the message.

    Raises:
        InputError: the format is newer than this program, or no number.
    """
    if not isinstance(content, dict):
        return content
    number = content.get("format", 1)
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(f"{source}: format is {number!r}; expected a number from 1 to {FORMAT}.")
    if number > FORMAT:
        raise InputError(
            f"{source} has format {number}, this version reads formats up to {FORMAT}; install a newer version."
        )
    content = dict(content)
    for step in STEPS[number - 1 :]:
        content = step(content)
    return content | {"format": FORMAT}
