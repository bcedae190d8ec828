"""From descriptions of studies to Study rows: images read, reports labelled, refusals listed [ours]."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from tqdm.auto import tqdm

from fedmrg_core.data.images import png_bytes, read_grey_image
from fedmrg_core.data.labeller import label_report
from fedmrg_core.data.report_words import language_warning
from fedmrg_core.data.row_files import dataset_of_rows, values_of
from fedmrg_core.data.study import STUDY_FEATURES, LeftOut, LoadedStudies, check_studies
from fedmrg_core.errors import InputError


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
    Images go to disk one by one; the descriptions are held in memory: about 2 kB a study.

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
    refused = list(left_out)

    def rows() -> Iterator[dict[str, Any]]:
        for study in tqdm(sorted(descriptions, key=lambda study: study.study_id), desc=source, unit="study"):
            item = study.image.replace("\0", "\\0")
            try:
                picture = read_grey_image(root / study.image, image_size, rescale_16_bit, name=item)
            except InputError as error:
                refused.append(LeftOut(study.study_id, item, str(error).removeprefix(f"{item}: ")))
                continue
            image = {"bytes": png_bytes(picture), "path": None}
            yield dataclasses.asdict(study) | {"image": image, "states": list(label_report(study.findings))}

    studies = dataset_of_rows(rows(), STUDY_FEATURES)
    if not len(studies):
        first = f" ({refused[0].item}: {refused[0].reason.rstrip('.')})" if refused else ""
        raise InputError(f"{source}: not one usable study, {len(refused)} left out{first}; mend or add studies.")
    check_studies(studies, source)
    warning = language_warning(values_of(studies, "study_id", "findings"), pathlib.PurePath(source).name)
    left_out = sorted(refused, key=lambda row: (row.study_id, row.item))
    return LoadedStudies(studies, left_out, [warning] if warning else [])
