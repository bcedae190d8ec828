"""What a run of medical questions starts from: prepared questions and a base model, made by whoever comes first."""

from __future__ import annotations

import pathlib
from typing import Any

from fedmrg_core.files.turns import alone
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.seeds import torch_threads
from fedmrg_core.tasks.medical_qa.preparing import prepare_base_model, prepare_questions


def prepare_inputs(
    run: RunSettings, workspace: pathlib.Path, data_root: str = "", options: str = "{}", base_models: str = "stored"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Prepare questions and base model unless they are there.

    Runs that start at the same time wait for the one that prepares. On one thread, so that the model's bytes do not
    depend on the number of cores.

    Args:
        run: its profile, data and variant say what is needed.
        workspace: the tree with prepared/ and base_models/.
        data_root: the folder of a public set.
        options: how it is read, as JSON or YAML.
        base_models: stored: of the repository, where it has one of the profile; fresh: built here.

    Returns:
        The summary of the questions, and what the base model was made from.

    Raises:
        InputError: see :func:`prepare_questions` and :func:`prepare_base_model`.
    """
    profile, _ = run.load()
    prepared, models = run.prepared(workspace), run.base_models(workspace)
    with alone(prepared):
        summary = prepare_questions(prepared, run.data, profile, data_root, options)
    with alone(models), torch_threads(1):
        description = prepare_base_model(models, run.data, profile, base_models, data_root=data_root, prepared=prepared)
    return summary, description
