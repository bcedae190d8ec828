"""A hospital's own folder: what is read, what stops everything, what is left out and listed."""

from __future__ import annotations

import pathlib

import numpy
import pytest
from data_fixtures import make_folder, save_noise, write_csv
from PIL import Image

from fedmrg_core.data.findings import FINDINGS, NEGATIVE, POSITIVE
from fedmrg_core.data.folder import load_folder
from fedmrg_core.data.study import STUDY_FEATURES
from fedmrg_core.errors import InputError


def test_every_row_becomes_a_study(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path)
    loaded = load_folder(tmp_path, image_size=32)
    assert loaded.left_out == [] and len(loaded.studies) == 6
    assert loaded.studies.features == STUDY_FEATURES
    first = loaded.studies[0]
    assert first["study_id"] == "s0" and first["image"].size == (32, 32) and first["image"].mode == "L"
    assert first["states"][FINDINGS.index("cardiomegaly")] == POSITIVE
    assert first["states"][FINDINGS.index("pleural effusion")] == NEGATIVE


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"study_id": "s1"}, r"studies\.csv: row 2 has the study_id 's1' of row 1"),
        ({"study_id": ""}, "row 1 has an empty study_id"),
        ({"site": ""}, "row 1 has an empty site"),
        ({"image": ""}, "row 1 has an empty image"),
        ({"split": "dev"}, "row 1 has split 'dev'; expected one of train, validation, test"),
        ({"patient_id": "p2"}, "patient 'p2' is in validation and in train"),
        ({"image": "../secret.png"}, r"row 1 names the image '\.\./secret\.png' outside"),
        ({"image": "/etc/secret.png"}, "outside"),
    ],
)
def test_faults_of_the_table_stop_everything(tmp_path: pathlib.Path, changes: dict[str, str], sentence: str) -> None:
    make_folder(tmp_path, **changes)
    with pytest.raises(InputError, match=sentence):
        load_folder(tmp_path)


def test_single_bad_studies_are_left_out_and_listed(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path, findings="  ")
    (tmp_path / "images/1.png").unlink()
    (tmp_path / "images/2.png").write_bytes((tmp_path / "images/2.png").read_bytes()[:300])
    save_noise(tmp_path / "images/3.png", size=(1, 1))
    Image.fromarray(numpy.arange(1024, dtype=numpy.uint16).reshape(32, 32)).save(tmp_path / "images/4.png")
    loaded = load_folder(tmp_path)
    assert list(loaded.studies["study_id"]) == ["s5"]
    reasons = {row.study_id: row.reason for row in loaded.left_out}
    assert "empty findings" in reasons["s0"] and "missing" in reasons["s1"] and "cannot be decoded" in reasons["s2"]
    assert "1 x 1" in reasons["s3"] and "rescale_16_bit=True" in reasons["s4"]
    assert str(tmp_path) not in str(loaded.left_out)
    assert len(load_folder(tmp_path, rescale_16_bit=True).studies) == 2


