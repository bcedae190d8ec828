"""The Study schema: what every dataset module returns, one row a study (contract 1)."""

from __future__ import annotations

import csv
import dataclasses
import pathlib

import datasets

from fedmrg_core.data.findings import FINDINGS, STATES
from fedmrg_core.data.report_words import why_no_report
from fedmrg_core.data.row_files import values_of
from fedmrg_core.data.site_names import check_site_name
from fedmrg_core.errors import InputError
from fedmrg_core.files.stored_tables import cell_text

SPLITS: tuple[str, ...] = ("train", "validation", "test")

# `image` is stored as encoded PNG bytes or a path and decodes to an 8-bit grey PIL image.
# `states` holds 14 class numbers in the order of FINDINGS: what the report says, not what the image shows.
STUDY_FEATURES = datasets.Features(
    {
        "study_id": datasets.Value("string"),
        "patient_id": datasets.Value("string"),
        "site": datasets.Value("string"),
        "split": datasets.Value("string"),
        "view": datasets.Value("string"),
        "image": datasets.Image(),
        "findings": datasets.Value("string"),
        "impression": datasets.Value("string"),
        "states": datasets.Sequence(datasets.ClassLabel(names=list(STATES)), length=len(FINDINGS)),
    }
)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """One study (or image) that was not used, and why."""

    study_id: str
    item: str  # the file or row concerned
    reason: str  # one sentence: what is wrong and what is expected


@dataclasses.dataclass
class LoadedStudies:
    """What a dataset module hands back.

    Attributes:
        studies: the studies in use.
        left_out: everything left out.
        warnings: sentences about the studies in use that a person has to judge.
    """

    studies: datasets.Dataset
    left_out: list[LeftOut]
    warnings: list[str] = dataclasses.field(default_factory=list)

    def write_left_out(self, path: pathlib.Path) -> None:
        """Write the list of what was left out as CSV (study_id, item, reason)."""
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow([field.name for field in dataclasses.fields(LeftOut)])
            writer.writerows(map(cell_text, dataclasses.astuple(row)) for row in self.left_out)


def check_studies(studies: datasets.Dataset, source: str) -> None:
    """Hold a dataset against the schema.

    Raises:
        InputError: a column is missing, a study id occurs twice, a split is unknown, a site has a name that tables use
            themselves, or a report is none: empty, without a word, or a placeholder.
    """
    missing = [name for name in STUDY_FEATURES if name not in studies.column_names]
    if missing:
        raise InputError(f"{source}: column {missing[0]!r} is missing; a study needs {', '.join(STUDY_FEATURES)}.")
    seen: set[str] = set()
    for study_id, site, split, findings in values_of(studies, "study_id", "site", "split", "findings"):
        if study_id in seen:
            raise InputError(f"{source}: study_id {study_id!r} occurs twice; every study needs an id of its own.")
        seen.add(study_id)
        check_site_name(site, f"{source}: study {study_id!r}")
        if split not in SPLITS:
            raise InputError(f"{source}: study {study_id!r} has split {split!r}; expected one of {', '.join(SPLITS)}.")
        reason = why_no_report(findings)
        if reason:
            raise InputError(f"{source}: study {study_id!r}: {reason}; remove it or give its findings.")


@dataclasses.dataclass
class PublicPart:
    """What a data set offers for pretraining base models, apart from every client's studies.

    Texts and studies overlap, but a text may have no image.
    """

    texts: list[str]
    studies: datasets.Dataset
    left_out: list[LeftOut]
