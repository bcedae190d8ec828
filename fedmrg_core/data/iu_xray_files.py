"""The public layouts of IU X-ray on disk: reports, images with their views, R2Gen's split, acquisition sites.

Layouts [related]: the Kaggle CSV pair, the Open-i XML (a folder or ``NLMCXR_reports.tgz``), R2Gen's
``annotation.json``. An image is known by its key, e.g. ``1_IM-0001-3001``. Kaggle calls its file
``1_IM-0001-3001.dcm.png``, Open-i ``CXR1_1_IM-0001-3001.png`` (of other studies ``CXR10_IM-0002-1001.png``), and copies
may be stored as JPEG, so files are matched by key and not by name.
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import json
import pathlib
import re
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from typing import Any

from fedmrg_core.data.study import LeftOut
from fedmrg_core.data.tables import decode_text, path_fault, read_bytes, read_json, read_rows
from fedmrg_core.errors import InputError

REPORTS, PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
XML_FOLDER, XML_ARCHIVE = "ecgen-radiology", "NLMCXR_reports.tgz"
ANNOTATION, ACQUISITION, IMAGES = "annotation.json", "acquisition.csv.gz", "images"
VIEWS = ("frontal", "lateral")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
FULL_RELEASE = "expected the IU X-ray files, see data_cards/iu_xray.md"


@dataclasses.dataclass(frozen=True)
class Report:
    """Two sections of one report, and the row or file it stands in."""

    findings: str
    impression: str
    item: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image of a study: its name in the tables, its view, and its file below root (None: not there)."""

    name: str
    view: str  # "frontal", "lateral" or "unknown"
    path: str | None


@dataclasses.dataclass
class Collection:
    """What a layout holds: reports and images by uid (the number of the study), and what could not be read."""

    reports: dict[str, Report]
    pictures: dict[str, list[Picture]]
    left_out: list[LeftOut] = dataclasses.field(default_factory=list)


def study_name(uid: str) -> str:
    """``CXR2384`` for uid ``2384``: how Open-i names a study."""
    return f"CXR{uid}"


def image_key(name: str) -> str:
    """``1_IM-0001-3001`` from any of the names an image goes by, with a folder before it or without."""
    stem = pathlib.PureWindowsPath(name).name  # takes both kinds of slashes
    stem = re.sub(r"\.(png|jpe?g|dcm)$", "", stem, flags=re.IGNORECASE)
    stem = re.sub(r"\.dcm$", "", stem, flags=re.IGNORECASE)
    return re.sub(r"^CXR(\d+)_(?:\1_)?", r"\1_", stem)


def read_kaggle(root: pathlib.Path) -> Collection:
    """Reports and images as the Kaggle CSV pair tells them."""
    reports: dict[str, Report] = {}
    for number, row in enumerate(read_rows(root / REPORTS, ("uid", "findings", "impression"), FULL_RELEASE), start=1):
        item = f"{REPORTS}, row {number}"
        if not row["uid"].isdecimal():
            raise InputError(
                f"{root / REPORTS}: row {number} has the uid {row['uid']!r}; expected a number such as 2384."
            )
        if row["uid"] in reports:
            raise InputError(f"{root / REPORTS}: row {number} has the uid {row['uid']!r} again; keep one row a study.")
        reports[row["uid"]] = Report(row["findings"], row["impression"], item)
    return Collection(reports, _projected_pictures(root))


def read_openi(root: pathlib.Path) -> Collection:
    """Reports and image names from the Open-i XML, views from the projections file."""
    views = {image_key(row["filename"]): row["projection"].lower() for row in _projections(root)}
    files = _image_files(root)
    found = Collection({}, {})
    for name, content in _xml_files(root):
        try:
            tree = ElementTree.fromstring(content)
            uid = re.fullmatch(r"CXR(\d+)", tree.find("uId").attrib["id"])[1]  # type: ignore[union-attr, index]
        except (ElementTree.ParseError, AttributeError, KeyError, TypeError) as error:
            number = pathlib.PurePosixPath(name).stem
            reason = f"not a readable Open-i report ({error}); copy the file again as UTF-8."
            found.left_out.append(LeftOut(study_name(number), name, reason))
            continue
        if uid in found.reports:
            raise InputError(
                f"{name} holds the report CXR{uid} of {found.reports[uid].item} again; keep one of the two."
            )
        found.reports[uid] = Report(_section(tree, "FINDINGS"), _section(tree, "IMPRESSION"), name)
        keys = [image_key(image.get("id", "")) for image in tree.iter("parentImage")]
        found.pictures[uid] = [Picture(key, views.get(key, "unknown"), files.get(key)) for key in keys]
    return found


