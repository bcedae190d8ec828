"""Small data sets of every layout, drawn from noise: no real image or report is in them."""

from __future__ import annotations

import csv
import gzip
import json
import pathlib

import datasets
import numpy
from PIL import Image

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.study import STUDY_FEATURES

SITES = {  # Private Creator and pixel spacing of each acquisition group
    "A": ("MITRA OBJECT UTF8 ATTRIBUTES 1.0", "['0.1500', '0.1500']"),
    "B": ("MITRA OBJECT UTF8 ATTRIBUTES 1.0", "['0.143', '0.143']"),
    "C": ("SIEMENS MEDCOM OOG", "['0.143', '0.143']"),
    "D": ("Agfa ADC NX", "['0.1', '0.1']"),
    "E": ("", ""),
}
FINDINGS_TEXT = "The heart is enlarged. No pleural effusion."
IMPRESSION_TEXT = "Cardiomegaly."


def save_noise(path: pathlib.Path, seed: int = 0, size: tuple[int, int] = (40, 40), mode: str = "L") -> None:
    """Save an image of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, shape, dtype=numpy.uint8), mode).save(path)


def write_csv(path: pathlib.Path, rows: list[dict[str, str]]) -> None:
    """Write rows as CSV, gzipped if the name says so."""
    opened = gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="", encoding="utf-8")
    with opened as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_folder(root: pathlib.Path, studies: int = 6, **changes: str) -> list[dict[str, str]]:
    """A hospital's own folder; `changes` are applied to the first row. Returns the rows."""
    rows = []
    for number in range(studies):
        save_noise(root / f"images/{number}.png", number)
        rows.append(
            {
                "study_id": f"s{number}", "patient_id": f"p{number}", "site": "north" if number % 2 else "south",
                "split": ("train", "validation", "test")[number // 2 % 3],
                "view": "frontal", "image": f"images/{number}.png",
                "findings": FINDINGS_TEXT, "impression": IMPRESSION_TEXT,
            }
        )  # fmt: skip
    rows[0].update(changes)
    write_csv(root / "studies.csv", rows)
    return rows


def make_iu(root: pathlib.Path, uids: range = range(1, 41), in_annotation: int = 30) -> None:
    """IU X-ray in all layouts at once.

    Each study has a frontal and a lateral image; the first `in_annotation` are in R2Gen's annotation, every fifth of
    them as val. Study 31 has no findings, study 32 no image file, study 33 two frontal images. Sites go round A to E.
    """
    reports, projections, acquisition, annotation = [], [], [], {"train": [], "val": []}
    for uid in uids:
        findings = "" if uid == 31 else f"{FINDINGS_TEXT} Film {uid}."
        reports.append({"uid": str(uid), "findings": findings, "impression": IMPRESSION_TEXT})
        names = {"2001": "Frontal", "1001": "Lateral"} | ({"3001": "Frontal"} if uid == 33 else {})
        for series, view in names.items():
            stem = f"{uid}_IM-0001-{series}"
            projections.append({"uid": str(uid), "filename": f"{stem}.dcm.png", "projection": view})
            creator, spacing = SITES["ABCDE"[uid % 5]]
            acquisition.append(
                {"stem": stem, "uid": str(uid), "Private Creator": creator, "Imager Pixel Spacing": spacing}
            )
            if uid != 32:
                save_noise(root / f"images/{stem}.dcm.jpg", uid)
        if uid <= in_annotation:
            name, part = f"CXR{uid}_IM-0001", "train" if uid % 6 else "val"
            paths = [f"{name}/0.png", f"{name}/1.png"]
            annotation[part].append({"id": name, "report": findings, "image_path": paths, "split": part})
        write_xml(root, uid, findings, [f"{uid}_IM-0001-{series}" for series in names])
    write_csv(root / "indiana_reports.csv", reports)
    write_csv(root / "indiana_projections.csv", projections)
    write_csv(root / "acquisition.csv.gz", acquisition)
    (root / "annotation.json").write_text(json.dumps(annotation))


def write_xml(root: pathlib.Path, uid: int, findings: str, stems: list[str]) -> None:
    """One report in the Open-i form."""
    prefix = "CXR1_" if uid == 1 else "CXR"  # both forms occur in the real files
    images = "".join(f'<parentImage id="{prefix}{stem}"/>' for stem in stems)
    sections = (
        f'<AbstractText Label="FINDINGS">{findings}</AbstractText>' if findings else '<AbstractText Label="FINDINGS"/>'
    )
    path = root / f"ecgen-radiology/{uid}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{uid}"/><Abstract>{sections}'
        f'<AbstractText Label="IMPRESSION">{IMPRESSION_TEXT}</AbstractText></Abstract>{images}</eCitation>'
    )


def study_rows(rows: list[tuple[str, str, str]]) -> datasets.Dataset:
    """Studies with tiny images from (patient, site, split)."""
    pixels = numpy.arange(256, dtype=numpy.uint8).reshape(16, 16)
    return datasets.Dataset.from_list(
        [
            {
                "study_id": f"s{number}", "patient_id": patient, "site": site, "split": split, "view": "frontal",
                "image": Image.fromarray(numpy.roll(pixels, number)), "findings": f"Text {number}.", "impression": "",
                "states": [number % 4] * len(FINDINGS),
            }
            for number, (patient, site, split) in enumerate(rows)
        ],
        features=STUDY_FEATURES,
    )  # fmt: skip
