"""Two public pairs of centres in the layouts in which they are handed round: polyps, and chest X-rays [ours].

They are read from the user's folder and through the same loader as anybody's table (`picture_folders`).
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

from fedmrg_core.data.pictures.picture import LoadedPictures
from fedmrg_core.data.pictures.picture_folders import Asked, Row, load_classes, load_masks
from fedmrg_core.data.tables import check_root, read_rows
from fedmrg_core.errors import InputError

# The last frame of each film of CVC-ClinicDB, of 612: frames of a film are near-equal, so a film stays in one split.
# [related: the set's description, 29 films; the borders show as jumps between neighbouring frames]
FILM_ENDS = (
    25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317, 342, 363, 383, 408, 428, 447, 466, 478, 503,
    528, 546, 571, 591, 612,
)  # fmt: skip
POLYP_SITES = ("Kvasir-SEG", "CVC-ClinicDB")
NIH, KERMANY = "nih_chestxray14_subset", "kermany_pediatric"
NORMAL = ("normal", "not normal")
_PATIENT = re.compile(r"person\d+|(NORMAL\d*-)?IM-\d+")  # how Kermany's files begin


def load_polyps(
    root: pathlib.Path, image_size: int, seed: int, threshold: int | None = None, colours: bool = True
) -> LoadedPictures:
    """Kvasir-SEG and CVC-ClinicDB, a folder each with images/ and masks/ of equal names.

    Args:
        root: holds both folders.
        image_size: pixels along an edge of the prepared pictures.
        seed: of the splits.
        threshold: grey levels above it are polyp; needed where masks are JPEG.
        colours: keep them.

    Raises:
        InputError: a folder or a picture's mask is missing, a mask has no picture, or as `load_picture_masks`.
    """
    root = check_root(root, f"the folder that holds {' and '.join(POLYP_SITES)}")
    rows = [row for site in POLYP_SITES for row in _pairs(root, site)]
    return load_masks(rows, root, ("polyp",), threshold, colours, image_size, seed)


def load_chest_normal(root: pathlib.Path, image_size: int, seed: int) -> LoadedPictures:
    """NIH ChestX-ray14 and Kermany's paediatric set as two centres; labels become normal or not.

    Each folder has images/ and labels.csv: "Finding Labels" and "Patient ID", or "label". Kermany's patients are told
    from the names of files. Both are split alike by patients; the split that Kermany's table names is not used [ours].

    Args:
        root: holds both folders.
        image_size: pixels along an edge of the prepared pictures.
        seed: of the splits.

    Raises:
        InputError: a table or a column is missing, or as `load_picture_classes`.
    """
    root = check_root(root, f"the folder that holds {NIH} and {KERMANY}")
    return load_classes([*_nih(root), *_kermany(root)], root, Asked(NORMAL, colours=False), image_size, seed)


def _pairs(root: pathlib.Path, site: str) -> Iterator[Row]:
    images, masks = ({path.stem: path for path in (root / site / part).glob("*.*")} for part in ("images", "masks"))
    if not images:
        raise InputError(f"{root / site / 'images'} holds no picture; expected the folders images and masks.")
    for name in sorted(masks.keys() - images.keys()):
        raise InputError(f"{masks[name]}: this mask has no picture in {root / site / 'images'}; add it or remove it.")
    for name in sorted(images.keys() - masks.keys()):
        raise InputError(f"{images[name]}: this picture has no mask in {root / site / 'masks'}; add it or remove it.")
    for name in sorted(images, key=lambda stem: (len(stem), stem)):
        paths = (str(table[name].relative_to(root)) for table in (images, masks))
        image, mask = paths
        yield Row(f"{site}-{name}", _film(site, name, images[name]), site, "", image, masks=(mask,), place=str(image))


def _film(site: str, name: str, path: pathlib.Path) -> str:
    if site != "CVC-ClinicDB":
        return f"{site}-{name}"
    if not name.isdecimal() or not 1 <= int(name) <= FILM_ENDS[-1]:
        raise InputError(f"{path}: its name is no frame of CVC-ClinicDB; expected a number from 1 to {FILM_ENDS[-1]}.")
    return f"{site}-film-{next(n for n, end in enumerate(FILM_ENDS, start=1) if int(name) <= end):02d}"


def _nih(root: pathlib.Path) -> Iterator[Row]:
    table = root / NIH / "labels.csv"
    columns = ("file", "Finding Labels", "Patient ID")
    for number, content in enumerate(read_rows(table, columns, "expected the set's table"), start=1):
        label = NORMAL[content["Finding Labels"] != "No Finding"]
        name, patient = content["file"], f"nih-{content['Patient ID']}"
        image = f"{NIH}/images/{name}"
        yield Row(f"nih-{name}", patient, "nih", "", image, labels=(label,), place=f"{table}: row {number}")


def _kermany(root: pathlib.Path) -> Iterator[Row]:
    table = root / KERMANY / "labels.csv"
    for number, content in enumerate(read_rows(table, ("file", "label"), "expected the set's table"), start=1):
        label = NORMAL[content["label"] != "Normal"]
        name = content["file"]
        image = f"{KERMANY}/images/{name}"
        named = _PATIENT.match(name)
        patient = f"kermany-{named[0] if named else name}"
        yield Row(f"kermany-{name}", patient, "kermany", "", image, labels=(label,), place=f"{table}: row {number}")
