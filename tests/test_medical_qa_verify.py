"""References of medical questions: kept, made again, reproduced or not, the floor's answers among them."""

from __future__ import annotations

import pathlib

import pandas
import pytest
from question_runs import write_measures, write_question_run

from fedmrg_core.evaluation import reference, reruns
from fedmrg_core.evaluation.verify import EQUAL, NOT_REPRODUCED, REPRODUCED, verdicts, verify
from fedmrg_core.runs.training_code import training_code_hash
from fedmrg_core.tasks.medical_qa.measures import BASE_FLOOR, MAIN

NAME = "smoke/medical_world/fed-lora/seed-0"


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("references")
    for seed in (0, 1, 2):
        folder = write_question_run(root, "fed-lora", 0.9, 0.8, seed=seed)
        reference.store_reference(folder, NAME.replace("seed-0", f"seed-{seed}"), root / "reference")
    reference.store_seed_variance(root / "reference")
    return root / "reference"


@pytest.fixture
def again(tmp_path: pathlib.Path) -> pathlib.Path:
    write_question_run(tmp_path, "fed-lora", 0.9, 0.8, training_code=training_code_hash("medical_qa"))
    return tmp_path / "results"


def with_other_answers(folder: pathlib.Path, adapter: str, count: int) -> None:
    """The run with some questions of every client answered the other way round, and its measures accordingly."""
    answers = pandas.read_csv(folder / "predictions.csv")
    rows = answers[answers["adapter"] == adapter].groupby("site").head(count).index
    for key in (MAIN, "accuracy_sum", "accuracy_per_token", f"{MAIN}_here", f"{MAIN}_elsewhere"):
        answers.loc[rows, key] = 1 - answers.loc[rows, key]
    answers.to_csv(folder / "predictions.csv", index=False)
    write_measures(folder, answers)


def test_a_run_made_again_is_equal(references, again):
    rows = verify(references, again, [NAME])
    assert verdicts(rows) == {NAME: EQUAL}
    assert {BASE_FLOOR, "generic"} <= set(rows["adapter"])


def test_a_near_tie_of_the_base_model_is_within_chance_and_another_model_is_not(references, again):
    """The floor follows from the data, and on another processor two options that are as likely may change places."""
    with_other_answers(again / NAME, BASE_FLOOR, 1)
    assert verdicts(verify(references, again, [NAME])) == {NAME: REPRODUCED}
    with_other_answers(again / NAME, BASE_FLOOR, 60)
    rows = verify(references, again, [NAME])
    assert verdicts(rows) == {NAME: NOT_REPRODUCED}
    assert set(rows[rows["status"] == NOT_REPRODUCED]["adapter"]) == {BASE_FLOOR}


def test_the_workflow_is_asked_for_the_task_s_own_notebook(references, again, monkeypatch):
    asked = []
    monkeypatch.setattr(reruns, "reference_folder", lambda profile: references / profile)
    monkeypatch.setattr(reruns, "REPOSITORY", again.parent)
    monkeypatch.setattr(reruns, "_run_again", lambda run, target, *_: asked.append(target))
    rows = reruns.verify_references("smoke", [NAME], rerun=True, data_root="", cores=1)
    assert asked == [f"results/{NAME}/notebooks/11b_medical_qa_run.ipynb"] and verdicts(rows) == {NAME: EQUAL}
