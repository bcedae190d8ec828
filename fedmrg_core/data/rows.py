"""From descriptions of studies to Study rows: images read, reports labelled, refusals listed [ours]."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import datasets
from tqdm.auto import tqdm

from fedmrg_core.data.images import png_bytes, read_grey_image
from fedmrg_core.data.study import STUDY_FEATURES, LeftOut, LoadedStudies, check_studies
from fedmrg_core.errors import InputError
from fedmrg_core.labeller import label_report
from fedmrg_core.report_words import language_warning


@dataclasses.dataclass(frozen=True)
class StudyDescription:
    """One study as its tables tell it; `image` is a file name below the data set's root."""

    study_id: str
    patient_id: str
    site: str
    split: str
    view: str
    image: str
    findings: str
    impression: str


def load_rows(
    descriptions: Sequence[StudyDescription],
    left_out: Sequence[LeftOut],
    root: pathlib.Path,
    source: str,
    image_size: int,
    rescale_16_bit: bool = False,
) -> LoadedStudies:
    """Read every image as an 8-bit grey PNG of `image_size`, label every findings section, and collect Study rows.

    A study whose image is refused goes to the list of what was left out. Rows are ordered by study_id. Reports that do
    not read as English are used and told in the warnings, with the file's name alone: prepared data hold no path.
    Everything is held in memory: about 10 kB a study at 128 pixels.

    Args:
        descriptions: the studies that have a report.
        left_out: what is left out already.
        root: the folder of the images.
        source: what error sentences call the data set.
        image_size: height and width of the images in pixels.
        rescale_16_bit: see `read_grey_image`.

    Raises:
        InputError: no study is left, or the rows break the Study schema.
    """
    rows, refused = [], list(left_out)
    for study in tqdm(sorted(descriptions, key=lambda study: study.study_id), desc=source, unit="study"):
        item = study.image.replace("\0", "\\0")
        try:
            picture = read_grey_image(root / study.image, image_size, rescale_16_bit, name=item)
        except InputError as error:
            refused.append(LeftOut(study.study_id, item, str(error).removeprefix(f"{item}: ")))
            continue
        image = {"bytes": png_bytes(picture), "path": None}
        rows.append(dataclasses.asdict(study) | {"image": image, "states": list(label_report(study.findings))})
    if not rows:
        first = f" ({refused[0].item}: {refused[0].reason.rstrip('.')})" if refused else ""
        raise InputError(f"{source}: not one usable study, {len(refused)} left out{first}; mend or add studies.")
    studies = datasets.Dataset.from_list(rows, features=STUDY_FEATURES)
    check_studies(studies, source)
    reports = {row["study_id"]: row["findings"] for row in rows}
    warning = language_warning(reports, pathlib.PurePath(source).name)
    left_out = sorted(refused, key=lambda row: (row.study_id, row.item))
    return LoadedStudies(studies, left_out, [warning] if warning else [])
