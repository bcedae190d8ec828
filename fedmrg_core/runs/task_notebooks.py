"""Which notebooks make the runs of each task: what the workflow, `fedmrg verify` and `fedmrg reference` go by.

Beside the registry and not in it, because training never reads this: another notebook does not make a run another one.
"""

from __future__ import annotations

import dataclasses

from fedmrg_core.data.sources import MEDICAL_QA, REPORTS, VISUAL_PROMPTS
from fedmrg_core.errors import InputError


@dataclasses.dataclass(frozen=True)
class TaskNotebooks:
    """Notebooks of `notebooks/`, by name and without ending.

    Attributes:
        runs: of one run, each after the one before. They take every field of `RunSettings` as a parameter, and the last
            of them leaves metrics.csv.
        data: prepares a data set for all its runs; "": the first of `runs` prepares what it lacks.
        base_models: makes what all runs on it start from; "": likewise.
        own_rules: the Snakefile has a rule for each of `runs`; otherwise one rule serves them all, and they take
            `data_root`, `base_models`, `threads` and `workers` as well.
    """

    runs: tuple[str, ...]
    data: str = ""
    base_models: str = ""
    own_rules: bool = False


NOTEBOOKS: dict[str, TaskNotebooks] = {
    REPORTS: TaskNotebooks(
        runs=("06_federated_run", "07_evaluation"), data="01_data", base_models="05_base_models", own_rules=True
    ),
    MEDICAL_QA: TaskNotebooks(runs=("11b_medical_qa_run",)),
    VISUAL_PROMPTS: TaskNotebooks(runs=("12b_visual_prompts_run",)),
}


def notebooks_of(task: str) -> TaskNotebooks:
    """The notebooks of a task.

    Raises:
        InputError: the workflow does not make its runs.
    """
    if task not in NOTEBOOKS:
        raise InputError(
            f"task {task!r} has no notebook that makes its runs, so the workflow does not make them; expected one of "
            f"{', '.join(NOTEBOOKS)}."
        )
    return NOTEBOOKS[task]
