"""What is published of a data set's runs: everything, scores of single studies, or aggregates alone."""

from __future__ import annotations

import contextlib
import json
import pathlib

import nbformat
import pandas
import pytest
from run_folders import CLIENTS, TEXTS, planted_variance, write_run

from fedmrg_core.commands.committed_notebooks import sync_notebook
from fedmrg_core.data import publishing
from fedmrg_core.data.sources import DATA_SOURCES, sources_of
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation import comparison, reference, table_writers
from fedmrg_core.evaluation.reruns import print_verdict
from fedmrg_core.evaluation.run_sets import load_runs
from fedmrg_core.evaluation.seed_variance import FILE as SEED_VARIANCE
from fedmrg_core.evaluation.seed_variance import read_seed_variance
from fedmrg_core.evaluation.stored_runs import load_run
from fedmrg_core.evaluation.verify import NOT_REPRODUCED, verify
from fedmrg_core.runs.experiments import RunSettings
from fedmrg_core.runs.training_code import training_code_hash
from fedmrg_core.tasks.reports.stored_base_models import store_base_models

FOLDER = "smoke/folder/fedmrg/seed-{}"
EVERY_FIGURE = (*publishing.FIGURES, *publishing.FIGURES_OF_STUDIES, "my_own")


def kept_run(root: pathlib.Path, data: str, seed: int = 0, **settings: object) -> tuple[pathlib.Path, pathlib.Path]:
    """A run with every figure, and its reference."""
    folder = write_run(root, data=data, seed=seed, training_code=training_code_hash(), **settings)
    pandas.read_csv(folder / "rounds.csv").assign(validation_loss=1.0).to_csv(folder / "rounds.csv", index=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "selected_round": 1}))
    (folder / "figures").mkdir()
    for name in EVERY_FIGURE:
        (folder / "figures" / f"{name}.png").write_text(name)
    head = pandas.DataFrame(
        [("edema", 0.8, 30, 90), ("fracture", 0.9, 9, 90), ("atelectasis", 0.7, 82, 90)],
        columns=["finding", "auroc", "positive", "studies"],
    )
    head.to_csv(folder / "head_auroc.csv", index=False)
    name = RunSettings(data=data, seed=seed).name
    return folder, reference.store_reference(folder, name, root / "reference")


