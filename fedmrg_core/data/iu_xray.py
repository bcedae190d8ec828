"""IU X-ray, a real multi-centre set of chest radiographs with reports, from any of its public layouts.

The reader's own copy is read; none of it is shipped. Which files are expected where: `iu_xray_files` and
data_cards/iu_xray.md.
"""

from __future__ import annotations

import collections
import pathlib
from typing import Literal

from fedmrg_core.data import iu_xray_files as files
from fedmrg_core.data.iu_xray_files import Collection, Picture, Report, study_name
from fedmrg_core.data.report_words import is_report, report_text, why_no_report
from fedmrg_core.data.rows import StudyDescription, load_rows
from fedmrg_core.data.study import LeftOut, LoadedStudies, PublicPart
from fedmrg_core.data.tables import check_root
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

Layout = Literal["kaggle", "openi", "r2gen"]
LAYOUTS = {"kaggle": files.read_kaggle, "openi": files.read_openi, "r2gen": files.read_r2gen}
REPORT_FILES = {"kaggle": files.REPORTS, "openi": files.XML_FOLDER, "r2gen": files.ANNOTATION}
ONE_SITE = "iu"
RANDOM_TEST_SHARE = 0.2  # R2Gen's proportions are 7 : 1 : 2 [related]


def load_iu_xray(
    root: pathlib.Path,
    image_size: int = 128,
    seed: int = 0,
    layout: Layout = "kaggle",
    split_source: Literal["r2gen", "random"] = "r2gen",
    test_part: Literal["val", "test"] = "val",
    view: Literal["frontal", "lateral", "both"] = "frontal",
    sections: tuple[Literal["findings", "impression"], ...] = ("findings",),
    sites: Literal["acquisition", "none"] = "acquisition",
    validation_share: float = 0.1,
) -> LoadedStudies:
    """Read IU X-ray as clients' studies.

    One row is one image with its report. Where a study has several images of one view, the first by name is used and
    the others are listed as left out. Every study of the collection is either returned or listed with a reason.

    Args:
        root: the folder with the tables and ``images/``.
        image_size: height and width of the images in pixels.
        seed: root seed of the validation part and of the random split.
        layout: where reports come from: the Kaggle CSV pair, the Open-i XML, or R2Gen's annotation.json.
        split_source: "r2gen": R2Gen's train, divided by site into train and validation, and its `test_part` as test;
            "random": a fifth of each site as test [ours].
        test_part: the R2Gen part used as test. "val": validation comes out of train. "test": R2Gen's val is the
            validation part.
        view: "frontal", "lateral", or "both" (two rows a study, with ids ``CXR1-frontal`` and ``CXR1-lateral``).
        sections: report sections joined with a space into the column `findings`; a study without a findings section is
            left out in any case, because reports are compared by it. A placeholder such as "nan" is no section.
        sites: "acquisition": A to E from the acquisition fields; "none": one site "iu", for a random partition.
        validation_share: share of each site's training studies that becomes validation, at least one study.

    Raises:
        InputError: root, a file or a column is missing, a file is not UTF-8, an id occurs twice, a parameter is out
            of range, or no study is usable.
    """
    if not 0 < validation_share < 1:
        raise InputError(f"validation_share is {validation_share}; expected a number between 0 and 1, for example 0.1.")
    if "findings" not in sections:
        raise InputError(f"sections is {sections}; expected ('findings',) or ('findings', 'impression').")
    root = check_root(root, "the folder with the IU X-ray tables and images/")
    collection = LAYOUTS[layout](root)
    left_out = collection.left_out
    site_of = _sites(root, collection, sites)
    parts = (
        _r2gen_parts(root, collection, test_part) if split_source == "r2gen" else dict.fromkeys(collection.reports, "")
    )
    split_of = _own_splits(parts, site_of, validation_share, seed)
    described = []
    for uid, report in collection.reports.items():
        reason = _reason_to_leave_out(uid, report, parts, site_of, split_of)
        if reason:
            left_out.append(LeftOut(study_name(uid), report.item, reason))
            continue
        text = " ".join(filter(None, (report_text(getattr(report, section)) for section in sections)))
        for chosen in _choose(uid, collection.pictures.get(uid, []), view, report.item, left_out):
            described.append(_describe(uid, chosen, site_of[uid], split_of[uid], text, report, view == "both"))
    return load_rows(described, left_out, root, f"IU X-ray, {REPORT_FILES[layout]}", image_size)


