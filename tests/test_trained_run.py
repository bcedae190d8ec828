"""One real end-to-end run, very small: phantom, base models, federation, evaluation, every figure."""

import pathlib
import shutil

import pandas
import pytest
import safetensors.torch
import torch
from data_fixtures import FINDINGS_TEXT, make_folder, write_csv
from run_folders import note_model
from small_model import PROFILE, small_base_models

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.prepared import prepare
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation.stored_runs import load_run
from fedmrg_core.federation.run import configure_run, run_federation
from fedmrg_core.federation.task import forget_tasks
from fedmrg_core.runs.methods import Ownership, load_method
from fedmrg_core.tasks.reports.finished_run import FinishedRun
from fedmrg_core.tasks.reports.inference import Prediction, image_features
from fedmrg_core.tasks.reports.trained_run import evaluate_run, load_trained, place_reports
from fedmrg_core.tasks.reports.trained_run import test_sets as place_list
from fedmrg_core.training.adapter_names import GENERIC, SPECIALISED
from figures import client_distance, communication, convergence, feature_map, quality_by_client, report_page

TEST_STUDIES = 3


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("workspace")
    small_base_models(folder / "base_models")
    prepare("phantom", None, folder / "prepared", 32, seed=0, train=5, validation=3, test=TEST_STUDIES)
    return folder


def federated(
    workspace: pathlib.Path,
    method: str,
    rounds: int,
    folder: str,
    prepared: str = "prepared",
    data: str = "phantom",
    **others,
) -> pathlib.Path:
    """A finished run of a row."""
    federation = PROFILE.federation.model_copy(update={"rounds": rounds})
    configuration = configure_run(
        workspace / folder,
        profile=PROFILE.model_copy(update={"federation": federation, "bootstrap_samples": 20}),
        method=load_method(method),
        data=data,
        prepared=workspace / prepared,
        base_models=workspace / "base_models",
        threads=1,
        **others,
    )
    run_federation(workspace / folder, configuration, progress=False)
    return workspace / folder


@pytest.fixture(scope="module")
def run(workspace) -> pathlib.Path:
    return federated(workspace, "fedmrg", 2, "run")


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
        ("home", "both"): 5 * TEST_STUDIES,
        ("unseen", "generic"): TEST_STUDIES,
    }
    assert set(model.split) == {"test"} and not model.duplicated(["study_id", "adapter"]).any()
    assert set(rows.system) == {"model", "floor_constant", "floor_random", "floor_nearest"}


def test_a_clients_own_adapter_answers_at_home_and_the_shared_one_elsewhere(run, metrics):
    assert load_run(run).answer("home") == "specialised" and load_run(run).answer("unseen") == "generic"


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


def test_interrupted_evaluation_goes_on(run, metrics, monkeypatch, meteor_asked):
    """With all reports stored, nothing is generated again, and the measures are the same."""
    writer = "fedmrg_core.tasks.reports.trained_run.write_reports"
    monkeypatch.setattr(writer, lambda *_: pytest.fail("generated again"))
    others = [frame[~frame.metric.str.contains("meteor")] for frame in (evaluate_run(run), metrics)]
    pandas.testing.assert_frame_equal(*others)


def test_bytes_do_not_depend_on_the_number_of_workers(run, metrics, meteor_asked):
    written = ("predictions.csv", "metrics.csv", "head_auroc.csv", "features.csv", "features.safetensors")
    folders = [run.parent / f"workers-{count}" for count in (1, 2)]
    for count, folder in enumerate(folders, start=1):
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("predictions", *written))
        evaluate_run(folder, workers=count)
    for name in written:
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name