def names_in(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_every_data_set_says_what_may_be_published() -> None:
    levels = {name: (source.synthetic, source.publish) for name, source in DATA_SOURCES.items()}
    reports = {"phantom": (True, "all"), "iu_xray": (False, "scores"), "folder": (False, "aggregates")}
    public = dict.fromkeys(("medquad", "medmcqa", "medqa", "pubmedqa"), (False, "scores"))
    pictures = dict.fromkeys(("phantom_findings", "phantom_masks"), (True, "all"))
    pictures |= dict.fromkeys(("polyps", "chest_normal"), (False, "scores"))
    pictures |= dict.fromkeys(("picture_classes", "picture_masks"), (False, "aggregates"))
    assert levels == {**reports, "medical_world": (True, "all"), **public, **pictures}
    assert publishing.level_of("phantom-image0") == "all" and publishing.level_of("folder-north") == "aggregates"


def test_each_level_keeps_less(tmp_path: pathlib.Path) -> None:
    kept = {data: kept_run(tmp_path / data, data)[1] for data in sources_of()}
    names = {data: names_in(folder) for data, folder in kept.items()}
    assert "predictions.csv.gz" in names["phantom"] and "feature_map.png" in names["phantom"]
    assert "study_scores.csv.gz" in names["iu_xray"] and "study_scores.csv.gz" not in names["folder"]
    for data in ("iu_xray", "folder"):
        assert not names[data] & {"predictions.csv.gz", "predictions.csv", "feature_map.png", "report_page.png"}
        assert {f"{name}.png" for name in publishing.FIGURES} <= names[data]
    assert not any("my_own.png" in each for each in names.values())
    written = "".join(path.read_text(errors="ignore") for path in kept["folder"].rglob("*") if path.is_file())
    ids = pandas.read_csv(tmp_path / "folder/results" / FOLDER.format(0) / "predictions.csv", dtype=str).study_id
    assert not any(text in written for text in TEXTS) and not any(name in written for name in ids)
    shown = pandas.read_csv(kept["folder"] / "head_auroc.csv")  # nothing of 9 positives, or of 8 others
    assert list(shown["finding"]) == ["edema"] and len(pandas.read_csv(kept["iu_xray"] / "head_auroc.csv")) == 3


def test_of_aggregates_no_number_of_few_studies_is_kept(tmp_path: pathlib.Path) -> None:
    _, kept = kept_run(tmp_path, "folder", studies=28)  # seven of each client and of the unseen centre
    table = pandas.read_csv(kept / "metrics.csv")
    assert set(table["scope"]) == {"home"} and (table["studies"] >= publishing.SMALLEST_CELL).all()
    assert not table["metric"].str.startswith(("worst_client", "harmonic_mean")).any()
    assert {path.name for path in (kept / "figures").iterdir()} == {"communication.png"}
    assert set(pandas.read_csv(kept / "ledger.csv")["client"]) == set(CLIENTS)  # bytes are of no study
    with pytest.raises(InputError, match="fewer than 10 test studies, and of 'folder' no number of so few"):
        kept_run(tmp_path / "less", "folder", studies=8)
    assert not (tmp_path / "less/reference").exists()


def test_losses_of_clients_with_few_studies_are_not_kept(tmp_path: pathlib.Path) -> None:
    folder = write_run(tmp_path, data="folder")
    rounds = pandas.read_csv(folder / "rounds.csv").assign(num_examples=100, validation_examples=20)
    for smallest, there in ((10, True), (9, False)):
        rounds.loc[0, "validation_examples"] = smallest
        rounds.to_csv(folder / "rounds.csv", index=False)
        kept = reference.store_reference(folder, FOLDER.format(0), tmp_path / "reference")
        assert (kept / "rounds.csv").is_file() is there


@pytest.mark.parametrize("studies", [60, 28])
def test_verify_compares_aggregates(tmp_path: pathlib.Path, studies: int, capsys, monkeypatch) -> None:
    results, references = tmp_path / "results", tmp_path / "reference"
    for seed in (0, 1, 2):
        kept_run(tmp_path, "folder", seed, studies=studies)
    path = reference.store_seed_variance(references)
    table = read_seed_variance(path)
    assert set(table["data"]) == {"folder"} and table["beyond_studies"].isna().all()
    rows = verify(references, results, [FOLDER.format(0)])
    assert set(rows["status"]) == {"equal to the digit"} and len(rows) > 10
    assert rows["note"].str.contains("by whole test sets, for no scores of single studies").all()
    measured = rows[rows["adapter"] != "losses"]
    assert len(measured) < len(rows) and (set(CLIENTS) <= set(measured["scope"])) is (studies == 60)
    monkeypatch.setattr("fedmrg_core.evaluation.reruns.REPOSITORY", tmp_path)
    assert print_verdict(rows, "smoke") == 0 and "by whole test sets" in capsys.readouterr().out
    metrics = pandas.read_csv(results / FOLDER.format(0) / "metrics.csv")
    metrics.loc[metrics["metric"] == "bleu_4", "value"] += 0.5
    metrics.to_csv(results / FOLDER.format(0) / "metrics.csv", index=False)
    rows = verify(references, results, [FOLDER.format(0)])
    assert NOT_REPRODUCED in set(rows.loc[rows["metric"] == "bleu_4", "status"])


def test_one_seed_of_aggregates_is_held_against_its_intervals(tmp_path: pathlib.Path) -> None:
    folder, kept = kept_run(tmp_path, "folder")
    planted_variance(tmp_path / "reference" / SEED_VARIANCE)  # knows the phantom alone
    metrics = pandas.read_csv(folder / "metrics.csv")
    chosen = (metrics["system"] == "model") & (metrics["scope"] == "home") & (metrics["metric"] == "rouge_l")
    half = float(((metrics["high"] - metrics["low"]) / 2)[chosen].iloc[0])
    for change, status in ((0.5, "reproduced within chance"), (4.0, NOT_REPRODUCED)):
        changed = metrics.assign(value=metrics["value"].where(~chosen, metrics["value"] + change * half))
        changed.to_csv(folder / "metrics.csv", index=False)
        rows = verify(tmp_path / "reference", tmp_path / "results", [FOLDER.format(0)])
        found = rows[(rows["scope"] == "home") & (rows["metric"] == "rouge_l") & ~rows["adapter"].str.startswith("f")]
        assert set(found["status"]) == {status}
    assert "losses" not in set(rows["adapter"])


def test_a_reference_that_lost_its_scores_is_still_refused(tmp_path: pathlib.Path) -> None:
    folder, kept = kept_run(tmp_path, "iu_xray")
    planted_variance(tmp_path / "reference" / SEED_VARIANCE)
    (kept / "study_scores.csv.gz").unlink()
    with pytest.raises(InputError, match="holds no scores of studies"):
        verify(tmp_path / "reference", tmp_path / "results", ["smoke/iu_xray/fedmrg/seed-0"])


def test_tables_of_several_runs_hold_no_number_of_few_studies(tmp_path: pathlib.Path) -> None:
    runs = load_runs([write_run(tmp_path, data="folder", studies=28, method=name) for name in ("fedmrg", "fed-lora")])
    table = comparison.main_table(runs, resamples=20)
    assert set(table["role"]) == {"home"} and table[["worst_client", "harmonic_mean"]].isna().all(axis=None)
    whole = load_runs([write_run(tmp_path, data="iu_xray", studies=28)])
    assert set(comparison.main_table(whole, resamples=20)["role"]) == {"home", "unseen"}


def test_notebooks_and_base_models_of_such_data_are_not_committed(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "01_data.py"
    source.write_text("# %%\nprint(1)\n")
    sync_notebook(source)
    executed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    for data, refused in (("phantom-image0", False), ("iu_xray", True), ("folder-north", True)):
        executed.metadata["papermill"] = {"parameters": {"data": data}}
        nbformat.write(executed, tmp_path / "executed.ipynb")
        with pytest.raises(InputError, match="must not be published") if refused else contextlib.nullcontext():
            sync_notebook(source, tmp_path / "executed.ipynb")
    with pytest.raises(InputError, match="learnt reports of 'iu_xray' by heart, which must not be published"):
        store_base_models(tmp_path / "base_models/smoke/iu_xray", "smoke", "iu_xray", tmp_path / "stored")
    assert not (tmp_path / "stored").exists()


def test_tables_of_aggregates_have_intervals_and_say_that_nothing_is_tested(tmp_path: pathlib.Path) -> None:
    folders = []
    for method in ("fedmrg", "fed-lora"):
        folder = write_run(tmp_path, data="folder", method=method)
        name = RunSettings(data="folder", method=method).name
        folders.append(reference.store_reference(folder, name, tmp_path / "reference"))
    runs = load_runs(folders)
    assert runs.notes[-1] == "2 of 2 runs hold no scores of single studies (folder): none of them is tested."
    table = comparison.main_table(runs, resamples=20)
    models = table[table["system"] == "model"]
    assert models[["value", "low", "high"]].notna().all(axis=None) and models["p_value"].isna().all()
    paths = table_writers.write_comparison(
        table, tmp_path / "out", "main", measures=runs.measures, notes=runs.notes, differences=True
    )
    assert "none of them is tested" in paths[1].read_text()
    assert load_run(folders[0]).answer("home") and json.loads((folders[0] / "manifest.json").read_text())
