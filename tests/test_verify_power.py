"""What `verify` lets pass and what it does not, on kept runs of profile smoke (PhantomCXR, synthetic).

Each was trained once by benchmarks/verify_power.py and its reports kept: of the reference's method and seed under other
instruction sets and numbers of threads, and with a part taken out.
"""

from __future__ import annotations

import functools
import json

import pytest
import verify_power  # pytest's pythonpath names its folder

from fedmrg_core.evaluation.answers import answers_of
from fedmrg_core.evaluation.seed_variance import read_seed_variance, variances_of
from fedmrg_core.evaluation.stored_runs import load_run
from fedmrg_core.evaluation.verify import EQUAL, NOT_REPRODUCED, REPRODUCED

WHOLE = [trial.name for trial in verify_power.TRIALS.values() if trial.is_whole]
LACKING = [trial.name for trial in verify_power.TRIALS.values() if not trial.is_whole]


@functools.cache
def verdicts() -> dict[str, str]:
    table = verify_power.verdict_table()
    print(table.to_string(float_format="%.3f"))  # the numbers it saw, where a test fails
    return dict(zip(table["run"], table["verdict"], strict=True))


@pytest.mark.parametrize("name", LACKING)
def test_a_run_that_lacks_a_part_is_not_reproduced(name):
    assert verdicts()[name] == NOT_REPRODUCED


def test_other_processors_are_reproduced_in_nineteen_of_twenty():
    found = [verdicts()[name] for name in WHOLE]
    missed = sum(verdict not in (EQUAL, REPRODUCED) for verdict in found)
    assert len(found) == 17 and 20 * missed <= len(found)
    # They are other runs: where the last bits differ, so do reports.
    assert sum(verdict == REPRODUCED for verdict in found) > len(found) / 2


def test_the_kept_runs_are_what_they_say():
    for trial in filter(verify_power.is_kept, verify_power.TRIALS.values()):
        making = json.loads((verify_power.KEPT / f"{trial.name}.json").read_text())
        assert making["method"] == trial.method and making["threads"] == trial.threads
        assert making["arithmetic"]["environment"] == dict(trial.environment)
        assert making["rounds"] == (trial.rounds or 10) and bool(making["shuffled_client"]) == trial.shuffled
        assert making["uncommitted_changes"] is False


def test_the_reference_is_its_own_reproduction():
    reference = load_run(verify_power.REFERENCE)
    answers = answers_of(reference)
    known = variances_of(read_seed_variance(verify_power.VARIANCES), reference)
    changes = verify_power.compare_answers(answers, answers, known, reference.measures.compared)
    assert {row["status"] for row in verify_power.judge(changes)} == {EQUAL}