def load_iu_xray_public(
    root: pathlib.Path,
    count: int | None = None,
    image_size: int = 128,
    seed: int = 0,
    layout: Literal["kaggle", "openi"] = "kaggle",
) -> PublicPart:
    """What no client holds, for pretraining base models: the studies outside R2Gen's annotation.

    Texts are their findings and impressions, each section a text of its own, together with the reports without an
    image that only the Open-i XML has, if it is there. Images are their frontal views, described by the findings, or
    by the impression where there are no findings. Studies are kept apart by uid; a short normal report can still read
    word for word like a client's.

    Args:
        root: the folder with the tables and ``images/``.
        count: not used: the whole public part is returned. There so that every public corpus is called alike.
        image_size: height and width of the images in pixels.
        seed: not used, as `count`.
        layout: where reports come from.

    Raises:
        InputError: as `load_iu_xray`.
    """
    root = check_root(root, "the folder with the IU X-ray tables and images/")
    collection = LAYOUTS[layout](root)
    taken = files.read_annotation(root)
    reports = dict(collection.reports)
    if layout == "kaggle" and ((root / files.XML_ARCHIVE).is_file() or (root / files.XML_FOLDER).is_dir()):
        reports = {**files.read_openi(root).reports, **reports}
    texts, described, left_out = [], [], list(collection.left_out)
    for uid in sorted(reports.keys() - taken.keys(), key=int):
        report = reports[uid]
        sections = [text for text in (report.findings, report.impression) if is_report(text)]
        texts.extend(sections)
        if not sections:
            left_out.append(LeftOut(study_name(uid), report.item, "neither findings nor impression; nothing to learn."))
            continue
        for chosen in _choose(uid, collection.pictures.get(uid, []), "frontal", report.item, left_out):
            described.append(_describe(uid, chosen, "public", "train", sections[0], report))
    loaded = load_rows(described, left_out, root, "IU X-ray, public part", image_size)
    return PublicPart(texts, loaded.studies, loaded.left_out)


def _sites(root: pathlib.Path, collection: Collection, sites: str) -> dict[str, str]:
    if sites == "none":
        return dict.fromkeys(collection.reports, ONE_SITE)
    return files.read_sites(root, collection.pictures)


def _r2gen_parts(root: pathlib.Path, collection: Collection, test_part: str) -> dict[str, str]:
    """Split by uid; "" where R2Gen's train is still to be divided, other texts for a part that is not used."""
    meaning = (
        {"train": "", "val": "test"} if test_part == "val" else {"train": "train", "val": "validation", "test": "test"}
    )
    parts = {}
    for uid, (part, entry) in files.read_annotation(root).items():
        if uid in collection.reports:
            parts[uid] = meaning.get(part, f"unused R2Gen part {part!r}")
        else:
            reason = "in R2Gen's annotation but without a report in this layout; add it or take the other layout."
            collection.left_out.append(LeftOut(study_name(uid), f"{files.ANNOTATION}, {entry['id']}", reason))
    if test_part not in {part for part, _ in files.read_annotation(root).values()}:
        raise InputError(
            f"{root / files.ANNOTATION} has no part {test_part!r}; give test_part='val' or the whole annotation."
        )
    return parts


def _own_splits(parts: dict[str, str], site_of: dict[str, str], validation_share: float, seed: int) -> dict[str, str]:
    """Divide the studies with part "" by site; studies without a site or in an unused part get no split.

    Drawn over studies whatever views or sections are asked for, so that the parts are the same for each of them.
    """
    split_of = {uid: part for uid, part in parts.items() if part in ("train", "validation", "test") and uid in site_of}
    has_test = "test" in parts.values()
    by_site: dict[str, list[str]] = collections.defaultdict(list)
    for uid in sorted((uid for uid, part in parts.items() if part == "" and uid in site_of), key=int):
        by_site[site_of[uid]].append(uid)
    for site, uids in by_site.items():
        numpy_stream(seed, "iu_xray", "split", site).shuffle(uids)
        tests = 0 if has_test else max(1, round(RANDOM_TEST_SHARE * len(uids)))
        validations = max(1, round(validation_share * len(uids)))
        for order, uid in enumerate(uids):
            split_of[uid] = "test" if order < tests else "validation" if order < tests + validations else "train"
    return split_of


def _reason_to_leave_out(
    uid: str, report: Report, parts: dict[str, str], site_of: dict[str, str], split_of: dict[str, str]
) -> str:
    """Why a study is not used, or "" if it is."""
    fault = why_no_report(report.findings)
    if fault:
        return f"{fault}; nothing to train on or to compare with."
    if uid not in parts:
        return "outside R2Gen's annotation; kept for the public corpus."
    if uid not in site_of:
        return f"no row in {files.ACQUISITION}, so no site; add one or give sites='none'."
    return "" if uid in split_of else f"{parts[uid]}; give test_part='test' to use it."


def _describe(
    uid: str, picture: Picture, site: str, split: str, text: str, report: Report, name_view: bool = False
) -> StudyDescription:
    name = study_name(uid)
    row_id = f"{name}-{picture.view}" if name_view else name
    impression = report_text(report.impression)
    return StudyDescription(row_id, name, site, split, picture.view, str(picture.path), text, impression)


def _choose(uid: str, pictures: list[Picture], view: str, item: str, left_out: list[LeftOut]) -> list[Picture]:
    """The first image by name of each wanted view; the others, and missing files, are listed."""
    name = study_name(uid)
    chosen = []
    for wanted in files.VIEWS if view == "both" else (view,):
        own = sorted((picture for picture in pictures if picture.view == wanted), key=lambda picture: picture.name)
        present = [picture for picture in own if picture.path is not None]
        left_out += [
            LeftOut(name, picture.name, "the image file is missing; add it to images/.")
            for picture in own
            if picture.path is None
        ]
        left_out += [LeftOut(name, p.name, f"another {wanted} image of this study is in use.") for p in present[1:]]
        chosen += present[:1]
        if not present:
            left_out.append(LeftOut(name, item, f"no {wanted} image; add one or choose another view."))
    unknown = [picture for picture in pictures if picture.view == "unknown"]
    left_out += [LeftOut(name, p.name, f"its view is unknown; add it to {files.PROJECTIONS}.") for p in unknown]
    return chosen
