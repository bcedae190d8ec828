"""A hospital's own folder: what is read, what stops everything, what is left out and listed."""

from __future__ import annotations

import pathlib

import numpy
import pytest
from data_fixtures import make_folder, save_noise, write_csv
from PIL import Image

from fedmrg_core.data.folder import load_folder
from fedmrg_core.data.study import STUDY_FEATURES
from fedmrg_core.errors import InputError
from fedmrg_core.findings import FINDINGS, NEGATIVE, POSITIVE


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
