"""IU X-ray: layouts, sites, splits, views and public corpus; on drawn data and, if it is there, on the real set."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pathlib
import re
import tarfile

import datasets
import pytest
from data_fixtures import FINDINGS_TEXT, IMPRESSION_TEXT, make_iu, save_noise, write_csv

from fedmrg_core.data.iu_xray import load_iu_xray, load_iu_xray_public
from fedmrg_core.data.iu_xray_files import image_key
from fedmrg_core.data.partition import partition_clients
from fedmrg_core.data.study import SPLITS, LoadedStudies
from fedmrg_core.errors import InputError

REAL = pathlib.Path(
    os.environ.get("FEDMRG_IU_XRAY") or pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "iu_xray"
)
needs_real_data = pytest.mark.skipif(
    not REAL.is_dir(), reason="no IU X-ray folder; set FEDMRG_IU_XRAY to one (see data_cards/iu_xray.md)"
)


@pytest.fixture(scope="module")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("iu")
    make_iu(root)
    return root


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    make_iu(tmp_path)
    return tmp_path


def _facts(loaded: LoadedStudies) -> list[tuple]:
    names = ("study_id", "site", "split", "view", "findings")
    return list(zip(*(loaded.studies[name] for name in names), strict=True))


def _edit_csv(path: pathlib.Path, row: int, **changes: str) -> None:
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows[row].update(changes)
    write_csv(path, rows)


@pytest.mark.parametrize(
    "name", ["1_IM-0001-4001.dcm.png", "CXR1_1_IM-0001-4001.jpg", "a/1_IM-0001-4001", "CXR1_IM-0001-4001.dcm"]
)
def test_an_image_goes_by_many_names(name: str) -> None:
    assert image_key(name) == "1_IM-0001-4001"


def test_all_layouts_tell_the_same(drawn_root: pathlib.Path) -> None:
    kaggle = load_iu_xray(drawn_root, layout="kaggle")
    assert (
        _facts(kaggle)
        == _facts(load_iu_xray(drawn_root, layout="openi"))
        == _facts(load_iu_xray(drawn_root, layout="r2gen"))
    )
    assert len(kaggle.studies) == 30 and set(kaggle.studies["impression"]) == {IMPRESSION_TEXT}


@pytest.mark.parametrize("site", "ABCDE")
def test_any_site_can_be_the_unseen_one(drawn_root: pathlib.Path, site: str) -> None:
    studies = load_iu_xray(drawn_root).studies
    partition = partition_clients(studies, unseen_sites=[site])
    assert list(partition.clients) == [name for name in "ABCDE" if name != site]
    own = {split: [row for row, at in _places(studies) if at == (site, split)] for split in SPLITS}
    assert list(partition.unseen[site]["study_id"]) == own["test"] != []
    assert list(partition.adaptation[site]["study_id"]) == own["train"] != []
    assert partition.unused == {site: len(own["validation"])}
    trained = {row for client in partition.clients.values() for split in SPLITS for row in
               getattr(client, split)["study_id"]}  # fmt: skip
    assert trained == {row for row, at in _places(studies) if at[0] != site}


def _places(studies: datasets.Dataset) -> list[tuple[str, tuple[str, str]]]:
    """(study, (site, split)) of every study."""
    return [
        (row, (site, split))
        for row, site, split in zip(*(studies[n] for n in ("study_id", "site", "split")), strict=True)
    ]


def test_the_xml_archive_reads_like_the_folder(root: pathlib.Path) -> None:
    before = _facts(load_iu_xray(root, layout="openi"))
    with tarfile.open(root / "NLMCXR_reports.tgz", "w:gz") as archive:
        archive.add(root / "ecgen-radiology", "ecgen-radiology")
    (root / "ecgen-radiology").rename(root / "elsewhere")
    assert _facts(load_iu_xray(root, layout="openi")) == before
    content = (root / "NLMCXR_reports.tgz").read_bytes()
    (root / "NLMCXR_reports.tgz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"NLMCXR_reports\.tgz is not a whole tar archive"):
        load_iu_xray(root, layout="openi")


def test_splits_follow_r2gen(drawn_root: pathlib.Path) -> None:
    loaded = load_iu_xray(drawn_root)
    split_of = dict(zip(loaded.studies["study_id"], loaded.studies["split"], strict=True))
    assert {name for name, split in split_of.items() if split == "test"} == {f"CXR{uid}" for uid in (6, 12, 18, 24, 30)}
    for site in "ABCDE":  # five training studies a site: one of them is validation
        own = loaded.studies.filter(lambda row, site=site: row["site"] == site)
        assert own["split"][:].count("validation") == 1 and own["split"][:].count("train") == 4
    assert _facts(loaded) == _facts(load_iu_xray(drawn_root))
    others = [_facts(load_iu_xray(drawn_root, seed=seed)) for seed in (1, 2, 3)]
    assert any(other != _facts(loaded) for other in others)


def test_the_split_is_the_same_for_every_view(drawn_root: pathlib.Path) -> None:
    frontal, lateral, both = (load_iu_xray(drawn_root, view=view).studies for view in ("frontal", "lateral", "both"))
    assert frontal["split"][:] == lateral["split"][:] and set(lateral["view"]) == {"lateral"}
    assert len(both) == 60 and both["study_id"][:2] == ["CXR1-frontal", "CXR1-lateral"]
    assert dict(zip(both["patient_id"], both["split"], strict=True)) == dict(
        zip(frontal["patient_id"], frontal["split"], strict=True)
    )


def test_r2gens_own_test_part_and_random_splits(root: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"annotation\.json has no part 'test'"):
        load_iu_xray(root, test_part="test")
    annotation = json.loads((root / "annotation.json").read_text())
    annotation["test"] = [annotation["train"].pop()]
    (root / "annotation.json").write_text(json.dumps(annotation))
    kept = load_iu_xray(root, test_part="test").studies
    assert kept["split"][:].count("validation") == 5 and kept["split"][:].count("test") == 1
    left = {row.study_id: row.reason for row in load_iu_xray(root).left_out}
    assert "unused R2Gen part 'test'" in left["CXR29"]
    (root / "annotation.json").unlink()
    everything = load_iu_xray(root, split_source="random").studies
    assert len(everything) == 38 and everything["split"][:].count("test") == 10
    with pytest.raises(InputError, match=r"annotation\.json is missing"):
        load_iu_xray(root)


def test_every_study_is_used_or_listed(drawn_root: pathlib.Path) -> None:
    loaded = load_iu_xray(drawn_root, split_source="random")
    reasons = {row.study_id: row.reason for row in loaded.left_out}
    assert "empty findings section" in reasons["CXR31"] and "no frontal image" in reasons["CXR32"]
    assert "another frontal image" in reasons["CXR33"] and "CXR33" in loaded.studies["study_id"]
    names = {f"CXR{uid}" for uid in range(1, 41)}
    assert set(loaded.studies["study_id"]) | set(reasons) == names
    in_r2gen = load_iu_xray(drawn_root)
    assert set(in_r2gen.studies["study_id"]) | {row.study_id for row in in_r2gen.left_out} == names


def test_sites_by_majority_and_ties(root: pathlib.Path) -> None:
    assert dict(_sites(load_iu_xray(root)))["CXR5"] == "A"
    spacing = "['0.150', '0.15']"
    rows = [
        {"stem": f"{uid}_IM-0001-{series}", "uid": uid, "Private Creator": creator, "Imager Pixel Spacing": spacing}
        for uid, series, creator in [
            ("1", 2001, "SIEMENS"), ("1", 1001, "SIEMENS"), ("1", 9, "MITRA"),  # majority C
            ("2", 1001, "SIEMENS"), ("2", 2001, "MITRA"),  # tie: the frontal image, 2001, says A
            ("3", 7, "Philips"), ("3", 8, "Agfa"),  # tie without a frontal image: the first letter, D
        ]
    ]  # fmt: skip
    write_csv(root / "acquisition.csv.gz", rows)
    loaded = load_iu_xray(root)
    assert dict(_sites(loaded)) == {"CXR1": "C", "CXR2": "A", "CXR3": "D"}
    assert sum("so no site" in row.reason for row in loaded.left_out) == 27
    (root / "acquisition.csv.gz").unlink()
    with pytest.raises(InputError, match=r"acquisition\.csv\.gz is missing; .*sites='none'"):
        load_iu_xray(root)
    assert set(load_iu_xray(root, sites="none").studies["site"]) == {"iu"}


def _sites(loaded: LoadedStudies) -> zip:
    return zip(loaded.studies["study_id"], loaded.studies["site"], strict=True)


def test_sections_can_be_joined(drawn_root: pathlib.Path) -> None:
    joined = load_iu_xray(drawn_root, sections=("findings", "impression")).studies[0]
    assert joined["findings"] == f"{FINDINGS_TEXT} Film 1. {IMPRESSION_TEXT}"
    with pytest.raises(InputError, match="sections is"):
        load_iu_xray(drawn_root, sections=("impression",))


def test_r2gens_own_image_folders(root: pathlib.Path) -> None:
    for path in (root / "images").iterdir():
        path.unlink()
    (root / "indiana_projections.csv").unlink()
    (root / "indiana_reports.csv").unlink()
    for uid in range(1, 31):
        for image in range(1 if uid == 4 else 2):
            save_noise(root / f"images/CXR{uid}_IM-0001/{image}.png", uid + 100 * image)
    frontal = load_iu_xray(root, layout="r2gen", sites="none")
    lateral = load_iu_xray(root, layout="r2gen", sites="none", view="lateral")
    assert len(frontal.studies) == 30 and len(lateral.studies) == 29
    assert frontal.studies[0]["image"].tobytes() != lateral.studies[0]["image"].tobytes()
    assert [row.study_id for row in lateral.left_out] == ["CXR4"]


def test_public_corpus_shares_no_study_with_a_client(drawn_root: pathlib.Path) -> None:
    public = load_iu_xray_public(drawn_root)
    held = set(load_iu_xray(drawn_root, view="both").studies["patient_id"])
    assert held.isdisjoint(public.studies["patient_id"])
    assert set(public.studies["study_id"]) == {f"CXR{uid}" for uid in (31, *range(33, 41))}
    films = {int(found[1]) for text in public.texts if (found := re.search(r"Film (\d+)", text))}
    assert films == set(range(32, 41))  # the text of study 32 is used though its image is missing
    assert public.texts.count(IMPRESSION_TEXT) == 10
    by_id = dict(zip(public.studies["study_id"], public.studies["findings"], strict=True))
    assert by_id["CXR31"] == IMPRESSION_TEXT
    assert sorted(load_iu_xray_public(drawn_root, layout="openi").texts) == sorted(public.texts)


@pytest.mark.parametrize(
    ("file", "row", "changes", "sentence"),
    [
        ("indiana_reports.csv", 4, {"uid": "1"}, r"indiana_reports\.csv: row 5 has the uid '1' again"),
        ("indiana_reports.csv", 4, {"uid": "x"}, r"indiana_reports\.csv: row 5 has the uid 'x'"),
        ("indiana_projections.csv", 2, {"projection": "Oblique"}, "row 3 has projection 'Oblique'"),
    ],
)
def test_faults_of_the_tables(root: pathlib.Path, file: str, row: int, changes: dict[str, str], sentence: str) -> None:
    _edit_csv(root / file, row, **changes)
    with pytest.raises(InputError, match=sentence):
        load_iu_xray(root)


@pytest.mark.parametrize(
    "file", ["indiana_reports.csv", "indiana_projections.csv", "annotation.json", "acquisition.csv.gz"]
)
def test_every_missing_file_is_named(root: pathlib.Path, file: str) -> None:
    (root / file).unlink()
    with pytest.raises(InputError, match=f"{re.escape(file)} is missing"):
        load_iu_xray(root)


def test_other_faults_name_their_file(root: pathlib.Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        load_iu_xray(root / "nowhere")
    reports = root / "indiana_reports.csv"
    whole = reports.read_bytes()
    reports.write_bytes(whole.replace(b"Film 2.", b"Film \xe9."))
    with pytest.raises(InputError, match=r"indiana_reports\.csv: line 3, byte \d+ \(0xe9\) is not UTF-8"):
        load_iu_xray(root)
    reports.write_bytes(whole.replace(b"findings", b"finding", 1))
    with pytest.raises(InputError, match="column 'findings' is missing"):
        load_iu_xray(root)
    reports.write_bytes(whole)
    annotation = json.loads((root / "annotation.json").read_text())
    annotation["train"].append({"id": "CXR999_IM-1", "report": "x", "image_path": [], "split": "train"})
    (root / "annotation.json").write_text(json.dumps(annotation))
    assert any(row.study_id == "CXR999" and "annotation.json" in row.item for row in load_iu_xray(root).left_out)
    annotation["val"].append(annotation["train"][0])
    (root / "annotation.json").write_text(json.dumps(annotation))
    with pytest.raises(InputError, match=r"annotation\.json: study CXR1 occurs twice"):
        load_iu_xray(root)
    (root / "annotation.json").write_text('{"train": [')
    with pytest.raises(InputError, match=r"annotation\.json is not R2Gen's annotation"):
        load_iu_xray(root)
    with pytest.raises(InputError, match="validation_share is 1"):
        load_iu_xray(root, validation_share=1)


def test_bad_xml_and_bad_images_are_listed(root: pathlib.Path) -> None:
    (root / "ecgen-radiology/2.xml").write_bytes("<eCitation>Ödem</eCitation>".encode("latin-1"))
    (root / "images/3_IM-0001-2001.dcm.jpg").write_bytes(b"")
    left = {row.study_id: row.reason for row in load_iu_xray(root, layout="openi").left_out}
    assert "not a readable Open-i report" in left["CXR2"] and "not a readable image" in left["CXR3"]
    (root / "ecgen-radiology/99.xml").write_text('<eCitation><uId id="CXR1"/></eCitation>')
    with pytest.raises(InputError, match=r"99\.xml holds the report CXR1 of ecgen-radiology/1\.xml again"):
        load_iu_xray(root, layout="openi")


def test_an_image_outside_root_and_two_files_of_one_image(root: pathlib.Path) -> None:
    save_noise(root / "images/1_IM-0001-2001.png")
    with pytest.raises(InputError, match="are one image by name"):
        load_iu_xray(root)
    annotation = json.loads((root / "annotation.json").read_text())
    annotation["train"][0]["image_path"] = ["../../secret.png"]
    (root / "annotation.json").write_text(json.dumps(annotation))
    (root / "images/1_IM-0001-2001.png").unlink()
    with pytest.raises(InputError, match="secret.png' outside"):
        load_iu_xray(root, layout="r2gen")


def test_placeholders_are_no_reports_in_any_layout(root: pathlib.Path) -> None:
    _edit_csv(root / "indiana_reports.csv", 0, findings="nan")
    _edit_csv(root / "indiana_reports.csv", 1, impression="NaN")
    _edit_csv(root / "indiana_reports.csv", 35, findings="None", impression="___")
    kaggle = load_iu_xray(root, sections=("findings", "impression"))
    reasons = {row.study_id: row.reason for row in kaggle.left_out}
    assert "findings section 'nan' stands for a missing report" in reasons["CXR1"]
    assert "'None' stands for" in reasons["CXR36"]
    by_id = dict(zip(kaggle.studies["study_id"], kaggle.studies["findings"], strict=True))
    assert by_id["CXR2"] == f"{FINDINGS_TEXT} Film 2." and not {"CXR1", "CXR36"} & by_id.keys()
    public = load_iu_xray_public(root)
    assert not {"None", "___", "nan"} & set(public.texts)
    assert any(row.study_id == "CXR36" and "nothing to learn" in row.reason for row in public.left_out)


@pytest.mark.parametrize("report", ["null", "NaN", '"N/A"', '"XXXX"', '""'])
def test_a_missing_report_in_json_is_left_out(root: pathlib.Path, report: str) -> None:
    path = root / "annotation.json"
    path.write_text(path.read_text().replace(json.dumps(f"{FINDINGS_TEXT} Film 1."), report))
    loaded = load_iu_xray(root, layout="r2gen")
    assert "CXR1" not in loaded.studies["study_id"]
    assert any(row.study_id == "CXR1" and "nothing to train on" in row.reason for row in loaded.left_out)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"split": "train"}', '"report": "again"}', r"annotation\.json: the key 'report' occurs twice in one object"),
        ('"CXR1_IM-0001/0.png"', '"CXR1_IM-0001\\\\0.png"', "names the image .* with backslashes; write paths with /"),
        ('["CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png"]', '"CXR1_IM-0001/0.png"', "image_path .*; expected a list"),
        (f'"{FINDINGS_TEXT} Film 1."', "[1]", r"has the report \[1\]; expected a text"),
    ],
)
def test_faults_of_the_annotation(root: pathlib.Path, old: str, new: str, sentence: str) -> None:
    path = root / "annotation.json"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=sentence):
        load_iu_xray(root, layout="r2gen")


def test_missing_image_paths_and_backslashes_of_kaggle(root: pathlib.Path) -> None:
    path = root / "annotation.json"
    path.write_text(path.read_text().replace('["CXR1_IM-0001/0.png", "CXR1_IM-0001/1.png"]', "null"))
    assert "CXR1" in load_iu_xray(root, layout="r2gen").studies["study_id"]  # by the projections file
    _edit_csv(root / "indiana_projections.csv", 0, filename="images\\1_IM-0001-2001.dcm.png")
    assert "CXR1" in load_iu_xray(root).studies["study_id"]


def test_two_parts_of_one_section_are_joined(root: pathlib.Path) -> None:
    path = root / "ecgen-radiology/1.xml"
    more = '<AbstractText Label="{}">{}</AbstractText>'
    parts = more.format("FINDINGS", "Second part.") + more.format("FINDINGS", " ") + more.format("IMPRESSION", "More.")
    path.write_text(path.read_text().replace("</Abstract>", f"{parts}</Abstract>"))
    first = load_iu_xray(root, layout="openi").studies[0]
    assert first["findings"] == f"{FINDINGS_TEXT} Film 1.\n\nSecond part."
    assert first["impression"] == f"{IMPRESSION_TEXT}\n\nMore."


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("indiana_projections.csv", {"filename": "1_IM-0001-2001.dcm.png"}, "row 2 has the image .* of row 1"),
        ("acquisition.csv.gz", {"stem": "1_IM-0001-2001"}, "row 2 has the image .* of an earlier row"),
    ],
)
def test_an_image_has_one_row(root: pathlib.Path, file: str, changes: dict[str, str], sentence: str) -> None:
    path = root / file
    with gzip.open(path, "rt") if file.endswith("gz") else path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    rows[1].update(changes)
    write_csv(path, rows)
    with pytest.raises(InputError, match=sentence):
        load_iu_xray(root)


@needs_real_data
def test_the_real_set(tmp_path: pathlib.Path) -> None:
    loaded = load_iu_xray(REAL, image_size=32)
    annotation = json.loads((REAL / "annotation.json").read_text())
    with (REAL / "indiana_reports.csv").open(newline="") as handle:
        uids = {f"CXR{row['uid']}" for row in csv.DictReader(handle)}
    named = set(loaded.studies["study_id"])
    assert named | {row.study_id for row in loaded.left_out} == uids
    without_image = {row.study_id for row in loaded.left_out if "no frontal image" in row.reason}
    test = {f"CXR{entry['id'].split('_')[0][3:]}" for entry in annotation["val"]}
    split_of = dict(zip(loaded.studies["study_id"], loaded.studies["split"], strict=True))
    assert {name for name, split in split_of.items() if split == "test"} == test - without_image
    assert set(loaded.studies["site"]) == set("ABCDE") and loaded.warnings == []
    reports = {f"CXR{entry['id'].split('_')[0][3:]}": entry["report"] for part in annotation.values() for entry in part}
    assert all(
        text == reports[name] for name, text in zip(loaded.studies["study_id"], loaded.studies["findings"], strict=True)
    )
    public = load_iu_xray_public(REAL, image_size=32)
    assert named.isdisjoint(public.studies["study_id"]) and len(public.texts) > len(public.studies)


@needs_real_data
def test_the_real_layouts_agree() -> None:
    facts = [_facts(load_iu_xray(REAL, image_size=16, layout=layout)) for layout in ("kaggle", "openi", "r2gen")]
    assert facts[0] == facts[1] == facts[2]
