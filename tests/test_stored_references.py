"""Every stored reference of profile smoke can be held against a run, as `fedmrg verify --profile smoke` does."""

from __future__ import annotations

import pytest

from fedmrg_core.evaluation.seed_variance import FILE, read_seed_variance
from fedmrg_core.evaluation.stored_runs import load_run
from fedmrg_core.evaluation.verify import EQUAL, compare_runs, judge
from fedmrg_core.paths import REPOSITORY

REFERENCES = REPOSITORY / "figures/reference"
RUNS = sorted(str(path.parent.relative_to(REFERENCES)) for path in REFERENCES.glob("smoke/*/*/seed-*/manifest.json"))


@pytest.mark.parametrize("name", RUNS)
def test_every_measure_of_a_reference_has_a_variance_between_seeds(name):
    run = load_run(REFERENCES / name)
    changes = compare_runs(run, run, read_seed_variance(REFERENCES / FILE))
    assert {row["status"] for row in judge(changes)} == {EQUAL}


def test_there_are_references_of_each_task_that_has_some():
    assert {name.split("/")[1] for name in RUNS} == {"phantom", "medical_world", "phantom_findings"}
