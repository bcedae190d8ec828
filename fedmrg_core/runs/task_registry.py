"""What a federation can train. A task stands under a name, which stored runs keep while the code behind it may move.

A task is made of a run folder and its configuration, and is what `federation.task.Task` asks for. Another
package adds its own by an entry point of the group ``fedmrg.tasks``: a name, and "module:what makes the task". One of
the group ``fedmrg.methods`` under the same name says which rows it takes, see `fedmrg_core.runs.methods.MethodTable`,
and one of ``fedmrg.measures`` what its runs are compared by, see `fedmrg_core.runs.measures.Measures`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any

# REPORTS is the paper's own, where nothing else is said.
from fedmrg_core.data.sources import MEDICAL_QA, REPORTS, VISUAL_PROMPTS
from fedmrg_core.errors import InputError

TASKS: dict[str, str] = {
    REPORTS: "fedmrg_core.tasks.reports.task:ReportTask",
    MEDICAL_QA: "fedmrg_core.tasks.medical_qa.task:QuestionTask",
    VISUAL_PROMPTS: "fedmrg_core.tasks.visual_prompts.task:PictureTask",
}
GROUP = "fedmrg.tasks"
# Where a task says what its rows of methods hold and where they lie: "module:a `fedmrg_core.runs.methods.MethodTable`".
METHODS: dict[str, str] = {
    REPORTS: "fedmrg_core.tasks.reports.methods:TABLE",
    MEDICAL_QA: "fedmrg_core.tasks.medical_qa.methods:TABLE",
    VISUAL_PROMPTS: "fedmrg_core.tasks.visual_prompts.methods:TABLE",
}
METHODS_GROUP = "fedmrg.methods"
# Where a task says what evaluation needs of it: "module:a `fedmrg_core.runs.measures.Measures`".
MEASURES: dict[str, str] = {
    REPORTS: "fedmrg_core.tasks.reports.measures:DECLARED",
    MEDICAL_QA: "fedmrg_core.tasks.medical_qa.measures:DECLARED",
    VISUAL_PROMPTS: "fedmrg_core.tasks.visual_prompts.measures:DECLARED",
}
MEASURES_GROUP = "fedmrg.measures"


def make_task(name: str) -> Callable[..., Any]:
    """What makes the task of this name, of a run folder and its configuration.

    Raises:
        InputError: no task has this name, or its code cannot be imported.
    """
    entry = task_entry(name)
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"task {name!r} cannot be imported from {entry.value} ({error}).") from error


def task_entry(name: str) -> importlib.metadata.EntryPoint:
    """Where the code of a task lies.

    Raises:
        InputError: no task has this name.
    """
    tasks = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    tasks |= {own: importlib.metadata.EntryPoint(own, value, GROUP) for own, value in TASKS.items()}
    if name not in tasks:
        raise InputError(f"task {name!r} is unknown; expected one of {', '.join(sorted(tasks))}.")
    return tasks[name]


def tasks_with_methods() -> list[str]:
    """The tasks that declare a table of methods, this package's own first."""
    return [*METHODS, *sorted(entry.name for entry in importlib.metadata.entry_points(group=METHODS_GROUP))]


def methods_entry(task: str) -> importlib.metadata.EntryPoint | None:
    """Where a task's table of methods lies; None if it declares none.

    Raises:
        InputError: no task has this name.
    """
    return _declared(task, METHODS, METHODS_GROUP)


def measures_entry(task: str) -> importlib.metadata.EntryPoint | None:
    """Where a task's measures lie; None if it declares none.

    Raises:
        InputError: no task has this name.
    """
    return _declared(task, MEASURES, MEASURES_GROUP)


def _declared(task: str, own: Mapping[str, str], group: str) -> importlib.metadata.EntryPoint | None:
    if task in own:
        return importlib.metadata.EntryPoint(task, own[task], group)
    task_entry(task)
    return next(iter(importlib.metadata.entry_points(group=group, name=task)), None)
