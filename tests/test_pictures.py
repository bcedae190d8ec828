"""Pictures with classes and masks: the embedded ones, folders with a table, public layouts, and what is refused."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib

import numpy
import pytest
from PIL import Image

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.phantom import CENTRES, draw_study
from fedmrg_core.data.pictures.phantom_pictures import ASKED, TAUGHT_BEFORE, load_phantom_findings, load_phantom_masks
from fedmrg_core.data.pictures.picture import LoadedPictures, check_pictures
from fedmrg_core.data.pictures.picture_folders import load_picture_classes, load_picture_masks
from fedmrg_core.data.pictures.public_sets import FILM_ENDS, load_chest_normal, load_polyps
from fedmrg_core.data.pictures.splitting import split_groups
from fedmrg_core.data.sources import call_loader
from fedmrg_core.errors import InputError

REAL = pathlib.Path(
    os.environ.get("FEDMRG_PICTURES") or pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
)
NOISE = numpy.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=numpy.uint8)


def picture(path: pathlib.Path, width: int = 40, height: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numpy.resize(NOISE, (height, width, 3))).save(path)


def mask(path: pathlib.Path, width: int = 40, height: int = 40, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    region = numpy.zeros((height, width), numpy.uint8)
    region[height // 4 : height // 2, width // 4 : width // 2] = 255
    Image.fromarray(region).save(path, **options)


def folder(root: pathlib.Path, truth: str, rows: list[str]) -> pathlib.Path:
    """A folder whose table has these rows; every picture and mask that they name is there."""
    (root / "pictures.csv").write_text("\n".join([f"picture_id,group,site,split,image,{truth}", *rows]) + "\n")
    for row in rows:
        for name in row.split(",")[4:]:
            if name.startswith("images/"):
                picture(root / name)
            elif name.startswith("masks/"):
                mask(root / name)
    return root


def rows_of(site: str, truths: list[str], split: bool = True) -> list[str]:
    splits = ["train", "train", "validation", "test"] if split else [""] * len(truths)
    return [
        f"{site}-{n},{site}-g{n},{site},{part},images/{site}{n}.png,{truth.format(n=f'{site}{n}')}"
        for n, (part, truth) in enumerate(zip(splits, truths, strict=True))
    ]


# ---- the embedded pictures ----


def test_masks_come_of_the_drawing_of_the_picture():
    loaded = load_phantom_masks(1, 1, 1, 32, 0)
    drawn = next(each for each in loaded.pictures if (each.site, each.split) == ("centre-b", "train"))
    study = draw_study(0, "centre-b", 0, 32)
    assert numpy.array_equal(drawn.pixels[0], study.image)
    assert numpy.array_equal(drawn.truth, numpy.stack([study.lung_mask, study.heart_mask]))
    assert not (study.lung_mask & study.heart_mask).any() and study.lung_mask.any() and study.heart_mask.any()


def test_findings_are_what_was_drawn_and_centre_f_never_trains():
    loaded = load_phantom_findings(2, 1, 1, 32, 0)
    counts = collections.Counter((each.site, each.split) for each in loaded.pictures)
    assert counts[("centre-a", "train")] == 2 and counts[("centre-f", "test")] == 1
    assert counts[("centre-f", "train")] == 0 and {site for site, _ in counts} == set(CENTRES)
    drawn = next(each for each in loaded.pictures if each.picture_id == "centre-a-train-000001")
    study = draw_study(0, "centre-a", 1, 32)
    assert drawn.truth.tolist() == [study.drawn[FINDINGS.index(name)] for name in ASKED]
    assert not set(ASKED) & set(TAUGHT_BEFORE)


# ---- a folder with a table ----


def test_classes_are_read_in_the_order_that_is_given(tmp_path):
    root = folder(tmp_path, "label", [*rows_of("a", ["sick", "well", "sick", "well"])])
    loaded = load_picture_classes(root, 32, 0, classes=["well", "sick", "other"])
    assert loaded.subject.kind == "one" and loaded.subject.channels == 3
    assert [each.truth.tolist() for each in loaded.pictures] == [[0, 1, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert loaded.pictures[0].pixels.shape == (3, 32, 32)
    check_pictures(loaded, "x")


def test_several_labels_or_none_may_be_right(tmp_path):
    root = folder(tmp_path, "label", rows_of("a", ["b|c", "", "c", "b"]))
    loaded = load_picture_classes(root, 32, 0, several=True, colours=False)
    assert loaded.subject.names == ("b", "c") and loaded.pictures[0].pixels.shape == (1, 32, 32)
    assert [each.truth.tolist() for each in loaded.pictures] == [[1, 1], [0, 0], [0, 1], [1, 0]]


def test_masks_of_several_regions_are_padded_as_their_picture(tmp_path):
    root = folder(tmp_path, "mask_disc,mask_cup", rows_of("a", ["masks/{n}d.png,masks/{n}c.png"] * 4))
    for path in (*root.glob("images/*"), *root.glob("masks/*")):
        (mask if "masks" in str(path) else picture)(path, width=80)
    loaded = load_picture_masks(root, 40, 0, regions=["disc", "cup"])
    truth = loaded.pictures[0].truth
    assert truth.shape == (2, 40, 40) and loaded.subject.names == ("disc", "cup")
    assert set(numpy.unique(truth)) == {0, 1} and not truth[:, :10].any() and not truth[:, -10:].any()
    assert truth[0].sum() == 50  # a quarter by a quarter of 20 x 40: 5 x 10


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("n,g,a,train,,masks/m.png", r"row 5 has the mask 'masks/m.png' and no image"),
        ("n,g,a,train,images/n.png,", r"row 5 has an empty mask; give it or remove the row"),
        ("n,g,a,train,images/n.png,masks/gone.png", "row 5: the mask masks/gone.png is missing"),
        ("n,g,a,train,images/gone.png,masks/m.png", "row 5: the mask masks/m.png has no picture, images/gone.png is"),
        ("n,g,a,train,../n.png,masks/m.png", r"row 5 names the image '../n.png' outside"),
        ("n,,a,train,images/n.png,masks/m.png", "row 5 has an empty group"),
        ("n,g,a,exam,images/n.png,masks/m.png", "row 5 has split 'exam'; expected one of train, validation, test"),
        ("a-0,g,a,train,images/n.png,masks/m.png", "row 5: picture_id 'a-0' stands twice"),
        ("n,g,a,,images/n.png,masks/m.png", "row 5 has no split and others of site 'a' have; give all, or none"),
    ],
)
def test_a_table_of_masks_with_a_fault_is_refused(row, expected, tmp_path):
    root = folder(tmp_path, "mask", [*rows_of("a", ["masks/{n}.png"] * 4), row])
    for name in ("images/gone.png", "masks/gone.png"):
        (root / name).unlink(missing_ok=True)
    mask(root / "masks/m.png")
    with pytest.raises(InputError, match=expected):
        load_picture_masks(root, 32, 0)


def test_a_mask_of_another_size_than_its_picture_is_refused(tmp_path):
    root = folder(tmp_path, "mask", rows_of("a", ["masks/{n}.png"] * 4))
    mask(root / "masks/a1.png", width=41)
    with pytest.raises(InputError, match=r"a1.png: the mask is 41 x 40 pixels and its picture a1.png 40 x 40; give"):
        load_picture_masks(root, 32, 0)


def test_a_grey_mask_needs_a_threshold(tmp_path):
    root = folder(tmp_path, "mask", rows_of("a", ["masks/{n}.jpg"] * 4))
    for path in root.glob("masks/*"):
        mask(path, quality=30)
    with pytest.raises(InputError, match=r"a0.jpg: the mask has \d+ grey levels .*; give threshold, for example 127"):
        load_picture_masks(root, 32, 0)
    truth = load_picture_masks(root, 40, 0, threshold=127).pictures[0].truth[0]
    told = call_loader("picture_masks", root, 40, 0, threshold="127")  # as the workflow hands it on
    assert (told.pictures[0].truth[0] == truth).all()
    assert 80 <= truth.sum() <= 120
    with pytest.raises(InputError, match="threshold is 300"):
        load_picture_masks(root, 32, 0, threshold=300)


def test_a_class_outside_the_list_is_refused(tmp_path):
    root = folder(tmp_path, "label", rows_of("a", ["sick", "well", "ill", "well"]))
    with pytest.raises(InputError, match="row 3: the class 'ill' is none of sick, well"):
        load_picture_classes(root, 32, 0, classes=["sick", "well"])


def test_a_centre_with_one_class_is_refused_unless_it_is_held_out(tmp_path):
    rows = [*rows_of("a", ["sick", "well", "sick", "well"]), *rows_of("b", ["well"] * 4)]
    loaded = load_picture_classes(folder(tmp_path, "label", rows), 32, 0)
    with pytest.raises(InputError, match="folder: site 'b' has one class alone among its training pictures, 'well'"):
        check_pictures(loaded, "folder")
    check_pictures(loaded, "folder", unseen=["b"])
    with pytest.raises(InputError, match="every picture has the class 'well'"):
        load_picture_classes(folder(tmp_path, "label", rows_of("b", ["well"] * 4)), 32, 0)
    with pytest.raises(InputError, match="no picture has a class; nothing can be told apart"):
        load_picture_classes(folder(tmp_path, "label", rows_of("b", [""] * 4)), 32, 0, several=True)
    several = load_picture_classes(
        folder(tmp_path, "label", rows_of("b", [""] * 4)), 32, 0, several=True, classes=["sick", "well"]
    )
    with pytest.raises(InputError, match="one class alone among its training pictures, none at all; nothing can be"):
        check_pictures(several, "folder")


def test_a_picture_that_cannot_be_read_is_left_out_and_listed(tmp_path):
    root = folder(tmp_path, "label", [*rows_of("a", ["sick", "well", "sick", "well"]), "n,g,a,train,images/n.png,well"])
    (root / "images/n.png").write_bytes(b"no picture")
    loaded = load_picture_classes(root, 32, 0)
    assert len(loaded.pictures) == 4
    assert [(row.study_id, row.item.endswith("row 5")) for row in loaded.left_out] == [("n", True)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"split": "test"}, "its group 'a-g0' is in test and in train"),
        ({"picture_id": "a-0"}, "picture 'a-0' occurs twice"),
        ({"site": "home"}, "home"),
    ],
)
def test_pictures_that_break_the_schema_are_refused(change, expected, tmp_path):
    loaded = load_picture_classes(folder(tmp_path, "label", rows_of("a", ["x", "y", "x", "y"])), 32, 0)
    first = dataclasses.replace(loaded.pictures[0], **{"picture_id": "n", **change})
    changed = LoadedPictures([*loaded.pictures, first], loaded.subject)
    with pytest.raises(InputError, match=expected):
        check_pictures(changed, "folder")


def test_options_of_a_loader_are_checked(tmp_path):
    with pytest.raises(InputError, match="option 'threshold'"):
        call_loader("picture_masks", tmp_path, 32, 0, threshold="dark")


# ---- splits of whole groups, and the public layouts ----


def test_groups_are_dealt_whole_and_alike():
    sizes = {f"film-{n}": 1 + n % 5 for n in range(30)}
    found = split_groups(sizes, "a", 0)
    assert found == split_groups(dict(reversed(sizes.items())), "a", 0) and found.keys() == sizes.keys()
    counts = collections.Counter()
    for group, split in found.items():
        counts[split] += sizes[group]
    assert 0.18 < counts["test"] / sum(sizes.values()) < 0.27 and counts["validation"] and counts["train"]
    assert set(split_groups({"a": 9, "b": 1, "c": 1}, "a", 0).values()) == {"train", "validation", "test"}
    with pytest.raises(InputError, match="site 'a' has 2 groups of pictures, too few"):
        split_groups({"a": 5, "b": 5}, "a", 0)


def polyps(root: pathlib.Path) -> pathlib.Path:
    for site, names in (("Kvasir-SEG", "abcdef"), ("CVC-ClinicDB", ("1", "2", "25", "26", "60", "612"))):
        for name in names:
            picture(root / site / "images" / f"{name}.png")
            mask(root / site / "masks" / f"{name}.png")
    return root


def test_frames_of_one_film_share_a_split(tmp_path):
    loaded = load_polyps(polyps(tmp_path), 32, 0)
    films = {each.picture_id: each.group for each in loaded.pictures if each.site == "CVC-ClinicDB"}
    assert films["CVC-ClinicDB-1"] == films["CVC-ClinicDB-25"] != films["CVC-ClinicDB-26"]
    assert films["CVC-ClinicDB-612"] == "CVC-ClinicDB-film-29" and len(FILM_ENDS) == 29
    check_pictures(loaded, "polyps")


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ("Kvasir-SEG/images/c.png", "c.png: this mask has no picture in .*images"),
        ("Kvasir-SEG/masks/c.png", "c.png: this picture has no mask in .*masks"),
    ],
)
def test_a_polyp_without_its_other_half_is_refused(gone, expected, tmp_path):
    (polyps(tmp_path) / gone).unlink()
    with pytest.raises(InputError, match=expected):
        load_polyps(tmp_path, 32, 0)


@pytest.mark.skipif(not (REAL / "seg_polyp").is_dir(), reason="the public polyp sets are not here")
def test_real_polyps_are_read_with_a_threshold():
    with pytest.raises(InputError, match="give threshold"):
        load_polyps(REAL / "seg_polyp", 32, 0)
    loaded = load_polyps(REAL / "seg_polyp", 32, 0, threshold=127)
    check_pictures(loaded, "polyps")
    assert loaded.pictures[0].pixels.shape == (3, 32, 32) and not loaded.left_out


@pytest.mark.skipif(not (REAL / "cxr_classification").is_dir(), reason="the public chest X-ray sets are not here")
def test_real_chest_x_rays_are_normal_or_not():
    loaded = load_chest_normal(REAL / "cxr_classification", 32, 0)
    check_pictures(loaded, "chest_normal")
    assert {each.site for each in loaded.pictures} == {"nih", "kermany"} and not loaded.left_out
