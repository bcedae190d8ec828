"""Prepared folders, the table of data sets, the public corpus, and the data cards."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

import mlcroissant
import numpy
import pytest
import torch
from data_fixtures import make_folder, make_iu, study_rows

from fedmrg_core.commands.check_data import load_studies
from fedmrg_core.commands.notebooks import read_notebook
from fedmrg_core.data import prepared
from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.phantom.studies import TEXTS_PER_IMAGE, load_phantom
from fedmrg_core.data.prepared import load_prepared, load_public_studies, prepare
from fedmrg_core.data.sources import DATA_SOURCES, check_data_parameters, corpus_name, data_source, read_name
from fedmrg_core.data.study import check_studies
from fedmrg_core.errors import InputError

PHANTOM = {"train": 2, "validation": 1, "test": 1, "adaptation": 3}


def test_round_trip(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path / "data", findings="")
    made = prepare("folder", tmp_path / "data", tmp_path / "out/folder", 32, 0)
    again = load_prepared(tmp_path / "out/folder")
    assert again.summary == made.summary and again.left_out == made.left_out
    assert again.studies.to_dict() == made.studies.to_dict() and len(again.studies) == 5
    assert [row.study_id for row in again.left_out] == ["s0"]
    summary = again.summary
    assert summary["studies"] == {
        "north": {"train": 1, "validation": 1, "test": 1},
        "south": {"validation": 1, "test": 1},
    }
    assert summary["states"]["north"]["cardiomegaly"] == {"blank": 0, "positive": 3, "negative": 0, "uncertain": 0}
    assert summary["vocabulary"] == 7 and list(summary["left_out"].values()) == [1]
    assert again.fingerprint == prepared.fingerprint(again.studies)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["folder"], "scratch is left behind"


def test_warnings_are_printed_once_and_kept(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    make_folder(tmp_path / "data", findings="Keine Infiltrate.")
    made = [prepare("folder", tmp_path / "data", tmp_path / "out", 32, 0) for _ in range(2)]
    (sentence,) = made[1].summary["warnings"]
    assert sentence.startswith("studies.csv: 1 of 6 reports") and str(tmp_path) not in sentence
    assert capsys.readouterr().err.count(f"Warning: {sentence}") == 1


def test_a_loader_that_hands_out_a_placeholder_is_refused() -> None:
    studies = study_rows([("p", "north", "train")])
    for text, reason in (("None", "stands for a missing report"), ("...", "no word"), ("", "empty findings")):
        changed = studies.remove_columns("findings").add_column("findings", [text])
        with pytest.raises(InputError, match=f"new: study 's0': .*{reason}"):
            check_studies(changed, "new")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("folder", ""), "data_root is empty but data 'folder' is read from a folder; give data_root=FOLDER"),
        (("iu_xray", ""), "data_root is empty but data 'iu_xray'"),
        (("folder", "nowhere"), "data_root nowhere is not a folder"),
        (("phantom", "."), "data_root is given but data 'phantom' reads no folder"),
        (("mimic", ""), "data is 'mimic'"),
        (("iu_xray", ".", "layout=openi"), "options is 'layout=openi'; expected a mapping"),
        (("iu_xray", ".", "[1]"), r"options is '\[1\]'; expected a mapping"),
        (("phantom", "", '{"train": 3}'), "takes its numbers from the profile"),
    ],
)
def test_parameters_are_checked_before_anything_is_read(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_data_parameters(*arguments)
    assert check_data_parameters("iu_xray", ".", '{"layout": "openi"}') == {"layout": "openi"}
    assert check_data_parameters("phantom-image0", "") == {}


def test_the_first_cell_with_code_checks_the_parameters(repository: pathlib.Path) -> None:
    cells = [cell for cell in read_notebook(repository / "notebooks/01_data.py").cells if cell.cell_type == "code"]
    assert "check_data_parameters(data, data_root, options)" in cells[1].source  # after the parameters
    code = (
        "import sys, fedmrg_core.data.sources; print([n for n in ('datasets', 'torch', 'pandas') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository)
    assert done.stdout.strip() == "[]", "what checks them takes long to import"


def test_equal_arguments_reuse_and_others_rebuild(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "data")
    calls = []
    original = prepared.call_loader
    monkeypatch.setattr(prepared, "call_loader", lambda *a, **k: calls.append(a) or original(*a, **k))
    out = tmp_path / "out"
    first = prepare("folder", tmp_path / "data", out, 32, 0)
    assert prepare("folder", str(tmp_path / "data"), out, 32, 0).fingerprint == first.fingerprint and len(calls) == 1
    assert prepare("folder", tmp_path / "data", out, 48, 0).fingerprint != first.fingerprint and len(calls) == 2
    assert prepare("folder", tmp_path / "data", out, 32, 0).fingerprint == first.fingerprint and len(calls) == 3
    make_folder(tmp_path / "data", findings="The lungs are clear.")
    assert prepare("folder", tmp_path / "data", out, 32, 0).fingerprint != first.fingerprint and len(calls) == 4


def test_a_failure_leaves_the_older_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "data")
    first = prepare("folder", tmp_path / "data", tmp_path / "out", 32, 0)

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(prepared.LoadedStudies, "write_left_out", fail)
    with pytest.raises(OSError, match="disk full"):
        prepare("folder", tmp_path / "data", tmp_path / "out", 48, 0)
    assert load_prepared(tmp_path / "out").fingerprint == first.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_foreign_and_incomplete_folders_are_left_alone(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path / "data")
    with pytest.raises(InputError, match="holds something else"):
        prepare("folder", tmp_path / "data", tmp_path / "data", 32, 0)
    assert (tmp_path / "data/studies.csv").is_file()
    with pytest.raises(InputError, match="not a complete prepared folder"):
        load_prepared(tmp_path / "nowhere")


def test_the_phantom_prepares_with_its_unseen_centre(tmp_path: pathlib.Path) -> None:
    made = prepare("phantom", None, tmp_path / "out", 32, 0, cache_folder=tmp_path / "cache", **PHANTOM)
    assert made.unseen_sites == ("centre-f",) and "publish" not in made.summary
    assert made.summary["studies"]["centre-a"] == {"train": 2, "validation": 1, "test": 1}
    assert made.summary["studies"]["centre-f"] == {"train": 3, "test": 1} and made.left_out == []
    other = prepare("phantom", "", tmp_path / "other", 32, 0, unseen_sites=["centre-a"], **PHANTOM)
    assert other.unseen_sites == ("centre-a",) and other.fingerprint == made.fingerprint
    assert str(tmp_path) not in (tmp_path / "out/summary.json").read_text()


def test_a_name_sets_options_of_its_data_set(tmp_path: pathlib.Path) -> None:
    assert all("-" not in name for name in DATA_SOURCES), "a dash begins the options of a name"
    assert read_name("phantom-wording0.25-image1") == ("phantom", {"wording_strength": 0.25, "image_strength": 1.0})
    assert data_source("phantom-image0") is DATA_SOURCES["phantom"] and corpus_name("phantom-image0") == "phantom"
    made = {
        name: prepare(name, None, tmp_path / name, 32, 0, **PHANTOM)
        for name in ("phantom", "phantom-image0", "phantom-image0.5-wording0")
    }
    texts = {name: list(each.studies["findings"]) for name, each in made.items()}
    pixels = {name: [image.tobytes() for image in each.studies["image"]] for name, each in made.items()}
    assert texts["phantom"] == texts["phantom-image0"] != texts["phantom-image0.5-wording0"]
    assert len({tuple(own) for own in pixels.values()}) == 3
    assert all(each.unseen_sites == ("centre-f",) for each in made.values())
    direct = load_phantom(**PHANTOM, image_size=32, image_strength=0.5, wording_strength=0.0).studies
    assert prepared.fingerprint(direct) == made["phantom-image0.5-wording0"].fingerprint
    public = [load_public_studies(name, "", 2, 32, 0).fingerprint for name in ("phantom", "phantom-wording0")]
    assert public[0] == public[1], "base models are shared by all strengths"


@pytest.mark.parametrize(
    ("data", "root", "options", "sentence"),
    [
        ("mimic", None, {}, "data is 'mimic'; expected one of phantom, iu_xray, folder"),
        ("folder", None, {}, "data 'folder' needs the parameter root"),
        ("folder", "", {}, "data 'folder' needs the parameter root"),
        ("folder", "nowhere", {}, "root nowhere is not a folder"),
        ("phantom", "somewhere", PHANTOM, "root is given but data 'phantom' reads no folder"),
        ("phantom-image2", None, PHANTOM, "image_strength is 2.0; give a number from 0 to 1"),
        ("phantom-image0.5-contrast1", None, PHANTOM, "'contrast1' is no option of it, expected phantom-image<number>"),
        ("phantom-image", None, PHANTOM, "'image' is no option of it"),
        ("phantom-image-1", None, PHANTOM, "'image' is no option of it"),
        ("phantom-", None, PHANTOM, "'' is no option of it"),
        ("phantom-image0-image1", None, PHANTOM, "sets 'image' twice"),
        ("iu_xray-image0", "", {}, "'iu_xray' takes no options in its name; write data='iu_xray'"),
        ("folder-a-b", "", {}, "behind folder- one word of letters, digits and _ is expected"),
        ("folder-", "", {}, "behind folder- one word"),
        ("phantom", None, {"train": 2}, "option 'validation': Missing"),
        ("phantom", None, {**PHANTOM, "epochs": 2}, "option 'epochs': Unexpected keyword argument"),
        ("phantom", None, {**PHANTOM, "train": "many"}, "option 'train': .*integer.*'many'"),
        ("phantom", None, {**PHANTOM, "unseen_sites": ["centre-z"]}, "unseen_sites names 'centre-z'"),
        ("iu_xray", "nowhere", {"layout": "mimic"}, "option 'layout': .*'kaggle', 'openi' or 'r2gen'"),
    ],
)
def test_bad_arguments(tmp_path: pathlib.Path, data: str, root: str | None, options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        prepare(data, root, tmp_path / "out", 32, 0, **options)
    assert list(tmp_path.iterdir()) == []


def test_public_studies_as_tensors(tmp_path: pathlib.Path) -> None:
    make_iu(tmp_path)
    public = load_public_studies("iu_xray", tmp_path, 5, 32, 0)
    assert public.images.shape == (9, 1, 32, 32) and public.images.dtype == torch.uint8
    assert public.image_states.shape == (9, 14) and public.text_states.shape == (len(public.texts), 14)
    assert public.text_states.tolist() == [list(label_report(text)) for text in public.texts]
    phantom = load_public_studies("phantom", "", 3, 32, 0)
    assert len(phantom.texts) == 3 * TEXTS_PER_IMAGE and phantom.images.shape == (3, 1, 32, 32)
    same, other = (load_public_studies("phantom", "", 3, 32, seed) for seed in (0, 1))
    assert phantom.fingerprint == same.fingerprint != other.fingerprint
    assert numpy.array_equal(phantom.images, same.images)
    assert load_public_studies("folder", tmp_path, 3, 32, 0).fingerprint == phantom.fingerprint


def test_a_dry_run_reads_a_profile(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path)
    assert len(load_studies("folder", tmp_path, "smoke").studies) == 6


def _fields(repository: pathlib.Path) -> list[str]:
    readme = (repository / "data_cards/README.md").read_text(encoding="utf-8")
    table = readme.split("## Your own data")[0]
    return [name for name in re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE) if name not in ("field", "---")]


def test_every_card_has_all_fields_in_order(repository: pathlib.Path) -> None:
    cards = [path for path in (repository / "data_cards").glob("*.md") if path.name != "README.md"]
    assert cards and len(_fields(repository)) == 13
    for card in cards:
        assert re.findall(r"^## (.+)$", card.read_text(encoding="utf-8"), re.MULTILINE) == _fields(repository), (
            card.name
        )
        assert card.with_suffix(".json").is_file(), f"{card.name} has no Croissant twin"


def test_croissant_cards_are_valid_and_hold_no_data(repository: pathlib.Path) -> None:
    for path in (repository / "data_cards").glob("*.json"):
        card = mlcroissant.Dataset(path)  # raises where the card breaks the format
        assert card.metadata.name
        records = json.loads(path.read_text(encoding="utf-8"))["recordSet"]
        assert records and not any("data" in record for record in records)


def test_every_read_data_set_has_a_card(repository: pathlib.Path) -> None:
    names = {path.stem for path in (repository / "data_cards").glob("*.json")}
    together = dict.fromkeys(("medquad", "medmcqa", "medqa", "pubmedqa"), "medical_questions")
    together |= dict.fromkeys(("phantom_findings", "phantom_masks"), "phantom_pictures")
    together |= dict.fromkeys(("polyps", "chest_normal", "picture_classes", "picture_masks"), "pictures")
    for data in DATA_SOURCES.keys() - {"folder"}:  # a hospital's own folder is described in the README of the cards
        assert any(name.startswith(together.get(data, data)) for name in names), f"{data} has no card"


def test_the_example_of_the_readme_loads(tmp_path: pathlib.Path, repository: pathlib.Path) -> None:
    readme = (repository / "data_cards/README.md").read_text(encoding="utf-8")
    table = re.search(r"```\n(study_id,.*?)```", readme, re.DOTALL)[1]
    make_folder(tmp_path)
    for number in (1, 2):
        (tmp_path / f"images/{number}.png").rename(tmp_path / f"images/000{number}.png")
    (tmp_path / "studies.csv").write_text(table, encoding="utf-8")
    made = prepare("folder", tmp_path, tmp_path.parent / f"{tmp_path.name}-out", 32, 0)
    assert made.summary["studies"] == {"north": {"train": 1}, "south": {"test": 1}} and made.left_out == []
