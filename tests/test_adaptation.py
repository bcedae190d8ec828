"""A centre that joins later: what learns, which studies it takes, what is written."""

import pathlib
import shutil

import pandas
import pytest
import torch
from run_folders import note_model
from small_model import PROFILE, small_base_models

from fedmrg_core.data.prepared import prepare
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.errors import InputError
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.runs.methods import Ownership, load_method, load_methods
from fedmrg_core.tasks.reports import adaptation
from fedmrg_core.tasks.reports.adaptation import adapt, adapt_to_sites, adapted_modules, evaluate_adaptation
from fedmrg_core.tasks.reports.finished_run import FinishedRun
from fedmrg_core.tasks.reports.trained_run import load_trained
from fedmrg_core.training.adapter_names import GENERIC, SPECIALISED

pytestmark = pytest.mark.usefixtures("meteor_asked")
STUDIES = 9


def finished(workspace: pathlib.Path, method: str) -> pathlib.Path:
    folder = workspace / method
    configuration = configure_run(
        folder,
        profile=PROFILE.model_copy(
            update={"federation": PROFILE.federation.model_copy(update={"rounds": 1}), "bootstrap_samples": 20}
        ),
        method=load_method(method),
        data="phantom",
        prepared=workspace / "prepared",
        base_models=workspace / "base_models",
        unseen_sites=("centre-c", "centre-d", "centre-e", "centre-f"),
        threads=1,
    )
    run_federation(folder, configuration, progress=False)
    return folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("workspace")
    small_base_models(folder / "base_models")
    prepare("phantom", None, folder / "prepared", 32, seed=0, train=STUDIES, validation=2, test=2, adaptation=STUDIES)
    return folder


@pytest.fixture(scope="module")
def run(workspace) -> pathlib.Path:
    return finished(workspace, "fedmrg")


def all_tensors(model) -> dict[str, torch.Tensor]:
    return {key: t.clone() for owner in Ownership for key, t in model.state(owner).items()}


def test_only_adapters_and_prompts_learn(run):
    opened = FinishedRun(run)
    load_trained(run, opened)
    before = all_tensors(opened.model)
    studies = ClientTensors(opened.adaptation()["centre-f"])
    adapt(run, opened, "centre-f", studies, 8)
    after = all_tensors(opened.model)
    moved = {key.split("/")[0] for key in after if not torch.equal(after[key], before[key])}
    assert moved == {GENERIC, SPECIALISED, "prompt_table"}
    adapt(run, opened, "centre-f", studies, 8)
    again = all_tensors(opened.model)
    assert all(torch.equal(again[key], after[key]) for key in after)
    adapt(run, opened, "centre-f", studies, 4)
    assert any(not torch.equal(tensor, after[key]) for key, tensor in all_tensors(opened.model).items())


def test_studies_of_a_smaller_count_are_among_those_of_a_larger_one(run, monkeypatch):
    plans = []
    monkeypatch.setattr(adaptation, "train_alone", lambda model, studies, plan, **_: plans.append(plan))
    opened = FinishedRun(run)
    studies = ClientTensors(opened.adaptation()["centre-f"])
    for count in (4, 8):
        adapt(run, opened, "centre-f", studies, count)
    small, large = (plan.chosen for plan in plans)
    assert large[:4] == small and len(set(large)) == 8


def test_a_table_by_count(run):
    table = evaluate_adaptation(run)
    assert set(table["count"]) == {0, 8}  # nobody has 32
    assert set(table.studies) == {4 * 2}
    assert {"bleu_4", "clinical_f1_micro_14_uncertain_negative"} <= set(table.metric)
    assert list(pandas.read_csv(run / "adaptation.csv").columns) == list(adaptation.COLUMNS)
    stored = sorted(path.name for path in (run / "predictions").glob("*adapted*"))
    assert stored == [f"centre-{name}-adapted-8.csv" for name in "cdef"]


def test_stored_reports_are_not_written_again(run, monkeypatch):
    before = evaluate_adaptation(run)
    monkeypatch.setattr(adaptation, "stored_reports", lambda *_: pytest.fail("written again"))
    pandas.testing.assert_frame_equal(evaluate_adaptation(run), before)


def test_adapted_reports_of_another_model_are_dropped(run, monkeypatch):
    evaluate_adaptation(run)
    folder = run.parent / "retrained"
    shutil.copytree(run, folder)
    left = []

    def stop(folder, _):
        left.append(len(list((folder / "predictions").glob("*adapted*"))))
        raise KeyboardInterrupt

    monkeypatch.setattr(adaptation, "adapt_to_sites", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate_adaptation(folder)
    shutil.copyfile(run / "model" / "personal" / "centre-a.safetensors", folder / "model" / "shared.safetensors")
    note_model(folder)
    with pytest.raises(KeyboardInterrupt):
        evaluate_adaptation(folder)
    assert left == [4, 0]


def test_nothing_to_adapt_or_to_adapt_with(workspace, run, monkeypatch):
    local = finished(workspace, "local")
    with pytest.raises(InputError, match="shares no model"):
        adapt_to_sites(local, FinishedRun(local))
    opened = FinishedRun(run)
    monkeypatch.setattr(FinishedRun, "adaptation", lambda self: {})
    with pytest.raises(InputError, match="no unseen centre has training studies"):
        adapt_to_sites(run, opened)


@pytest.mark.parametrize("name", load_methods())
def test_every_row_has_something_to_adapt(name):
    method = load_method(name)
    modules = adapted_modules(method)
    assert modules and modules <= method.modules.keys() and "encoder" not in modules