def _section(tree: ElementTree.Element, label: str) -> str:
    """All parts of a report with this label, with an empty line between them."""
    parts = [part for part in tree.iter("AbstractText") if part.get("Label", "").strip().upper() == label]
    return "\n\n".join(filter(None, ("".join(part.itertext()).strip() for part in parts)))


def read_r2gen(root: pathlib.Path) -> Collection:
    """Reports and images of R2Gen's ``annotation.json``; it holds the findings section only.

    R2Gen's own folders (``images/CXR2384_IM-0942/0.png``) do not say a view: the first image counts as frontal and
    the second as lateral, which is how R2Gen pairs them [related, an assumption]. Where these folders are missing,
    images and views come from the projections file.
    """
    found = Collection({}, {})
    projected = _projected_pictures(root) if (root / PROJECTIONS).is_file() else {}
    for uid, (_, entry) in read_annotation(root).items():
        place = f"{ANNOTATION}, {entry['id']}"
        found.reports[uid] = Report(_text(entry.get("report"), place), "", place)
        names = [f"{IMAGES}/{name}" for name in _names(entry.get("image_path"), place)]
        for name in names:
            fault = path_fault(root, name)
            if fault:
                raise InputError(f"{root / ANNOTATION}: {entry['id']} names the image {name!r} {fault}.")
        own = [
            Picture(name, VIEWS[order] if order < len(VIEWS) else "unknown", name)
            for order, name in enumerate(names)
            if (root / name).is_file()
        ]
        found.pictures[uid] = own or projected.get(uid, [])
    return found


def _text(value: Any, place: str) -> str:
    """A report in JSON; null and NaN, which programs write for a missing one, are an empty one."""
    if value is None or value != value:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place} has the report {value!r}; expected a text.")
    return value.strip()


def _names(value: Any, place: str) -> list[str]:
    """File names in JSON; null is none."""
    if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise InputError(f"{place} has the image_path {value!r}; expected a list of file names.")
    return value or []


def read_annotation(root: pathlib.Path) -> dict[str, tuple[str, dict]]:
    """R2Gen's split: uid -> (part, entry), part one of train, val, test.

    Raises:
        InputError: the file is missing, not JSON of the expected form, or names a study or a key twice.
    """
    path = root / ANNOTATION
    text = decode_text(
        read_bytes(path, "it holds R2Gen's split; copy it there or give split_source='random'"), str(path)
    )
    try:
        parts = read_json(text, str(path))
        entries = [(part, entry, str(entry["id"])) for part in parts for entry in parts[part]]
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"{path} is not R2Gen's annotation ({error}); expected lists of studies by part.") from None
    split: dict[str, tuple[str, dict]] = {}
    for part, entry, name in entries:
        match = re.match(r"CXR(\d+)_", name)
        if match is None:
            raise InputError(f"{path}: id {name!r} does not name a study; expected the form CXR2384_IM-0942.")
        if match[1] in split:
            raise InputError(f"{path}: study CXR{match[1]} occurs twice, last as {name!r}; keep one of the two.")
        split[match[1]] = (part, entry)
    return split


