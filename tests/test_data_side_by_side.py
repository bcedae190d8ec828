"""Preparing one data set never undoes another: not by its success, not by its failure, not by its code."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

import pytest
from data_fixtures import make_folder, make_iu

from fedmrg_core.data import prepared, prepared_folder
from fedmrg_core.data.prepared import load_prepared, prepare
from fedmrg_core.data.sources import DATA_SOURCES, corpus_name, data_family, data_source, read_name
from fedmrg_core.errors import InputError
from fedmrg_core.paths import prepared_folder as place_of
from fedmrg_core.runs.experiments import RunSettings

PHANTOM = {"train": 2, "validation": 1, "test": 1, "adaptation": 1}


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def base(tmp_path: pathlib.Path) -> pathlib.Path:
    """A workspace with the folders of two hospitals, IU X-ray, and the first hospital's data prepared."""
    make_folder(tmp_path / "ours")
    make_folder(tmp_path / "theirs", findings="The lungs are clear.")
    make_iu(tmp_path / "iu")
    prepare("folder", tmp_path / "ours", place_of(tmp_path, "smoke", "folder"), 32, 0)
    return tmp_path


def test_every_data_set_lies_in_a_folder_of_its_own(base: pathlib.Path) -> None:
    ours = place_of(base, "smoke", "folder")
    before = content(ours)
    for name, root, options in (
        ("folder-theirs", base / "theirs", {}),
        ("iu_xray", base / "iu", {}),
        ("phantom", None, PHANTOM),
        ("phantom-image0", None, PHANTOM),
    ):
        prepare(name, root, place_of(base, "smoke", name), 32, 0, **options)
    assert content(ours) == before
    folders = {path.name: load_prepared(path).fingerprint for path in ours.parent.iterdir()}
    assert len(folders) == len(set(folders.values())) == 5, "something lies between them, or two are one"
    assert RunSettings(data="folder-theirs").name == "smoke/folder-theirs/fedmrg/seed-0"
    assert RunSettings.from_name("smoke/folder-theirs/fedmrg/seed-0").data == "folder-theirs"
    assert read_name("folder-theirs") == ("folder", {}) and corpus_name("folder-theirs") == "folder"
    assert data_family("folder-theirs") == "folder-theirs" and data_family("phantom-image0") == "phantom"
    assert data_source("folder-theirs") is DATA_SOURCES["folder"]


@pytest.mark.parametrize("step", ["loader", "left_out", "move"])
def test_one_that_fails_half_way_leaves_the_others_and_nothing_of_itself(
    base: pathlib.Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    ours, theirs = (place_of(base, "smoke", name) for name in ("folder", "folder-theirs"))
    before = content(base)

    def fail(*arguments: object, **named: object) -> None:
        raise OSError("disk full")

    if step == "loader":
        (base / "theirs/studies.csv").write_text("study_id\n1\n")
        before = content(base)
    elif step == "left_out":
        monkeypatch.setattr(prepared.LoadedStudies, "write_left_out", fail)
    else:
        monkeypatch.setattr(prepared_folder.os, "replace", fail)
    with pytest.raises((OSError, InputError)):
        prepare("folder-theirs", base / "theirs", theirs, 32, 0)
    assert content(base) == before and [path.name for path in ours.parent.iterdir()] == ["folder"]
    with pytest.raises((OSError, InputError)):
        prepare("folder", base / "theirs", base / "new/smoke/folder", 32, 0)
    assert not (base / "new").exists()


def test_a_new_version_replaces_its_own_data_set_alone(base: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, phantom = (place_of(base, "smoke", name) for name in ("folder", "phantom"))
    prepare("phantom", None, phantom, 32, 0, **PHANTOM)
    before = content(ours), content(phantom)
    newer = dataclasses.replace(DATA_SOURCES["phantom"], version="next")
    monkeypatch.setitem(DATA_SOURCES, "phantom", newer)
    calls, loader = [], prepared.call_loader
    monkeypatch.setattr(prepared, "call_loader", lambda *a, **k: calls.append(a[0]) or loader(*a, **k))
    prepare("folder", base / "ours", ours, 32, 0)
    prepare("phantom", None, phantom, 32, 0, **PHANTOM)
    assert calls == ["phantom"] and content(ours) == before[0] and content(phantom) != before[1]
    assert load_prepared(phantom).summary["version"] == "next"


def test_code_and_row_of_another_data_set_make_nothing_again(
    base: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adding a data set is a module and a row of the table; no prepared folder of others is read anew for it."""
    ours, sources = place_of(base, "smoke", "folder"), prepared_folder.read_sources(prepared_folder.PACKAGE)
    monkeypatch.setattr(prepared, "call_loader", lambda *a, **k: pytest.fail("made again"))

    def add(files: dict[str, str]) -> None:
        prepared_folder._loader_code.cache_clear()
        monkeypatch.setattr(prepared_folder, "read_sources", lambda package: {**sources, **files})

    added = sources["data/sources.py"] + "\nDATA_SOURCES['mimic'] = None\n"
    add({"data/mimic.py": "x = 1\n", "data/sources.py": added, "data/iu_xray.py": "y = 2\n"})
    monkeypatch.setitem(DATA_SOURCES, "mimic", DATA_SOURCES["iu_xray"])
    assert prepare("folder", base / "ours", ours, 32, 0).fingerprint
    for own in ("data/folder.py", "data/images.py", "data/labeller/cues.py"):
        add({own: sources[own] + "\nz = 3\n"})
        with pytest.raises(pytest.fail.Exception, match="made again"):
            prepare("folder", base / "ours", ours, 32, 0)
    prepared_folder._loader_code.cache_clear()


def test_another_data_set_is_refused_in_the_place_of_one(base: pathlib.Path) -> None:
    ours = place_of(base, "smoke", "folder")
    before = content(ours)
    with pytest.raises(InputError, match="as it was read from another folder; name yours folder-NAME to keep both"):
        prepare("folder", base / "theirs", ours, 32, 0)
    with pytest.raises(InputError, match="holds the prepared data set 'folder', which 'phantom' does not replace"):
        prepare("phantom", None, ours, 32, 0, **PHANTOM)
    assert content(ours) == before and str(base) not in (ours / "summary.json").read_text()
    assert prepare("folder", base / "ours" / ".", ours, 48, 0).summary["image_size"] == 48  # itself it may replace


def test_folders_of_earlier_versions_are_replaced_and_read(base: pathlib.Path) -> None:
    """They say images_publishable and no root; what may be published is the table's word alone."""
    ours = place_of(base, "smoke", "folder")
    summary = json.loads((ours / "summary.json").read_text())
    older = {name: value for name, value in summary.items() if name != "root"} | {"images_publishable": True, "key": ""}
    (ours / "summary.json").write_text(json.dumps(older))
    assert load_prepared(ours).fingerprint == summary["fingerprint"] and data_source("folder").publish == "aggregates"
    made = prepare("folder", base / "ours", ours, 32, 0)
    assert made.summary == summary


def test_what_a_kill_moved_away_is_put_back(base: pathlib.Path) -> None:
    """Killed between the two moves: the older folder lies in the scratch folder beside its place."""
    ours = place_of(base, "smoke", "folder")
    before = content(ours)
    scratch = ours.parent / ".folder-abc"
    (scratch / "fresh/studies").mkdir(parents=True)
    os.replace(ours, scratch / "old")
    (base / "ours/studies.csv").write_text("study_id\n1\n")
    with pytest.raises(InputError):
        prepare("folder", base / "ours", ours, 32, 0)
    assert content(ours) == before
