"""Runs of visual prompts in the workflow: their notebook, references kept, made again, reproduced or not."""

from __future__ import annotations

import pathlib
import threading
import time

import pandas
import pytest
import torch
from picture_runs import PICTURES, PLACES, write_measures, write_picture_run
from small_pictures import DATA, small_profile

from fedmrg_core.evaluation import reference, reruns
from fedmrg_core.evaluation.verify import EQUAL, NOT_REPRODUCED, REPRODUCED, verdicts, verify
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.training_code import training_code_hash
from fedmrg_core.tasks.visual_prompts import inputs
from fedmrg_core.tasks.visual_prompts.measures import AREA

NAMES = {data: f"smoke/{data}/generator/seed-0" for data in DATA}
QUALITY = {"phantom_findings": 1.0, "phantom_masks": 0.8}


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("references")
    for data, name in NAMES.items():
        for seed in (0, 1, 2):
            folder = write_picture_run(root, "generator", QUALITY[data], data=data, seed=seed)
            reference.store_reference(folder, name.replace("seed-0", f"seed-{seed}"), root / "reference")
    reference.store_seed_variance(root / "reference")
    return root / "reference"


@pytest.fixture
def again(tmp_path: pathlib.Path) -> pathlib.Path:
    code = training_code_hash("visual_prompts")
    for data in DATA:
        write_picture_run(tmp_path, "generator", QUALITY[data], data=data, training_code=code)
    return tmp_path / "results"


def test_a_run_made_again_is_equal(references, again):
    rows = verify(references, again, [*NAMES.values()])
    assert verdicts(rows) == dict.fromkeys(NAMES.values(), EQUAL)
    assert {"own", "shared"} <= set(rows["adapter"]) and {*PLACES} - {"centre-f"} <= set(rows["scope"])


def test_one_picture_said_otherwise_is_chance_and_a_third_of_them_is_not(references, again):
    name = NAMES["phantom_findings"]
    for count, expected in ((1, REPRODUCED), (PICTURES // 3, NOT_REPRODUCED)):
        answers = pandas.read_csv(again / name / "predictions.csv", dtype={"truth": str, "chosen": str})
        rows = answers.groupby("site").head(count).index
        for key in ("chosen", "probability"):  # what stood for one outcome now stands for the other
            flipped = answers.loc[rows, key].map(lambda text: " ".join(f"{1 - float(x):g}" for x in text.split()))
            answers.loc[rows, key] = flipped
        answers.loc[rows, "accuracy"] = 1 - answers.loc[rows, "accuracy"]
        answers.to_csv(again / name / "predictions.csv", index=False)
        write_measures(again / name, answers)
        found = verify(references, again, [name])
        assert verdicts(found) == {name: expected}
    assert AREA in set(found[found["status"] == NOT_REPRODUCED]["metric"])


def test_the_workflow_is_asked_for_the_task_s_own_notebook(references, again, monkeypatch):
    asked, name = [], NAMES["phantom_masks"]
    monkeypatch.setattr(reruns, "reference_folder", lambda profile: references / profile)
    monkeypatch.setattr(reruns, "REPOSITORY", again.parent)
    monkeypatch.setattr(reruns, "_run_again", lambda run, target, *_: asked.append(target))
    rows = reruns.verify_references("smoke", [name], rerun=True, data_root="", cores=1)
    assert asked == [f"results/{name}/notebooks/12b_visual_prompts_run.ipynb"] and verdicts(rows) == {name: EQUAL}


def test_runs_of_different_data_are_made_side_by_side(monkeypatch):
    """Those of the same data in turn, as they share what they start from; on a GPU all in turn."""
    side_by_side, busy, cores_of = threading.Barrier(2, timeout=30), set(), []

    def run_again(run, target, data_root, cores, exact):
        assert run.data not in busy
        busy.add(run.data)
        if run.method == "generator":  # waits until the other data's run is there
            side_by_side.wait()
        cores_of.append(cores)
        busy.remove(run.data)

    monkeypatch.setattr(reruns, "_run_again", run_again)
    runs = [RunSettings(data=data, method=method) for method in ("generator", "full") for data in NAMES]
    reruns._run_all(dict.fromkeys(runs, "target"), "", 4, False)
    assert cores_of == [2] * 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    alone = [run for run in runs if run.method == "full"]
    reruns._run_all(dict.fromkeys(alone, "target"), "", 4, False)
    assert cores_of == [2] * 4 + [4] * 2


def test_runs_that_start_together_prepare_once(tmp_path, monkeypatch):
    """The second waits for the first and finds what it made; both get the same summary."""
    made: list[str] = []
    profile = small_profile()
    monkeypatch.setattr(RunSettings, "load", lambda self: (profile, None))

    def prepare(folder: pathlib.Path, data: str, *rest: object) -> dict[str, object]:
        if not folder.is_dir():
            time.sleep(0.05)
            folder.mkdir()
            made.append(data)
        return {"pictures": {}}

    monkeypatch.setattr(inputs, "prepare_pictures", prepare)
    monkeypatch.setattr(inputs, "prepare_base_model", lambda *rest: {"model": "vit"})
    run, found = RunSettings(data="phantom_findings", method="generator"), []
    both = [threading.Thread(target=lambda: found.append(inputs.prepare_inputs(run, tmp_path))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert made == ["phantom_findings"] and found == [({"pictures": {}}, {"model": "vit"})] * 2
