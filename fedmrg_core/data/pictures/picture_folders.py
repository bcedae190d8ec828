"""A folder of pictures and one table, `pictures.csv`: with a class for each, or with masks [ours].

The layout is in data_cards/pictures.md, with what the public sets of fundus grading, dermoscopy, polyps and prostate
slices need to be laid out so.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy

from fedmrg_core.data.pictures.picture import LoadedPictures, Picture, Subject
from fedmrg_core.data.pictures.reading import read_mask, read_pixels
from fedmrg_core.data.pictures.splitting import split_groups
from fedmrg_core.data.study import SPLITS, LeftOut
from fedmrg_core.data.tables import check_root, path_fault, read_rows
from fedmrg_core.errors import InputError

TABLE = "pictures.csv"
COLUMNS = ("picture_id", "group", "site", "split", "image")
SEPARATOR = "|"  # between the labels of one picture, where several can be right


@dataclasses.dataclass(frozen=True)
class Row:
    """One picture as a table or a public layout names it; paths are below the root."""

    picture_id: str
    group: str
    site: str
    split: str  # "" in every row of a site: drawn group by group
    image: str
    labels: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()  # a path for each region
    place: str = ""  # file and row, for sentences


def load_picture_classes(
    root: pathlib.Path,
    image_size: int,
    seed: int,
    classes: Sequence[str] = (),
    several: bool = False,
    colours: bool = True,
) -> LoadedPictures:
    """Read `pictures.csv` with the columns picture_id, group, site, split, image, label.

    Args:
        root: the folder.
        image_size: pixels along an edge of the prepared pictures.
        seed: of the splits, where the column is empty.
        classes: every label that may stand there, in their order; empty: those that do, sorted.
        several: a picture may have several labels, joined by |, or none; each is told by itself.
        colours: keep them.

    Raises:
        InputError: something of the table is missing or wrong, or a label is none of the classes.
    """
    root, table = _root_of(root)
    rows = [
        _row(content, root, f"{table}: row {number}", labels=_labels(content["label"], several))
        for number, content in enumerate(read_rows(table, (*COLUMNS, "label"), _REMEDY), start=1)
    ]
    return load_classes(rows, root, Asked(tuple(classes), several, colours), image_size, seed)


def load_picture_masks(
    root: pathlib.Path,
    image_size: int,
    seed: int,
    threshold: int | None = None,
    regions: Sequence[str] = (),
    colours: bool = True,
) -> LoadedPictures:
    """Read `pictures.csv` with the columns picture_id, group, site, split, image, and mask or one mask_NAME a region.

    Args:
        root: the folder.
        image_size: pixels along an edge of the prepared pictures.
        seed: of the splits, where the column is empty.
        threshold: grey levels above it belong to a region; needed where masks have grey levels.
        regions: their names; empty: one region, whose column is `mask`.
        colours: keep them.

    Raises:
        InputError: something of the table is missing or wrong; a mask has another size than its picture, or grey
            levels without a threshold.
    """
    root, table = _root_of(root)
    columns = [f"mask_{name}" for name in regions] or ["mask"]
    rows = [
        _row(content, root, f"{table}: row {number}", masks=tuple(content[column] for column in columns))
        for number, content in enumerate(read_rows(table, (*COLUMNS, *columns), _REMEDY), start=1)
    ]
    return load_masks(rows, root, tuple(regions) or ("region",), threshold, colours, image_size, seed)


_REMEDY = f"write a table with the columns {', '.join(COLUMNS)}, and label or mask"


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which classes there are, and how pictures are read."""

    classes: tuple[str, ...] = ()
    several: bool = False
    colours: bool = True


def load_classes(rows: Sequence[Row], root: pathlib.Path, asked: Asked, image_size: int, seed: int) -> LoadedPictures:
    """Pictures with classes from rows of any layout; errors as `load_picture_classes`."""
    found = sorted({label for row in rows for label in row.labels})
    classes = asked.classes or tuple(found)
    for row in rows:
        for label in row.labels:
            if label not in classes:
                raise InputError(f"{row.place}: the class {label!r} is none of {', '.join(classes)}.")
    if len(classes) < 2 - asked.several:
        said = f"every picture has the class {classes[0]!r}" if classes else "no picture has a class"
        raise InputError(f"{root}: {said}; nothing can be told apart: give pictures of other classes.")

    def truth(row: Row) -> numpy.ndarray:
        return numpy.array([name in row.labels for name in classes], dtype=numpy.uint8)

    kind = "several" if asked.several else "one"
    return _loaded(rows, root, Subject(kind, classes, 3 if asked.colours else 1), truth, image_size, seed)


