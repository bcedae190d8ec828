"""Reference runs: what is kept of a run, what never is, and how they are found and verified."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import sys
from subprocess import CompletedProcess

import pandas
import pytest
import yaml
from run_folders import planted_variance, write_run

from fedmrg_core.errors import InputError
from fedmrg_core.evaluation import reference
from fedmrg_core.evaluation import reruns as verification
from fedmrg_core.evaluation.seed_variance import FILE as SEED_VARIANCE
from fedmrg_core.evaluation.stored_runs import load_run
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.training_code import training_code_hash
from fedmrg_core.tasks.reports.predictions import read_predictions
from fedmrg_core.tasks.reports.study_scores import study_scores

PHANTOM = "smoke/phantom/fedmrg/seed-0"
FED_LORA = "smoke/phantom/fed-lora/seed-0"


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = write_run(tmp_path, training_code=training_code_hash())
    (folder / "figures").mkdir()
    for name in ("convergence.png", "convergence.csv", "convergence.pdf", "report_page.png", "something_else.png"):
        (folder / "figures" / name).write_text("x")
    return folder


def test_what_is_kept_of_a_phantom_run(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    kept = reference.store_reference(run, PHANTOM, tmp_path / "reference")
    names = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    assert {"config.yaml", "manifest.json", "metrics.csv", "predictions.csv.gz"} <= names
    assert {name for name in names if name.startswith("figures/")} == {
        "figures/convergence.png", "figures/convergence.csv", "figures/report_page.png",
    }  # fmt: skip
    assert not any(name.endswith((".safetensors", "predictions.csv")) for name in names)
    rows = pandas.read_csv(kept / "predictions.csv.gz")
    assert set(rows.system) == {"model"}
    # A reference opens as a run does, with the same answers and, to its digits, the same measures.
    before, after = load_run(run), load_run(kept)
    assert before.predictions[["study_id", "generated"]].equals(after.predictions[["study_id", "generated"]])
    assert (before.metrics.value - after.metrics.value).abs().max() <= 0.5 * 10**-reference.DIGITS * 1.001


def test_of_real_data_only_numbers_are_kept(tmp_path: pathlib.Path) -> None:
    folder = write_run(tmp_path, data="iu_xray", profile="standard")
    (folder / "figures").mkdir()
    for name in ("quality_by_client.png", "report_page.png", "feature_map.png"):
        (folder / "figures" / name).write_text("x")
    kept = reference.store_reference(folder, "standard/iu_xray/fedmrg/seed-0", tmp_path / "reference")
    names = {path.name for path in kept.rglob("*") if path.is_file()}
    assert "metrics.csv" in names and "quality_by_client.png" in names
    assert not names & {"predictions.csv", "predictions.csv.gz", "report_page.png", "feature_map.png"}
    reports = pandas.read_csv(folder / "predictions.csv").generated.dropna().unique()
    written = "".join(path.read_text(errors="ignore") for path in kept.rglob("*") if path.is_file())
    assert len(reports) and not any(report in written for report in reports)


def test_scores_of_studies_give_the_same_intervals_and_tests_as_their_reports(tmp_path: pathlib.Path) -> None:
    folder = write_run(tmp_path, data="iu_xray", profile="standard")
    kept = reference.store_reference(folder, "standard/iu_xray/fedmrg/seed-0", tmp_path / "reference")
    text = gzip.decompress((kept / "study_scores.csv.gz").read_bytes()).decode()
    ids = pandas.read_csv(folder / "predictions.csv", dtype=str).study_id.unique()
    assert len(ids) and not any(study in text for study in ids)
    for role in ("home", "unseen"):
        (studies, whole), (again, scores) = (load_run(place).statistics(role) for place in (folder, kept))
        assert studies == again and len(studies) and whole.keys() == scores.keys() >= {"bleu_4", "rouge_l"}
        for key, statistics in whole.items():
            assert (statistics.summands == scores[key].summands).all()
            assert statistics.estimate() == pytest.approx(scores[key].estimate(), rel=1e-12)  # summed in another order


def test_scores_that_are_none_are_refused(tmp_path: pathlib.Path) -> None:
    folder = write_run(tmp_path, data="iu_xray", profile="standard")
    kept = reference.store_reference(folder, "standard/iu_xray/fedmrg/seed-0", tmp_path / "reference")
    (kept / "study_scores.csv.gz").write_bytes(gzip.compress(b"study,role\n1,home\n"))
    with pytest.raises(InputError, match="study_scores.csv.gz: column 'adapter' is missing"):
        load_run(kept).statistics("home")
    (kept / "study_scores.csv.gz").write_bytes(gzip.compress(b"study,role\n1,home\n")[:-9])
    with pytest.raises(InputError, match="study_scores.csv.gz is not a readable UTF-8 CSV file"):
        load_run(kept).statistics("home")


def test_the_same_run_gives_the_same_bytes(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    first, second = (reference.store_reference(run, PHANTOM, tmp_path / name) for name in ("one", "two"))
    assert (first / "predictions.csv.gz").read_bytes() == (second / "predictions.csv.gz").read_bytes()
    assert gzip.decompress((first / "predictions.csv.gz").read_bytes()).startswith(b"study_id")


def test_a_comparison_is_kept_beside_its_runs(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    report, references = tmp_path / "report" / "benchmark-smoke", tmp_path / "reference"
    report.mkdir(parents=True)
    with pytest.raises(InputError, match=r"main\.md is missing; run notebook 10_benchmark first"):
        reference.store_benchmark(report, references / "smoke")
    for name in ("main.md", "main.tex", "ablation.png", "ablation.pdf"):
        (report / name).write_text(name)
    reference.store_reference(run, PHANTOM, references)
    kept = reference.store_benchmark(report, references / "smoke")
    assert {path.name for path in kept.iterdir()} == {"main.md", "main.tex", "ablation.png"}
    assert reference.reference_runs(references, "smoke") == [RunSettings()]


def test_a_run_without_a_commit_is_no_reference(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    for changed in ({"uncommitted_changes": True}, {"commit": None, "uncommitted_changes": None}):
        (run / "manifest.json").write_text(json.dumps({**manifest, **changed}))
        with pytest.raises(InputError, match="uncommitted changes, or outside a git clone"):
            reference.store_reference(run, PHANTOM, tmp_path / "reference")
    (run / "metrics.csv").unlink()
    with pytest.raises(InputError, match="metrics.csv is missing"):
        reference.store_reference(run, PHANTOM, tmp_path / "reference")
    assert not (tmp_path / "reference").exists()


def test_runs_made_here_go_before_references(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    references = tmp_path / "reference"
    reference.store_reference(run, PHANTOM, references)
    other = write_run(tmp_path, method="fed-lora")
    reference.store_reference(other, FED_LORA, references)
    (other / "metrics.csv").unlink()
    wanted = [RunSettings(), RunSettings(method="fed-lora"), RunSettings(method="moon")]
    found, missing = reference.finished_runs(wanted, tmp_path, references)
    assert found == [run, references / FED_LORA]
    assert missing == ["smoke/phantom/moon/seed-0"]
    configuration = yaml.safe_load((run / "config.yaml").read_text())
    configuration["profile"]["training"]["learning_rate"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(configuration))
    found = reference.finished_runs(wanted, tmp_path, references)[0]
    assert found == [references / name for name in (PHANTOM, FED_LORA)]
    (references / PHANTOM / "config.yaml").write_text(yaml.safe_dump(configuration))
    missing = reference.finished_runs(wanted, tmp_path, references)[1]
    assert missing[0] == f"{PHANTOM} (there is one with another training.learning_rate)"
    assert reference.reference_runs(references, "smoke") == [RunSettings(method="fed-lora"), RunSettings()]


def test_verify_names_what_there_is(monkeypatch: pytest.MonkeyPatch, run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    references = tmp_path / "reference"
    reference.store_reference(run, PHANTOM, references)
    monkeypatch.setattr(verification, "reference_folder", lambda profile: references / profile)
    monkeypatch.setattr(verification, "REPOSITORY", tmp_path)
    for only in (["moon"], ["fedmrg", "moon"]):  # also beside a name that means something
        with pytest.raises(InputError, match="no reference run of profile 'smoke' is called 'moon'; .* one of fedmrg"):
            verification.verify_references("smoke", only, rerun=False, data_root="", cores=1)
    with pytest.raises(InputError, match="profile 'paper' has no reference run"):
        verification.verify_references("paper", [], rerun=False, data_root="", cores=1)
    planted_variance(tmp_path / "reference" / SEED_VARIANCE)
    rows = verification.verify_references("smoke", ["fedmrg"], rerun=False, data_root="", cores=1)
    assert set(rows.status) == {"equal to the digit"}
    assert verification.print_verdict(rows, "smoke") == 0


def test_verify_finds_its_own_command_from_anywhere(
    monkeypatch: pytest.MonkeyPatch, run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """`.venv/bin/fedmrg verify` runs the workflow though the environment is not on the caller's path."""
    references, called = tmp_path / "reference", []
    reference.store_reference(run, PHANTOM, references)
    planted_variance(references / SEED_VARIANCE)
    monkeypatch.setattr(verification, "reference_folder", lambda profile: references / profile)
    monkeypatch.setattr(verification, "REPOSITORY", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        verification.subprocess, "run", lambda *given, **options: called.append(options) or CompletedProcess(given, 0)
    )
    verification.verify_references("smoke", [], rerun=True, data_root="", cores=1)
    assert [options["env"]["PATH"].split(os.pathsep)[0] for options in called] == [
        str(pathlib.Path(sys.executable).parent)
    ]


def test_a_study_is_called_the_same_where_other_test_sets_are_missing(tmp_path: pathlib.Path) -> None:
    """Hospitals on their own share no model that an unseen centre could be asked with."""
    answers = read_predictions(write_run(tmp_path) / "predictions.csv")
    answers = answers[answers["system"] == "model"]
    whole, home = study_scores(answers), study_scores(answers[answers["role"] == "home"])
    assert set(whole["role"]) == {"home", "unseen"} and len(home)
    pandas.testing.assert_frame_equal(whole[whole["role"] == "home"].reset_index(drop=True), home)
