"""A hospital's own folder: `studies.csv` and the images it names; example in data_cards/README.md [ours]."""

from __future__ import annotations

import pathlib

from fedmrg_core.data.report_words import clean_name, is_missing, is_missing_name, report_text, why_no_report
from fedmrg_core.data.rows import StudyDescription, load_rows
from fedmrg_core.data.site_names import check_site_name
from fedmrg_core.data.study import SPLITS, LeftOut, LoadedStudies
from fedmrg_core.data.tables import check_root, path_fault, read_rows
from fedmrg_core.errors import InputError

TABLE = "studies.csv"
COLUMNS = ("study_id", "patient_id", "site", "split", "view", "image", "findings", "impression")
NAMES = ("study_id", "patient_id", "site", "split")  # each in one spelling
PLACEHOLDERS = {"study_id": is_missing, "patient_id": is_missing, "site": is_missing_name}  # column -> its test


def load_folder(
    root: pathlib.Path, image_size: int = 128, seed: int = 0, rescale_16_bit: bool = False
) -> LoadedStudies:
    """Read the data set in `root`.

    `studies.csv` (UTF-8, one row a study) has the columns study_id, patient_id, site, split, view, image, findings,
    impression. `image` is a path below `root`. Report states come from the labeller, applied to the findings section.
    Rows whose findings section is empty, has no word or is a placeholder such as "nan", and rows with an unusable image
    are left out and listed. Ids and sites have one spelling (`clean_name`); a site may be called "NA" or "None".

    Args:
        root: the folder.
        image_size: height and width of the prepared images in pixels.
        seed: not used: splits are the table's own. There so that every loader is called alike.
        rescale_16_bit: accept images of more than 8 bits (see `read_grey_image`).

    Raises:
        InputError: root, table or column is missing, the table is not UTF-8, a column or an id occurs twice, an id,
            site or image is empty, an id or site is a placeholder, a site has a name that tables use themselves, a
            split is unknown, a patient is in two splits, an image lies outside root or is named with backslashes, or
            no study is usable.
    """
    root = check_root(root, f"the folder that holds {TABLE} and its images")
    rows = read_rows(root / TABLE, COLUMNS, f"write a table with the columns {', '.join(COLUMNS)}")
    for row in rows:
        row |= {name: clean_name(row[name]) for name in NAMES}
    _check_table(rows, root)
    reasons = [why_no_report(row["findings"]) for row in rows]
    left_out = [
        LeftOut(row["study_id"], f"{TABLE}, row {number}", f"{reason}; give the text of the report.")
        for number, (row, reason) in enumerate(zip(rows, reasons, strict=True), start=1)
        if reason
    ]
    used = [
        StudyDescription(**{name: row[name] for name in COLUMNS} | {"impression": report_text(row["impression"])})
        for row, reason in zip(rows, reasons, strict=True)
        if not reason
    ]
    return load_rows(used, left_out, root, str(root / TABLE), image_size, rescale_16_bit)


def _check_table(rows: list[dict[str, str]], root: pathlib.Path) -> None:
    """Faults of the table itself stop everything: they are not about one study. Rows count from 1."""
    first_row: dict[str, int] = {}
    split_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        place = f"{root / TABLE}: row {number}"
        for column in ("study_id", "patient_id", "site", "image"):
            if not row[column]:
                raise InputError(f"{place} has an empty {column}; every study needs one.")
            if column in PLACEHOLDERS and PLACEHOLDERS[column](row[column]):
                raise InputError(
                    f"{place} has the {column} {row[column]!r}, which stands for a missing one; every study needs one."
                )
        check_site_name(row["site"], place)
        study_id, patient, split = row["study_id"], row["patient_id"], row["split"]
        if study_id in first_row:
            raise InputError(
                f"{place} has the study_id {study_id!r} of row {first_row[study_id]}; give every study its own."
            )
        first_row[study_id] = number
        if split not in SPLITS:
            raise InputError(f"{place} has split {split!r}; expected one of {', '.join(SPLITS)}.")
        if split_of.setdefault(patient, split) != split:
            raise InputError(
                f"{place}: patient {patient!r} is in {split} and in {split_of[patient]}; "
                "keep all studies of a patient in one split."
            )
        fault = path_fault(root, row["image"])
        if fault:
            raise InputError(f"{place} names the image {row['image']!r} {fault}.")
