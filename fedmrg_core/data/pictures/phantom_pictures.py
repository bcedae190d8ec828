"""[ours] PhantomCXR as pictures: findings to tell, or lungs and heart to outline; the masks come of the same drawing.

The patients are those of the report task, study by study. What is asked is the truth that was drawn, not what a report
says of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.phantom import CENTRES, PUBLIC_SITE, UNSEEN_CENTRE, PhantomStudy, draw_study
from fedmrg_core.data.phantom.studies import SPLIT_START
from fedmrg_core.data.phantom.vocabulary import AT, CM, CO, EC, ED, FX, LL, LO, PE, PO, PX, SD
from fedmrg_core.data.pictures.picture import LoadedPictures, Picture, Subject

# What clients tell: several can be in one picture, each is asked by itself. They can be seen at 64 pixels.
ASKED: tuple[str, ...] = (CM, ED, CO, PX, PE, SD)
# What a base model is taught beforehand: the others, and the view; nothing of it is asked of the clients.
TAUGHT_BEFORE: tuple[str, ...] = (EC, LO, LL, AT, PO, FX)
REGIONS = ("lungs", "heart")


def load_phantom_findings(train: int, validation: int, test: int, image_size: int, seed: int) -> LoadedPictures:
    """Findings of each centre's pictures; the unseen centre has `test` pictures alone.

    Args:
        train: pictures of each training centre.
        validation: likewise.
        test: of each centre.
        image_size: pixels along an edge, 32 to 1024.
        seed: root seed.

    Raises:
        InputError: the size is out of range.
    """
    counts = {"train": train, "validation": validation, "test": test}
    return LoadedPictures(
        [_picture(place, study, findings_of(study)) for place, study in _drawn(counts, image_size, seed)],
        Subject("several", ASKED),
    )


def load_phantom_masks(train: int, validation: int, test: int, image_size: int, seed: int) -> LoadedPictures:
    """Lungs and heart of the same pictures; arguments and errors as `load_phantom_findings`."""
    counts = {"train": train, "validation": validation, "test": test}
    return LoadedPictures(
        [_picture(place, study, _regions_of(study)) for place, study in _drawn(counts, image_size, seed)],
        Subject("masks", REGIONS),
    )


def findings_of(study: PhantomStudy, names: tuple[str, ...] = ASKED) -> numpy.ndarray:
    """Which of some findings the image shows, uint8 (K,)."""
    return numpy.array([study.drawn[FINDINGS.index(name)] for name in names], dtype=numpy.uint8)


def public_studies(count: int, image_size: int, seed: int) -> Iterator[PhantomStudy]:
    """Studies of no centre, each in a style of its own, for base models."""
    return (draw_study(seed, PUBLIC_SITE, index, image_size) for index in range(count))


def _drawn(counts: dict[str, int], image_size: int, seed: int) -> Iterator[tuple[tuple[str, str, int], PhantomStudy]]:
    for site in CENTRES:
        for split, count in counts.items():
            if site == UNSEEN_CENTRE and split != "test":
                continue
            for number in range(count):
                study = draw_study(seed, site, SPLIT_START[split] + number, image_size)
                yield (site, split, number), study


def _picture(place: tuple[str, str, int], study: PhantomStudy, truth: numpy.ndarray) -> Picture:
    site, split, number = place
    name = f"{site}-{split}-{number:06d}"
    return Picture(name, f"patient-{name}", site, split, study.image[None], truth)


def _regions_of(study: PhantomStudy) -> numpy.ndarray:
    return numpy.stack([study.lung_mask, study.heart_mask]).astype(numpy.uint8)