@pytest.mark.parametrize("change", ["nothing", "model", "labeller"])
def test_reports_that_something_else_has_written_are_dropped(run, metrics, monkeypatch, change):
    """A retrained model in the same folder, or another labeller: what is stored under the same names is not scored."""
    folder = run.parent / f"changed-{change}"
    shutil.copytree(run, folder)
    if change == "model":
        path = folder / "model" / "shared.safetensors"
        tensors = safetensors.torch.load_file(path)
        safetensors.torch.save_file({key: tensor + 1 for key, tensor in tensors.items()}, path)
        note_model(folder)
    if change == "labeller":
        monkeypatch.setattr("fedmrg_core.tasks.reports.trained_run.report_code_hash", lambda: "another")
    left = []

    def stop(folder, *_):
        left.append(len(list((folder / "predictions").glob("*.csv"))))
        raise KeyboardInterrupt

    monkeypatch.setattr("fedmrg_core.tasks.reports.trained_run._reports", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate_run(folder)
        if change != "nothing":
            (folder / "predictions" / "new.csv").touch()
    assert left == ([3 * 5 + 1] * 2 if change == "nothing" else [0, 1])  # dropped once; what is new stays


def test_each_client_is_evaluated_with_its_own_specialised_adapter(run, metrics, tmp_path, monkeypatch):
    """In memory when the reports of a test set are written: the client's own modules; at an unseen centre, nobody's."""
    shutil.copytree(run / "model", tmp_path / "model")
    forget_tasks()
    opened = FinishedRun(run)
    loaded, seen = [], []

    def load(folder, opened, client=None):
        loaded.append(client)
        load_trained(folder, opened, client)

    def written(model, studies, adapter, *_):
        seen.append((adapter, {key: tensor.clone() for key, tensor in model.state(Ownership.PERSONAL).items()}))
        states = ["0" * 14] * 3
        return [Prediction(*row, row[1], *states) for row in zip(studies.study_ids, studies.texts, strict=True)]

    monkeypatch.setattr("fedmrg_core.tasks.reports.trained_run.load_trained", load)
    monkeypatch.setattr("fedmrg_core.tasks.reports.trained_run.write_reports", written)
    places = list(place_list(opened))
    for place in places:
        place_reports(tmp_path, opened, place, SPECIALISED if place.role == "home" else GENERIC)
    assert loaded == [*opened.sites, None]
    for place, (adapter, state) in zip(places, seen, strict=True):
        path = run / "model" / "personal" / f"{place.site}.safetensors"
        own = safetensors.torch.load_file(path) if place.role == "home" else opened.model.initial_personal
        assert state and all(torch.equal(tensor, own[key]) for key, tensor in state.items()), place.site
        assert adapter == (SPECIALISED if place.role == "home" else GENERIC)
    (_, first), (_, second) = seen[:2]
    assert any(not torch.equal(first[key], second[key]) for key in first)


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


FEW = {"unseen_sites": ("centre-c", "centre-d", "centre-e", "centre-f")}  # two clients are enough


def test_every_hospital_alone(workspace, meteor_asked):
    """Nothing travels, every client writes with its own model, and there is none for an unseen centre."""
    folder = federated(workspace, "local", 1, "local", **FEW)
    assert safetensors.torch.load_file(folder / "model" / "shared.safetensors") == {}
    own = [
        safetensors.torch.load_file(folder / "model" / "personal" / f"centre-{name}.safetensors") for name in ("a", "b")
    ]
    assert own[0].keys() == own[1].keys() and any(not torch.equal(own[0][key], own[1][key]) for key in own[0])
    scores = evaluate_run(folder)
    assert set(scores.scope) == {"centre-a", "centre-b", "home"}
    features = pandas.read_csv(folder / "features.csv")
    stored = safetensors.torch.load_file(folder / "features.safetensors")["features"]
    opened = FinishedRun(folder)
    for site in opened.sites:
        load_trained(folder, opened, site)
        expected = image_features(opened.model, opened.tensors(site, "test"))
        rows = features.index[(features.site == site) & (features.split == "test")]
        torch.testing.assert_close(stored[rows], torch.from_numpy(expected), rtol=1e-5, atol=1e-6)


def test_all_studies_in_one_place(workspace):
    """One client trains on the union; test sets stay with their sites."""
    folder = federated(workspace, "centralised", 1, "centralised", **FEW)
    rounds = pandas.read_csv(folder / "rounds.csv")
    assert list(rounds.client) == ["pooled"]
    assert (rounds.num_examples.item(), rounds.validation_examples.item()) == (2 * 5, 2 * 3)
    opened = FinishedRun(folder)
    both = [i for site in opened.sites for i in opened.tensors(site, "train").study_ids]
    pooled = opened.roster.get("pooled")
    hospital = opened.task.hospital(pooled, [folder / part for part in pooled.folders])
    assert hospital.tensors("train").study_ids == both and pooled.train == len(both)
    sites = [(place.site, place.role) for place in place_list(opened)]
    assert sites == [("centre-a", "home"), ("centre-b", "home"), *((site, "unseen") for site in FEW["unseen_sites"])]
    load_trained(folder, opened, "centre-a")  # has nothing of its own


def test_a_client_is_not_evaluated_without_its_own_tensors(workspace):
    """Which lie in a folder under the client's name as a part of a path; one of another name is nobody's."""
    folder = federated(workspace, "centralised", 1, "centralised", **FEW)
    stranger = folder / "model" / "personal" / "elsewhere.safetensors"
    stranger.parent.mkdir(exist_ok=True)
    stranger.touch()
    try:
        with pytest.raises(InputError, match="elsewhere.safetensors belongs to no client of this run .pooled.; delete"):
            FinishedRun(folder)
    finally:
        stranger.unlink()


def test_fine_tuned_clients_have_a_whole_model_each(workspace):
    folder = federated(workspace, "fedavg-fine-tuned", 1, "fine-tuned", **FEW)
    model = folder / "model"
    shared = safetensors.torch.load_file(model / "shared.safetensors")
    tuned = [safetensors.torch.load_file(model / "personal" / f"centre-{name}.safetensors") for name in ("a", "b")]
    assert tuned[0].keys() == tuned[1].keys() == shared.keys()
    assert not torch.equal(tuned[0]["projection/0.weight"], tuned[1]["projection/0.weight"])
    assert {path.name for path in (model / "generic").iterdir()} == {"centre-a", "centre-b"}
    opened = FinishedRun(folder)
    load_trained(folder, opened, "centre-b")
    state = opened.model.state(Ownership.SHARED)
    assert all(torch.equal(state[key].cpu(), tensor) for key, tensor in tuned[1].items())
    load_trained(folder, opened)  # an unseen centre's
    state = opened.model.state(Ownership.SHARED)
    assert all(torch.equal(tensor.cpu(), shared[key]) for key, tensor in state.items())
    content = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    (folder / "manifest.json").unlink()  # as if killed before the end: the model is written again, whole
    federated(workspace, "fedavg-fine-tuned", 1, "fine-tuned", **FEW)
    assert {path: path.read_bytes() for path in model.rglob("*") if path.is_file()} == content


@pytest.mark.parametrize("spoil", ["lacking", "cut off"])
def test_a_trained_model_that_is_not_whole_is_refused(spoil, run):
    opened, path = FinishedRun(run), run / "model" / "shared.safetensors"
    content = path.read_bytes()
    try:
        if spoil == "lacking":
            tensors = safetensors.torch.load(content)
            kept = {key: tensor for key, tensor in tensors.items() if not key.startswith("diagnosis_head/")}
            safetensors.torch.save_file(kept, path)
        else:
            path.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=r"shared\.safetensors: (diagnosis_head/\S+ is missing|not a readable)"):
            load_trained(run, opened)
    finally:
        path.write_bytes(content)