def read_sites(root: pathlib.Path, pictures: dict[str, list[Picture]]) -> dict[str, str]:
    """Site A to E by uid, from the DICOM acquisition fields of a study's images [ours].

    The majority of a study's images decides; a tie goes to the group of its first frontal image by name, because that
    is the image in use, and where that is not among the tied groups to the first letter.

    Raises:
        InputError: the file or a column is missing, or a pixel spacing is not a list of numbers.
    """
    remedy = "it tells the sites; put it there or give sites='none' for one single site"
    columns = ("stem", "uid", "Private Creator", "Imager Pixel Spacing")
    groups: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for number, row in enumerate(read_rows(root / ACQUISITION, columns, remedy), start=1):
        place, key = f"{root / ACQUISITION}: row {number}", image_key(row["stem"])
        if key in groups[row["uid"]]:
            raise InputError(f"{place} has the image {row['stem']!r} of an earlier row; keep one row an image.")
        groups[row["uid"]][key] = _group(row["Private Creator"], row["Imager Pixel Spacing"], place)
    sites = {}
    for uid, by_key in groups.items():
        counts = collections.Counter(by_key.values())
        tied = sorted(group for group, count in counts.items() if count == max(counts.values()))
        frontal = sorted(image_key(picture.name) for picture in pictures.get(uid, []) if picture.view == "frontal")
        choices = [by_key[key] for key in frontal if by_key.get(key) in tied]
        sites[uid] = choices[0] if choices else tied[0]
    return sites


def _group(creator: str, spacing: str, place: str) -> str:
    """The five acquisition groups [ours]: MITRA with 0.15 mm pixels, other MITRA, SIEMENS, Agfa, the rest."""
    if creator.startswith("MITRA"):
        try:
            values = [float(value) for value in ast.literal_eval(spacing)] if spacing else []
        except (ValueError, TypeError, SyntaxError):
            raise InputError(f"{place} has the Imager Pixel Spacing {spacing!r}; expected ['0.15', '0.15'].") from None
        return "A" if values and all(abs(value - 0.15) < 1e-6 for value in values) else "B"
    if creator.startswith("SIEMENS"):
        return "C"
    return "D" if creator.startswith("Agfa") else "E"


def _projections(root: pathlib.Path) -> list[dict[str, str]]:
    remedy = "it tells frontal from lateral views; copy it there"
    rows = read_rows(root / PROJECTIONS, ("uid", "filename", "projection"), remedy)
    row_of: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        place = f"{root / PROJECTIONS}: row {number}"
        if row["projection"].lower() not in VIEWS:
            raise InputError(f"{place} has projection {row['projection']!r}; expected Frontal or Lateral.")
        first = row_of.setdefault(image_key(row["filename"]), number)
        if first != number:
            raise InputError(f"{place} has the image {row['filename']!r} of row {first}; keep one row an image.")
    return rows


def _projected_pictures(root: pathlib.Path) -> dict[str, list[Picture]]:
    files = _image_files(root)
    pictures: dict[str, list[Picture]] = collections.defaultdict(list)
    for row in _projections(root):
        path = files.get(image_key(row["filename"]))
        pictures[row["uid"]].append(Picture(row["filename"], row["projection"].lower(), path))
    return dict(pictures)


def _image_files(root: pathlib.Path) -> dict[str, str]:
    """Image key -> path below root, for every image at any depth of ``images/``."""
    if not (root / IMAGES).is_dir():
        raise InputError(f"{root / IMAGES} is missing; put the X-rays (PNG or JPEG) there.")
    files: dict[str, str] = {}
    for path in sorted((root / IMAGES).rglob("*")):
        key = image_key(path.name)
        if path.suffix.lower() not in IMAGE_SUFFIXES or "IM-" not in key:
            continue
        name = path.relative_to(root).as_posix()
        if key in files:
            raise InputError(f"{root}: {files[key]} and {name} are one image by name; keep one of the two.")
        files[key] = name
    return files


def _xml_files(root: pathlib.Path) -> Iterable[tuple[str, bytes]]:
    folder, archive = root / XML_FOLDER, root / XML_ARCHIVE
    if folder.is_dir():
        files = [(f"{XML_FOLDER}/{path.name}", path.read_bytes()) for path in sorted(folder.glob("*.xml"))]
    elif archive.is_file():
        try:
            with tarfile.open(archive) as opened:  # read in memory, nothing is unpacked
                files = sorted(_members(opened))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{archive} is not a whole tar archive ({error}); copy it again.") from None
    else:
        raise InputError(f"{root} has neither {XML_FOLDER}/ nor {XML_ARCHIVE}; {FULL_RELEASE}.")
    if not files:
        raise InputError(f"{folder if folder.is_dir() else archive} holds no .xml report; {FULL_RELEASE}.")
    return files


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        content = archive.extractfile(member) if member.isfile() and member.name.endswith(".xml") else None
        if content is not None:
            yield member.name, content.read()
