"""A hospital that tests itself: reports of its own test studies, written and scored where they lie."""

from __future__ import annotations

import math
import pathlib

from fedmrg_core.federation.hospital import HospitalDisk
from fedmrg_core.tasks.reports.answers import counting_answer
from fedmrg_core.tasks.reports.hospital import ReportHospital
from fedmrg_core.tasks.reports.leaving import TESTED
from fedmrg_core.tasks.reports.predictions import score_predictions
from fedmrg_core.tasks.reports.trained_run import TestSet, load_trained, stored_reports
from fedmrg_core.training.adapter_names import answer_label


def test_at_hospital(run_folder: pathlib.Path, hospital: ReportHospital) -> tuple[dict[str, float], int]:
    """Write a report for each of the hospital's test studies with its saved model, and score them.

    The reports stay in ``hospitals/<client>/test.csv``.

    Args:
        run_folder: the hospital's, with the saved model.
        hospital: which one.

    Returns:
        The measures of `leaving.TESTED` that can be said of these studies, and how many studies they are.
    """
    task, name = hospital.task, hospital.client.name
    studies = hospital.tensors("test")
    answers = {answer_label(answer): answer for answer in task.model.answers}
    label = counting_answer("home", set(answers), task.configuration.method) or "generic"
    load_trained(run_folder, task, name)
    path = HospitalDisk(run_folder, name).folder / "test.csv"
    rows = stored_reports(path, task, TestSet(name, "home", studies), answers[label], label)
    table = score_predictions(rows, task.configuration.seed, resamples=1, meteor=False)
    own = table[table["scope"] == name].set_index("metric")["value"]
    return {key: float(own[key]) for key in TESTED if key in own and math.isfinite(own[key])}, len(studies)
