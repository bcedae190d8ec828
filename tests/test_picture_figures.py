"""Figures and tables of visual prompts as notebook 10 shows them, from planted run folders."""

from __future__ import annotations

import pathlib

import pandas
import pytest
from picture_runs import write_picture_run
from run_folders import write_run
from small_pictures import DATA

from fedmrg_core.errors import InputError
from fedmrg_core.metrics.segmentation import DICE
from fedmrg_core.runs.experiments import runs_of
from fedmrg_core.tasks.reports.measures import CLINICAL_F1
from fedmrg_core.tasks.visual_prompts.measures import AREA
from figures import picture_curves, picture_tables, quality_against_bytes, showing

SENT = {"generator": 400_000, "static": 4_000, "full": 2_000_000, "local": 90, "centralised": 0}
QUALITY = {"generator": 0.8, "static": 0.6, "full": 0.9, "local": 0.5, "centralised": 0.9}
EXPERIMENTS = ("visual-prompts", "visual-prompts-shares", "visual-prompts-count")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    root = tmp_path_factory.mktemp("pictures")
    return [
        write_picture_run(root, method, quality, data=data, seed=seed, sent=SENT[method])
        for data in DATA
        for method, quality in QUALITY.items()
        for seed in ((0, 1) if data == "phantom_masks" else (0,))  # areas take longer to resample
    ]


def stored(folder: pathlib.Path, metric: str, scope: str) -> float:
    table = pandas.read_csv(folder / "metrics.csv")
    return table[(table.metric == metric) & (table.scope == scope)].value.item()


def drawn(module: object, folders: list[pathlib.Path], out: pathlib.Path) -> pandas.DataFrame:
    paths = module.draw(folders, out)
    assert [path.name for path in paths] == [f"{paths[0].stem}.{kind}" for kind in ("pdf", "png", "csv")]
    return pandas.read_csv(paths[-1])


def test_quality_stands_over_bytes_for_reports_classes_and_masks(folders, tmp_path):
    reports = [write_run(tmp_path, method=name, sent=size) for name, size in (("fedmrg", 4e5), ("fed-lora", 3e5))]
    data = drawn(quality_against_bytes, [*folders, *reports], tmp_path / "out").set_index(["data", "role", "method"])
    measures = data.groupby(level="data")["metric"].unique().map(list).to_dict()
    assert measures == {"phantom": [CLINICAL_F1], "phantom_findings": [AREA], "phantom_masks": [DICE]}
    masks = data.loc["phantom_masks", "home"]
    assert masks["bytes_up"].to_dict() == {key: float(size) for key, size in SENT.items()}
    both = [folder for folder in folders if "phantom_masks/static" in str(folder)]
    assert masks["value"]["static"] == pytest.approx(sum(stored(each, DICE, "home") for each in both) / 2)
    assert "local" not in data.loc["phantom_masks", "unseen"].index
    assert data.loc["phantom", "unseen"].index.tolist() == ["fedmrg", "fed-lora"]


def test_methods_stand_beside_what_they_send_of_full(folders, tmp_path):
    whole, sent = picture_tables.write_methods(folders, tmp_path, "visual-prompts")
    assert [path.name for path in sent] == [f"visual-prompts-bytes.{kind}" for kind in ("csv", "md", "tex")]
    table = pandas.read_csv(sent[0]).set_index(["setting", "method"])
    for data in DATA:
        rows = table.loc[data]
        assert rows.loc["static", "against_full"] == pytest.approx(0.002)
        assert rows.loc["full", "against_full"] == 1 and rows.loc[["local", "centralised"], "against_full"].isna().all()
    assert "| static |" in sent[1].read_text() and "0.2%" in sent[1].read_text()
    text = whole[1].read_text()
    assert "phantom_findings, all clients" in text and "phantom_masks, the centre that never trained" in text
    assert "Synthetic data: phantom masks" in text and "Area under the ROC curve" in text and "nan" not in text


def test_curves_over_shares_and_numbers_of_prompts(tmp_path):
    variants = {"": 0.9, "training.study_share=0.05": 0.5, "training.study_share=0.25": 0.7, "pictures.prompts=4": 0.8}
    folders = [
        write_picture_run(tmp_path, method, quality, data=data, variant=variant)
        for data in DATA
        for method in ("generator", "full")
        for variant, quality in variants.items()
        if method == "generator" or "prompts" not in variant
    ]
    data = drawn(picture_curves, folders, tmp_path / "out")
    along = {key: rows.x.tolist() for key, rows in data.groupby(["data", "axis", "line"])}
    share, count = picture_curves.AXES
    for name in DATA:
        assert along[name, share, "generator"] == along[name, share, "full"] == [0.05, 0.25, 1]
        assert along[name, count, "generator"] == [4, 8] and (name, count, "full") not in along
    assert set(data[data.data == "phantom_masks"].metric) == {DICE}
    with pytest.raises(InputError, match="takes two values"):
        picture_curves.draw(folders[:1], tmp_path / "none")


def test_the_runs_of_the_experiments_fit_into_tables_and_figures(tmp_path):
    """What experiments.yaml asks for on profile standard is never refused after hours of computing."""
    chosen = {name: [run for run in runs_of([name], "standard") if not run.seed] for name in EXPERIMENTS}
    runs = {run.name: run for group in chosen.values() for run in group if run.data == "phantom_masks"}
    made = {
        name: write_picture_run(tmp_path, run.method, 0.7, data=run.data, variant=run.variant, profile="standard")
        for name, run in runs.items()
    }
    first, *others = ([made[run.name] for run in group if run.name in made] for group in chosen.values())
    picture_tables.write_methods(first, tmp_path / "tables", "visual-prompts")
    found = drawn(quality_against_bytes, first, tmp_path / "bytes")
    assert set(found.method) == {run.method for run in chosen["visual-prompts"]}
    data = drawn(picture_curves, list(dict.fromkeys(sum(others, []))), tmp_path / "curves")
    along = data.groupby(["axis", "line"]).x.apply(list)
    share, count = (along[axis] for axis in picture_curves.AXES)
    assert len(share) == 4 and all(values == [0.05, 0.1, 0.25, 1] for values in share)
    assert len(count) == 2 and all(values == [2, 4, 8, 16, 32] for values in count)


def test_where_no_run_is_there_nothing_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(showing, "reference_folder", lambda profile: tmp_path / "references" / "standard")
    benchmark = showing.Benchmark("standard", tmp_path)
    picture_tables.show_methods(benchmark, EXPERIMENTS[0])
    picture_tables.show_curves(benchmark, *EXPERIMENTS[1:])
    assert capsys.readouterr().out == ""