def load_masks(
    rows: Sequence[Row],
    root: pathlib.Path,
    regions: tuple[str, ...],
    threshold: int | None,
    colours: bool,
    image_size: int,
    seed: int,
) -> LoadedPictures:
    """Pictures with masks from rows of any layout; errors as `load_picture_masks`."""
    if threshold is not None and not 0 <= threshold < 255:
        raise InputError(f"threshold is {threshold}; expected a grey level from 0 to 254.")

    def truth(row: Row) -> numpy.ndarray:
        return numpy.stack([read_mask(root / mask, root / row.image, image_size, threshold) for mask in row.masks])

    return _loaded(rows, root, Subject("masks", regions, 3 if colours else 1), truth, image_size, seed)


def _root_of(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    root = check_root(root, f"the folder that holds {TABLE} and its pictures")
    return root, root / TABLE


def _labels(text: str, several: bool) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(SEPARATOR)))) if several else (text,)


def _row(content: Mapping[str, str], root: pathlib.Path, place: str, **truth: tuple[str, ...]) -> Row:
    for column in ("picture_id", "group", "site"):
        if not content[column]:
            raise InputError(f"{place} has an empty {column}; every picture needs one.")
    for column in truth:
        if "" in truth[column]:
            raise InputError(f"{place} has an empty {column.removesuffix('s')}; give it or remove the row.")
    paths = {"image": (content["image"],), "mask": truth.get("masks", ())}
    if not content["image"]:
        what = f"the mask {truth['masks'][0]!r}" if truth.get("masks") else "a label"
        raise InputError(f"{place} has {what} and no image; give the path of its picture or remove the row.")
    for what, names in paths.items():
        for name in names:
            if fault := path_fault(root, name):
                raise InputError(f"{place} names the {what} {name!r} {fault}.")
            if what == "mask" and not (root / name).is_file():
                raise InputError(f"{place}: the mask {name} is missing; add it or remove the row.")
            if what == "image" and paths["mask"] and not (root / name).is_file():
                raise InputError(f"{place}: the mask {paths['mask'][0]} has no picture, {name} is missing; add it.")
    return Row(**{column: content[column] for column in COLUMNS}, place=place, **truth)


def _loaded(
    rows: Sequence[Row],
    root: pathlib.Path,
    subject: Subject,
    truth: Callable[[Row], numpy.ndarray],
    image_size: int,
    seed: int,
) -> LoadedPictures:
    pictures, left_out, notes, splits = [], [], [], _splits(rows, seed)
    for row in rows:
        try:
            pixels = read_pixels(root / row.image, image_size, subject.channels == 3)
        except InputError as error:
            left_out.append(LeftOut(row.picture_id, row.place, str(error)))
            continue
        pictures.append(Picture(row.picture_id, row.group, row.site, splits[row.picture_id], pixels, truth(row)))
    if not pictures:
        raise InputError(f"{root}: not one picture can be used; the first: {left_out[0].reason}")
    drawn = sorted({row.site for row in rows if not row.split})
    if drawn:
        notes.append(f"Splits of {', '.join(drawn)} were drawn, whole groups at a time.")
    return LoadedPictures(pictures, subject, left_out, notes)


def _splits(rows: Sequence[Row], seed: int) -> dict[str, str]:
    """The split of every picture: its own, or drawn where a site has none."""
    found: dict[str, str] = {}
    for site in sorted({row.site for row in rows}):
        own = [row for row in rows if row.site == site]
        without = [row for row in own if not row.split]
        if without and len(without) < len(own):
            raise InputError(f"{without[0].place} has no split and others of site {site!r} have; give all, or none.")
        drawn = split_groups(_sizes(own), site, seed) if without else {}
        for row in own:
            if row.split and row.split not in SPLITS:
                raise InputError(f"{row.place} has split {row.split!r}; expected one of {', '.join(SPLITS)}.")
            if row.picture_id in found:
                raise InputError(f"{row.place}: picture_id {row.picture_id!r} stands twice; give each one of its own.")
            found[row.picture_id] = row.split or drawn[row.group]
    return found


def _sizes(rows: Iterable[Row]) -> dict[str, int]:
    return dict(collections.Counter(row.group for row in rows))
