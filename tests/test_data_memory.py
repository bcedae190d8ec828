"""Images go to disk one by one and stay there: a large set takes no more memory than a small one."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tracemalloc
from collections.abc import Iterator

import datasets
import numpy
import pyarrow
import pytest
import torch
from data_fixtures import make_folder, study_rows
from PIL import Image

from fedmrg_core.data import row_files, rows
from fedmrg_core.data.prepared import load_prepared, prepare
from fedmrg_core.data.prepared_folder import scratch_beside, write_prepared
from fedmrg_core.data.row_files import column_of, dataset_of_rows, rows_written_below, values_of
from fedmrg_core.data.rows import StudyDescription, load_rows
from fedmrg_core.data.study import STUDY_FEATURES, LoadedStudies
from fedmrg_core.data.tensors import ClientTensors
from fedmrg_core.errors import InputError

STUDIES, IMAGE = 1000, 32_768  # 31 MiB of images
SITES, SPLITS = ("a", "b", "c", "d", "out"), ("train", "train", "validation", "test")
POOLS: list[pyarrow.MemoryPool] = []  # they outlive the tables that were made in them


class Peak:
    """Bytes that Python, NumPy and Arrow held at most; what is only mapped from a file is not among them."""

    def __init__(self) -> None:
        self.pool = pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())
        POOLS.append(self.pool)

    @property
    def bytes(self) -> int:
        return tracemalloc.get_traced_memory()[1] + (self.pool.max_memory() or 0)


@contextlib.contextmanager
def measured() -> Iterator[Peak]:
    peak, before = Peak(), pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(peak.pool)
    tracemalloc.start()
    try:
        yield peak
    finally:
        tracemalloc.stop()
        pyarrow.set_memory_pool(before)


def descriptions() -> list[StudyDescription]:
    """Two studies a patient; of every site some in each split."""
    described = []
    for number in range(STUDIES):
        patient = number // 2
        site, split = SITES[patient % 5], SPLITS[patient // 5 % 4]
        names = (f"s{number:05}", f"p{patient:05}", site, split, "frontal", f"{number}.png")
        described.append(StudyDescription(*names, "Lungs are clear.", ""))
    return described


def test_a_large_set_is_read_written_opened_and_dealt_without_its_images(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are no images: whoever decoded one would fail."""
    monkeypatch.setattr(rows, "read_grey_image", lambda *given, **named: None)
    monkeypatch.setattr(rows, "png_bytes", lambda picture: os.urandom(IMAGE))
    monkeypatch.setattr(rows, "label_report", lambda text: [0] * 14)
    monkeypatch.setattr(row_files, "SMALL", 2**20)
    monkeypatch.setattr(datasets.config, "DEFAULT_MAX_BATCH_SIZE", 50)  # rows that `datasets` saves at a time
    described, folder = descriptions(), tmp_path / "prepared"
    with measured() as peak, scratch_beside(folder) as scratch, rows_written_below(scratch):
        loaded = load_rows(described, [], tmp_path, "big", 32)
        assert [path.name for path in scratch.iterdir()][0].startswith("rows-")
        write_prepared(folder, loaded, {"unseen_sites": ["out"]}, scratch)
        assert peak.bytes < STUDIES * IMAGE // 3
    assert [path.name for path in tmp_path.iterdir()] == ["prepared"]
    on_disk = sum(path.stat().st_size for path in folder.rglob("*.arrow"))
    assert on_disk > STUDIES * IMAGE
    with measured() as peak:
        prepared = load_prepared(folder)
        dealt = [prepared.deal(name, 4, 0) for name in ("site", "random", "dirichlet")]
        assert all(len(partition.clients) == 4 and len(partition.unseen["out"]) for partition in dealt)
        assert peak.bytes < on_disk // 15
    assert sorted(path.suffix for path in (folder / "studies").iterdir()) == [".arrow", ".json", ".json"], "a cache"


def test_rows_in_a_file_are_the_rows_in_memory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = study_rows([(f"p{n}", "north", "train") for n in range(7)])
    plain = [{**row, "image": {"bytes": bytes([n]) * 50, "path": None}} for n, row in enumerate(given)]
    in_memory = dataset_of_rows(iter(plain), STUDY_FEATURES)
    monkeypatch.setattr(row_files, "SMALL", 120)
    with rows_written_below(tmp_path):
        written, again = (dataset_of_rows(iter(plain), STUDY_FEATURES) for _ in range(2))
    assert len(list(tmp_path.iterdir())) == 2 and written._fingerprint == again._fingerprint
    assert written.data.table.equals(in_memory.data.table) and written.features == in_memory.features
    part = written.select([1, 3])
    del written, again
    assert not list(tmp_path.iterdir()) and column_of(part, "patient_id") == ["p1", "p3"]
    assert list(values_of(part, "site", "view")) == [("north", "frontal")] * 2

    def fail() -> Iterator[dict]:
        yield from plain
        raise InputError("row 8 is broken")

    with rows_written_below(tmp_path), pytest.raises(InputError, match="row 8"):
        dataset_of_rows(fail(), STUDY_FEATURES)
    assert not list(tmp_path.iterdir())
    assert len(dataset_of_rows([], STUDY_FEATURES)) == 0


def test_a_set_made_through_a_file_has_the_same_fingerprint(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "data")
    small = prepare("folder", tmp_path / "data", tmp_path / "small", 32, 0)
    monkeypatch.setattr(row_files, "SMALL", 100)
    large = prepare("folder", tmp_path / "data", tmp_path / "large", 32, 0)
    assert large.fingerprint == small.fingerprint
    files = [folder / "studies/data-00000-of-00001.arrow" for folder in (tmp_path / "small", tmp_path / "large")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "large", "small"]


def test_images_that_a_loader_left_as_paths_are_written_one_by_one(tmp_path: pathlib.Path) -> None:
    studies = study_rows([("p", "north", "train"), ("q", "north", "test")])
    pixels = [numpy.asarray(image) for image in studies["image"]]
    for number, values in enumerate(pixels):
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    names = [str(tmp_path / f"{number}.png") for number in range(2)]
    paths = studies.remove_columns("image").add_column("image", names).cast_column("image", STUDY_FEATURES["image"])
    with scratch_beside(tmp_path / "out/set") as scratch:
        write_prepared(tmp_path / "out/set", LoadedStudies(paths, []), {}, scratch)
    for path in names:
        pathlib.Path(path).unlink()
    found = load_prepared(tmp_path / "out/set").studies["image"]
    assert [numpy.asarray(image).tolist() for image in found] == [values.tolist() for values in pixels]


def test_a_client_decodes_no_image_before_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    studies, calls = study_rows([(f"p{n}", "north", "train") for n in range(6)]), []
    decode = ClientTensors.__init__.__globals__["_decode"]
    monkeypatch.setitem(ClientTensors.__init__.__globals__, "_decode", lambda *g: calls.append(g[1]) or decode(*g))
    kept, read = ClientTensors(studies), ClientTensors(studies, memory_budget=6 * 256 - 1)
    assert not calls and len(kept.texts) == len(kept.states) == 6
    assert torch.equal(kept.images([4, 0]), read.images([4, 0])) and range(6) in calls
    calls.clear()
    kept.images([5])
    assert not calls and read.images([5]).shape == (1, 1, 16, 16) and calls == [[5]]