def test_controls_are_no_part_of_the_model(workspace):
    folder = federated(workspace, "scaffold", 2, "scaffold", **FEW)
    shared = safetensors.torch.load_file(folder / "model" / "shared.safetensors")
    assert {key.split("/")[0] for key in shared} == {"encoder", "projection", "generic_adapter"}
    ledger = pandas.read_csv(folder / "ledger.csv")
    assert set(ledger[ledger.module == "control"].direction) == {"up", "down"}


def test_an_unseen_centre_has_nobodys_personal_modules(workspace):
    folder = federated(workspace, "fedper", 1, "fedper", **FEW)
    opened = FinishedRun(folder)
    load_trained(folder, opened, "centre-a")
    load_trained(folder, opened)
    personal = opened.model.state(Ownership.PERSONAL)
    initial = opened.model.initial_personal
    assert all(torch.equal(personal[key].cpu(), tensor.cpu()) for key, tensor in initial.items())


def test_any_name_of_a_site_goes_all_the_way(workspace, caplog, meteor_asked):
    """Trained, validated, evaluated and drawn: a name is data, and what cannot be said of a site is blank."""
    names = ["ก" * 31, 'C, "D"', "NA", "../A/B $x$"]
    rows = make_folder(workspace / "odd-data", 24)
    for number, row in enumerate(rows):
        row |= {"site": names[number % 4], "split": ("train", "validation", "test")[number // 4 % 3]}
        row["findings"] = FINDINGS_TEXT
    write_csv(workspace / "odd-data" / "studies.csv", rows)
    prepare("folder", workspace / "odd-data", workspace / "odd", 32, seed=0)
    there = {*workspace.iterdir(), workspace / "odd-run"}
    folder = federated(workspace, "fedmrg", 1, "odd-run", "odd", "folder", unseen_sites=[names[3]])
    metrics = evaluate_run(folder)
    rounds = pandas.read_csv(folder / "rounds.csv", keep_default_na=False)
    assert list(rounds.client) == sorted(names[:3]) and set(rounds.status) == {"ok"}
    assert set(metrics.scope) == {*names[:3], "home", "unseen"}
    assert len(list((folder / "hospitals").iterdir())) == len(list((folder / "model" / "personal").iterdir())) == 3
    assert set(workspace.iterdir()) == there
    assert metrics.value[metrics.metric == "cider"].isna().all() and "CIDEr is blank" in caplog.text
    assert metrics.value[metrics.metric == "bleu_1"].notna().all()
    assert set(load_run(folder).metrics.scope) == set(metrics.scope)
    for figure in (quality_by_client, convergence, client_distance, feature_map):
        assert figure.draw([folder], folder / "figures")
