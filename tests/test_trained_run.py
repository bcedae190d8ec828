"""One real end-to-end run, very small: phantom, base models, federation, evaluation, every figure."""

import pathlib

import pandas
import pytest
import safetensors.torch
import torch
from small_model import PROFILE, small_base_models

from fedmrg_core.configuration import Ownership, load_method
from fedmrg_core.data.prepared import prepare
from fedmrg_core.errors import InputError
from fedmrg_core.federation.experiment import forget_experiments, load_experiment
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.findings import FINDINGS
from fedmrg_core.trained_run import evaluate_run, load_trained
from figures import client_distance, communication, convergence, feature_map, quality_by_client, report_page

TEST_STUDIES = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    workspace = tmp_path_factory.mktemp("workspace")
    small_base_models(workspace / "base_models")
    prepare("phantom", None, workspace / "prepared", 32, seed=0, train=5, validation=3, test=TEST_STUDIES)
    folder = workspace / "run"
    settings = PROFILE.model_copy(
        update={"federation": PROFILE.federation.model_copy(update={"rounds": 2}), "bootstrap_samples": 20}
    )
    configuration = configure_run(
        folder,
        profile=settings,
        method=load_method("fedmrg"),
        data="phantom",
        prepared=workspace / "prepared",
        base_models=workspace / "base_models",
        threads=1,
    )
    run_federation(folder, configuration, progress=False)
    return folder


@pytest.fixture(scope="module")
def metrics(run) -> pandas.DataFrame:
    return evaluate_run(run)


def test_every_test_study_has_its_reports(run, metrics):
    rows = pandas.read_csv(run / "predictions.csv", dtype=str, keep_default_na=False)
    model = rows[rows.system == "model"]
    counts = model.groupby(["role", "adapter"]).study_id.nunique().to_dict()
    assert counts == {
        ("home", "generic"): 5 * TEST_STUDIES,
        ("home", "specialised"): 5 * TEST_STUDIES,
        ("unseen", "generic"): TEST_STUDIES,
    }
    assert set(model.split) == {"test"} and not model.duplicated(["study_id", "adapter"]).any()
    assert set(rows.system) == {"model", "floor_constant", "floor_random", "floor_nearest"}


def test_no_stored_measure_is_empty(metrics):
    """What is promised is there, for every scope; a value that cannot exist would be NaN."""
    assert {"bleu_1", "bleu_4", "meteor", "rouge_l", "cider", "distinct_share"} <= set(metrics.metric)
    for average in ("example", "micro", "macro"):
        assert f"clinical_f1_{average}_14_uncertain_negative" in set(metrics.metric)
    assert {"home", "unseen", "centre-a"} <= set(metrics.scope)
    assert metrics.value.notna().all()


def test_head_is_measured_on_validation_studies(run, metrics):
    head = pandas.read_csv(run / "head_auroc.csv")
    assert list(head.finding) == list(FINDINGS) and set(head.studies) == {5 * 3}
    measured = head.auroc.dropna()
    assert len(measured) and measured.between(0, 1).all()
    assert head.auroc.isna().equals(head.positive.isin([0, 15]))


def test_features_cover_training_and_test_studies(run, metrics):
    table = pandas.read_csv(run / "features.csv", dtype=str)
    features = safetensors.torch.load_file(run / "features.safetensors")["features"]
    assert len(table) == len(features) == 5 * 5 + 6 * TEST_STUDIES
    assert torch.isfinite(features).all()


def test_interrupted_evaluation_goes_on(run, metrics, monkeypatch):
    """With all reports stored, nothing is generated again, and the measures are the same."""
    monkeypatch.setattr("fedmrg_core.trained_run.write_reports", lambda *_: pytest.fail("generated again"))
    pandas.testing.assert_frame_equal(evaluate_run(run), metrics)


def test_each_client_is_evaluated_with_its_own_specialised_adapter(run, metrics):
    forget_experiments()
    experiment = load_experiment(run)
    seen = []
    for client in experiment.clients[:2]:
        load_trained(run, experiment, client)
        seen.append({name: tensor.clone() for name, tensor in experiment.model.state(Ownership.PERSONAL).items()})
    assert any(not torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


def test_every_figure_is_drawn_with_its_numbers(run, metrics, tmp_path):
    drawn = []
    for figure in (convergence, quality_by_client, communication, feature_map, client_distance):
        drawn += figure.draw([run], tmp_path)
    drawn += report_page.draw([run], tmp_path, run.parent / "prepared")
    by_name: dict[str, set[str]] = {}
    for path in drawn:
        assert path.stat().st_size > 0
        by_name.setdefault(path.stem, set()).add(path.suffix)
    assert len(by_name) >= 6 and all({".pdf", ".png", ".csv"} <= suffixes for suffixes in by_name.values())


def test_unfinished_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="finish the run with notebook 06"):
        evaluate_run(tmp_path)
