"""A hospital's own folder: `studies.csv` and the images it names; example in data_cards/README.md [ours]."""

from __future__ import annotations

import pathlib

from fedmrg_core.data.rows import StudyDescription, load_rows
from fedmrg_core.data.study import SPLITS, LeftOut, LoadedStudies
from fedmrg_core.data.tables import check_root, read_table
from fedmrg_core.errors import InputError
from fedmrg_core.site_names import check_site_name

TABLE = "studies.csv"
COLUMNS = ("study_id", "patient_id", "site", "split", "view", "image", "findings", "impression")


def load_folder(
    root: pathlib.Path, image_size: int = 128, seed: int = 0, rescale_16_bit: bool = False
) -> LoadedStudies:
    """Read the data set in `root`.

    `studies.csv` (UTF-8, one row a study) has the columns study_id, patient_id, site, split, view, image, findings,
    impression. `image` is a path below `root`. Report states come from the labeller, applied to the findings section.
    Rows with an empty findings section or an unusable image are left out and listed.

    Args:
        root: the folder.
        image_size: height and width of the prepared images in pixels.
        seed: not used: splits are the table's own. There so that every loader is called alike.
        rescale_16_bit: accept images of more than 8 bits (see `read_grey_image`).

    Raises:
        InputError: root, table or column is missing, the table is not UTF-8, an id, site or image is empty, a site has
            a name that tables use themselves, an id occurs twice, a split is unknown, a patient is in two splits, an
            image lies outside root, or no study is usable.
    """
    root = check_root(root, f"the folder that holds {TABLE} and its images")
    rows = read_table(root / TABLE, COLUMNS, f"write a table with the columns {', '.join(COLUMNS)}")
    _check_table(rows, root)
    left_out = [
        LeftOut(row["study_id"], f"{TABLE}, row {number}", "empty findings section; give the text of the report.")
        for number, row in enumerate(rows, start=1)
        if not row["findings"]
    ]
    used = [StudyDescription(**{name: row[name] for name in COLUMNS}) for row in rows if row["findings"]]
    return load_rows(used, left_out, root, str(root / TABLE), image_size, rescale_16_bit)


def _check_table(rows: list[dict[str, str]], root: pathlib.Path) -> None:
    """Faults of the table itself stop everything: they are not about one study. Rows count from 1."""
    first_row: dict[str, int] = {}
    split_of: dict[str, str] = {}
    inside = root.resolve()
    for number, row in enumerate(rows, start=1):
        place = f"{root / TABLE}: row {number}"
        for column in ("study_id", "patient_id", "site", "image"):
            if not row[column]:
                raise InputError(f"{place} has an empty {column}; every study needs one.")
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
        if not (root / row["image"]).resolve().is_relative_to(inside):
            raise InputError(f"{place} names the image {row['image']!r} outside {root}; give a path below it.")