def test_a_symbolic_link_out_of_root_is_refused(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path / "data")
    save_noise(tmp_path / "outside.png")
    (tmp_path / "data/images/0.png").unlink()
    (tmp_path / "data/images/0.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(InputError, match="row 1 names the image .* outside"):
        load_folder(tmp_path / "data")


def test_missing_root_table_and_column(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="root .*nowhere is not a folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"studies\.csv is missing"):
        load_folder(tmp_path)
    rows = make_folder(tmp_path)
    write_csv(tmp_path / "studies.csv", [{k: v for k, v in row.items() if k != "findings"} for row in rows])
    with pytest.raises(InputError, match=r"studies\.csv: column 'findings' is missing"):
        load_folder(tmp_path)


def test_another_encoding_names_line_and_byte(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path, impression="Ödem")
    table = tmp_path / "studies.csv"
    table.write_bytes(table.read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(InputError, match=r"studies\.csv: line 2, byte \d+ \(0xd6\) is not UTF-8"):
        load_folder(tmp_path)


def test_rows_of_another_length_and_empty_tables(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path)
    table = tmp_path / "studies.csv"
    header = table.read_text().splitlines()[0]
    table.write_text(f"{header}\na,b,c\n")
    with pytest.raises(InputError, match="line 2 has 3 values, the header 8"):
        load_folder(tmp_path)
    table.write_text(f"{header}\n")
    with pytest.raises(InputError, match="has no rows"):
        load_folder(tmp_path)


def test_nothing_usable_is_an_error(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path, studies=1)
    (tmp_path / "images/0.png").unlink()
    with pytest.raises(InputError, match="not one usable study, 1 left out"):
        load_folder(tmp_path)


def test_what_is_no_report_is_left_out_with_its_reason(tmp_path: pathlib.Path) -> None:
    rows = make_folder(tmp_path)
    for row, text in zip(rows, ["nan", "N/A", "___", "\u200b\ufeff", "XXXX."], strict=False):
        row["findings"] = text
    rows[5]["impression"] = "NaN"
    write_csv(tmp_path / "studies.csv", rows)
    loaded = load_folder(tmp_path, image_size=32)
    assert list(loaded.studies["study_id"]) == ["s5"] and loaded.studies["impression"][:] == [""]
    reasons = {row.study_id: row.reason for row in loaded.left_out}
    assert reasons["s0"] == "the findings section 'nan' stands for a missing report; give the text of the report."
    assert "'N/A' stands for" in reasons["s1"] and "no word" in reasons["s2"] and "no word" in reasons["s4"]
    assert reasons["s3"].startswith("empty findings section")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patient_id": "nan"}, "row 1 has the patient_id 'nan', which stands for a missing one"),
        ({"study_id": "None"}, "row 1 has the study_id 'None', which stands for a missing one"),
        ({"site": "NaN"}, "row 1 has the site 'NaN', which stands for a missing one"),
        ({"site": "\u200b"}, "row 1 has an empty site"),
        ({"study_id": "s1\u200b"}, "row 2 has the study_id 's1' of row 1"),
        ({"site": "home"}, "has the site 'home', which tables use themselves"),
        ({"image": "images\\0.png"}, r"row 1 names the image 'images\\\\0\.png' with backslashes; write paths with /"),
    ],
)
def test_faults_of_names(tmp_path: pathlib.Path, changes: dict[str, str], sentence: str) -> None:
    make_folder(tmp_path, **changes)
    with pytest.raises(InputError, match=sentence):
        load_folder(tmp_path, image_size=32)


def test_one_site_in_several_spellings_is_one_hospital(tmp_path: pathlib.Path) -> None:
    rows = make_folder(tmp_path)
    names = ["Santé", "Sante\u0301", "\ufeffSanté", "Santé\u00a0", "NA", "None"]
    for row, name in zip(rows, names, strict=True):
        row["site"] = name
    write_csv(tmp_path / "studies.csv", rows)
    assert load_folder(tmp_path, image_size=32).studies["site"][:] == [*["Sant\u00e9"] * 4, "NA", "None"]


def test_two_columns_of_one_name_are_refused(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path)
    table = tmp_path / "studies.csv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header + ",findings\u200b", *(line + ",other" for line in lines)]), encoding="utf-8")
    with pytest.raises(InputError, match=r"studies\.csv has two columns 'findings'; keep one"):
        load_folder(tmp_path)
    table.write_text("\n".join([header + ",note,note", *(line + ",a,b" for line in lines)]))
    assert len(load_folder(tmp_path, image_size=32).studies) == 6  # columns that nobody reads


@pytest.mark.parametrize(("sign", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
@pytest.mark.parametrize("quote", ["", '"'])
def test_another_separator_is_named(tmp_path: pathlib.Path, sign: str, word: str, quote: str) -> None:
    rows = make_folder(tmp_path)
    lines = [rows[0].keys(), *(row.values() for row in rows)]
    text = "\n".join(sign.join(f"{quote}{value}{quote}" for value in line) for line in lines)
    (tmp_path / "studies.csv").write_text(text)
    with pytest.raises(InputError, match=rf"studies\.csv looks separated by {word}; save it again as CSV with commas"):
        load_folder(tmp_path)


def test_links_in_a_circle_and_a_nul_are_listed(tmp_path: pathlib.Path) -> None:
    rows = make_folder(tmp_path)
    for number, other in ((0, 1), (1, 0)):
        (tmp_path / f"images/{number}.png").unlink()
        (tmp_path / f"images/{number}.png").symlink_to(tmp_path / f"images/{other}.png")
    rows[2]["image"] = "images/2\0.png"
    write_csv(tmp_path / "studies.csv", rows)
    left_out = load_folder(tmp_path, image_size=32).left_out
    assert [row.study_id for row in left_out] == ["s0", "s1", "s2"]
    assert all("cannot be read" in row.reason for row in left_out) and str(tmp_path) not in str(left_out)
    assert left_out[2].item == "images/2\\0.png"


def test_reports_of_another_language_are_warned_of(tmp_path: pathlib.Path) -> None:
    make_folder(tmp_path, findings="Keine Infiltrate. Herz nicht vergrößert.")
    (sentence,) = load_folder(tmp_path, image_size=32).warnings
    assert sentence.startswith("studies.csv: 1 of 6 reports") and "(s0)" in sentence and str(tmp_path) not in sentence
    make_folder(tmp_path)
    assert load_folder(tmp_path, image_size=32).warnings == []
