"""Local Hugging Face `evaluate` modules over the plain functions of this package; they load offline."""

from __future__ import annotations

import pathlib

import evaluate

from fedmrg_core.errors import InputError

METRICS: tuple[str, ...] = ("report_text", "report_clinical")


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Load a module by name through `evaluate.load` from this folder; nothing is downloaded.

    Raises:
        InputError: there is no module of that name.
    """
    if name not in METRICS:
        raise InputError(f"There is no metric module {name!r}; expected one of {', '.join(METRICS)}.")
    return evaluate.load(str(pathlib.Path(__file__).parent / name / f"{name}.py"))
