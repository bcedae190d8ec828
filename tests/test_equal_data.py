"""Rounded pixels and a few states count as the same data; another noise or style, an exchanged study do not."""

from __future__ import annotations

import dataclasses
import io

import datasets
import numpy
import pytest
from PIL import Image

from fedmrg_core.data.prepared import Prepared, fingerprint, prepare
from fedmrg_core.data.sources import data_source
from fedmrg_core.errors import InputError
from fedmrg_core.evaluation import equal_data
from fedmrg_core.evaluation.equal_data import FILE, current_fingerprint, difference, read_equal_data
from fedmrg_core.evaluation.stored_runs import data_of, read_manifest
from fedmrg_core.runs.task_registry import REPORTS

COUNTS = {"train": 3, "validation": 1, "test": 1, "adaptation": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Prepared:
    return prepare("phantom", None, tmp_path_factory.mktemp("data") / "prepared", 128, 0, **COUNTS)


def with_images(made: Prepared, change) -> Prepared:
    """The same studies, every image as `change` makes it of (number, pixels)."""

    def changed(row, number):
        buffer = io.BytesIO()
        Image.fromarray(change(number, numpy.array(row["image"]))).save(buffer, format="PNG")
        return {"image": {"bytes": buffer.getvalue(), "path": None}}

    studies = made.studies.map(changed, with_indices=True, features=made.studies.features)
    return dataclasses.replace(made, studies=studies, summary={**made.summary, "fingerprint": fingerprint(studies)})


def brightened(pixels: int):
    def change(number, image):
        if number == 0:
            image.flat[:pixels] += (image.flat[:pixels] < 255).astype(numpy.uint8)
        return image

    return change


def test_a_grey_level_of_rounding_is_the_same_data(made, tmp_path):
    rounded = with_images(made, brightened(5))
    assert rounded.fingerprint != made.fingerprint
    table = tmp_path / "equal.csv"
    found = equal_data.record_equal_data(rounded, made, table)
    assert found.is_rounding and found.different_pixels == 5 and found.jumping_pixels == 0
    (row,) = read_equal_data(table).to_dict("records")
    assert (row["fingerprint"], row["same_as"], row["studies"]) == (
        rounded.fingerprint,
        made.fingerprint,
        len(made.studies),
    )
    equal_data.record_equal_data(rounded, made, table)
    assert len(read_equal_data(table)) == 1


def test_another_noise_is_other_data(made, tmp_path):
    generator = numpy.random.default_rng(0)
    noisy = with_images(
        made, lambda _, image: numpy.clip(image + generator.integers(-1, 2, image.shape), 0, 255).astype(numpy.uint8)
    )
    found = difference(noisy, made)
    assert not found.is_rounding and found.jumping_pixels == 0  # one grey level, but nearly everywhere
    with pytest.raises(InputError, match="pixels differ, 0 by more than one grey level.*rounding explains"):
        equal_data.record_equal_data(noisy, made, tmp_path / "equal.csv")
    assert not (tmp_path / "equal.csv").exists()


def test_another_style_is_other_data(made, tmp_path):
    plain = prepare("phantom-image0", None, tmp_path / "plain", 128, 0, **COUNTS)
    with pytest.raises(InputError, match="differs in view: other data"):
        difference(plain, made)
    darker = with_images(made, lambda _, image: (255 * (image / 255) ** 1.02).round().astype(numpy.uint8))
    assert not difference(darker, made).is_rounding


def test_one_study_among_many_is_found():
    """However large the set, the exchanged study itself is looked at."""
    many = equal_data.Difference(1_000_000, 16_384_000_000, 16_000, 15_000, 0.97)
    assert not many.is_rounding and many.different_pixels / many.pixels < equal_data.LARGEST_SHARE


def test_one_study_exchanged_is_other_data(made):
    first, second = made.studies[0]["image"], made.studies[1]["image"]
    exchanged = with_images(made, lambda number, image: numpy.array({0: second, 1: first}.get(number, image)))
    assert not difference(exchanged, made).is_rounding
    order = [1, 0, *range(2, len(made.studies))]
    moved = dataclasses.replace(made, studies=made.studies.select(order))
    with pytest.raises(InputError, match="differs in study_id"):
        difference(moved, made)
    with pytest.raises(InputError, match="hold .* studies: other data"):
        difference(dataclasses.replace(made, studies=made.studies.select(range(3))), made)


def test_another_wording_is_other_data(made):
    texts = ["The heart is large.", *made.studies["findings"][1:]]
    rows = made.studies.remove_columns("findings").add_column("findings", texts, feature=datasets.Value("string"))
    with pytest.raises(InputError, match="differs in findings"):
        difference(dataclasses.replace(made, studies=rows), made)


def relabelled(made: Prepared, rows: set[int]) -> Prepared:
    """The same studies; in some, the state of the first finding is another one."""
    states = [[(s[0] + 1) % 4, *s[1:]] if row in rows else s for row, s in enumerate(made.studies["states"])]
    feature = made.studies.features["states"]
    studies = made.studies.remove_columns("states").add_column("states", states, feature=feature)
    return dataclasses.replace(made, studies=studies, summary={**made.summary, "fingerprint": fingerprint(studies)})


def test_another_labeller_is_the_same_data_while_few_states_change(made, tmp_path):
    splits = made.studies["split"]
    training, tested = splits.index("train"), splits.index("test")
    found = difference(relabelled(made, {training, tested}), made)
    assert (found.relabelled, found.relabelled_test, found.test_studies) == (2, 1, splits.count("test"))
    assert found.is_rounding and not found.has_few_new_labels  # one of six test studies is not few
    with pytest.raises(InputError, match="2 of .* studies have another state, 1 of .* test studies among them"):
        equal_data.record_equal_data(relabelled(made, {training, tested}), made, tmp_path / "equal.csv")
    few = equal_data.Difference(2357, 38_617_088, 0, 0, 0.0, relabelled=28, test_studies=294, relabelled_test=2)
    assert few.counts_as_same
    for change in ({"relabelled": 48}, {"relabelled_test": 3}):
        assert not dataclasses.replace(few, **change).counts_as_same


def test_a_table_that_mixes_labels_says_so():
    older = read_equal_data().query("relabelled_test > 0").iloc[0]
    mixed = [older["fingerprint"], older["same_as"], older["same_as"]]
    note = equal_data.label_note(mixed)
    assert note.startswith(f"1 of 3 runs on {older['data']} were labelled by an earlier labeller")
    assert f"{older['relabelled_test']} of {older['test_studies']} test studies" in note
    assert equal_data.label_note([older["fingerprint"]] * 2) is None
    assert equal_data.label_note([older["same_as"], "unknown"]) is None


def test_every_reference_has_data_of_today():
    """Some references were drawn or labelled by an earlier version; the table says which data of today these are."""
    table = read_equal_data()
    assert not table["fingerprint"].duplicated().any() and len(table) >= 8
    for row in table[list(equal_data._COUNTS)].itertuples(index=False):
        assert equal_data.Difference(*row).counts_as_same
    known = set(table["fingerprint"]) | set(table["same_as"])
    for path in FILE.parent.glob("*/phantom*/*/seed-*"):
        if data_source(path.parent.parent.name.partition(",")[0]).task != REPORTS:
            continue  # its pictures were always drawn as they are today
        assert read_manifest(path)["data_fingerprint"] in known, path
    assert current_fingerprint("unknown") == "unknown"


def test_references_of_one_data_set_may_stand_in_one_table():
    """Notebook 10 refuses runs of different data, so a new reference must have the older ones' data of today."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in FILE.parent.glob("*/*/*/seed-*/manifest.json"):
        profile, setting = path.parts[-5], path.parts[-4]
        found.setdefault((profile, setting.partition(",")[0]), set()).add(data_of(path.parent))
    assert len(found) > 10
    assert {key: fingerprints for key, fingerprints in found.items() if len(fingerprints) > 1} == {}
