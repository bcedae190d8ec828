"""[ours] PhantomCXR as a data set: one study at a time, whole data sets, the cache, and the public corpus."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import datasets
import numpy
from PIL import Image
from tqdm.auto import tqdm

from fedmrg_core.data.findings import FINDINGS
from fedmrg_core.data.phantom import public
from fedmrg_core.data.phantom.acquisition import acquire
from fedmrg_core.data.phantom.anatomy import masks, sample_anatomy
from fedmrg_core.data.phantom.centres import (
    CENTRES,
    PUBLIC_SITE,
    UNSEEN_CENTRE,
    Centre,
    ImageStyle,
    PhantomSettings,
    blended_image_style,
    blended_report_style,
    centre,
)
from fedmrg_core.data.phantom.drawing import draw_patient
from fedmrg_core.data.phantom.projection import Grid
from fedmrg_core.data.phantom.report import write_report
from fedmrg_core.data.phantom.truth import Truth, drawn_flags, sample_truth
from fedmrg_core.data.row_files import dataset_of_rows
from fedmrg_core.data.sources import DATA_SOURCES
from fedmrg_core.data.study import STUDY_FEATURES, LoadedStudies, PublicPart, check_studies
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

ADAPTATION_STUDIES = 128  # of the unseen centre, as many as adaptation is tried with at most
TEXTS_PER_IMAGE = 4  # of the public corpus
GENERATOR_VERSION = DATA_SOURCES["phantom"].version
PHANTOM_FEATURES = datasets.Features(
    {
        **STUDY_FEATURES,
        "drawn": datasets.Sequence(datasets.Value("bool"), length=len(FINDINGS)),
        "details": datasets.Value("string"),
    }
)
DEFAULT_SETTINGS = PhantomSettings()
# The splits of a centre take their studies from ranges of indices that never meet, whatever the counts.
SPLIT_START = {"train": 0, "validation": 10_000_000, "test": 20_000_000}


@dataclasses.dataclass(frozen=True)
class PhantomStudy:
    """One study with its full truth."""

    image: numpy.ndarray  # uint8 (H, W)
    lung_mask: numpy.ndarray  # bool (H, W): the lung fields, diseased or not
    heart_mask: numpy.ndarray  # bool (H, W)
    view: str  # "PA" or "AP"
    findings: str
    impression: str
    states: list[int]  # what the findings section says, in the order of FINDINGS
    drawn: list[bool]  # what the image shows, in the order of FINDINGS
    details: str  # JSON: {finding: {side, zone, severity, kinds}} of what is drawn


def draw_study(
    seed: int, centre_name: str, index: int, image_size: int = 128, settings: PhantomSettings = DEFAULT_SETTINGS
) -> PhantomStudy:
    """Draw study number `index` of a centre; the same arguments give the same study whatever else is drawn.

    Args:
        seed: root seed.
        centre_name: one of CENTRES, or "public" for the neutral corpus.
        index: number of the study, from 0.
        image_size: height and width of the image in pixels, 32 to 1024.
        settings: how strongly the centres differ.

    Raises:
        InputError: unknown centre, negative index, or an image size out of range.
    """
    if not 32 <= image_size <= 1024:
        raise InputError(f"PhantomCXR: image_size is {image_size}; choose 32 to 1024 pixels.")
    stream = _streams(seed, centre_name, index)
    own, truth = _patient(centre_name, settings, stream)
    image, lung_mask, heart_mask, view = _picture(own.image, truth, image_size, stream)
    findings, impression, states = write_report(truth, own.report, stream("report"), settings.wording_strength)
    details = json.dumps({name: dataclasses.asdict(detail) for name, detail in truth.items()})
    return PhantomStudy(image, lung_mask, heart_mask, view, findings, impression, states, drawn_flags(truth), details)


def study_text(seed: int, centre_name: str, index: int, settings: PhantomSettings = DEFAULT_SETTINGS) -> str:
    """The findings section of the same study as `draw_study` makes, without drawing its image.

    Raises:
        InputError: unknown centre or negative index.
    """
    stream = _streams(seed, centre_name, index)
    own, truth = _patient(centre_name, settings, stream)
    return write_report(truth, own.report, stream("report"), settings.wording_strength)[0]


Streams = functools.partial[numpy.random.Generator]  # name of a stream -> its generator


def _streams(seed: int, centre_name: str, index: int) -> Streams:
    if index < 0:
        raise InputError(f"PhantomCXR: index is {index}; studies are numbered from 0.")
    return functools.partial(numpy_stream, seed, "phantom", centre_name, index)


def _patient(centre_name: str, settings: PhantomSettings, stream: Streams) -> tuple[Centre, Truth]:
    own = public.jittered_centre(stream("style")) if centre_name == PUBLIC_SITE else _blended(centre_name, settings)
    return own, sample_truth(stream("truth"), own.prevalence)


@functools.lru_cache(maxsize=64)
def _blended(centre_name: str, settings: PhantomSettings) -> Centre:
    own = centre(centre_name)
    return dataclasses.replace(
        own,
        image=blended_image_style(own.image, settings.image_strength),
        report=blended_report_style(own.report, settings.wording_strength),
    )


def _picture(
    style: ImageStyle, truth: Truth, image_size: int, stream: Streams
) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, str]:
    rng = stream("anatomy")
    view = "AP" if rng.random() < style.share_ap else "PA"
    grid = Grid.square(
        image_size, style.zoom * float(rng.normal(1, 0.015)), float(numpy.radians(rng.normal(0, style.tilt)))
    )
    path, fields = draw_patient(sample_anatomy(rng, truth, view), truth, grid, rng)
    return acquire(path, style, stream("acquisition")), *masks(fields), view


def load_phantom(
    train: int,
    validation: int,
    test: int,
    image_size: int = 128,
    seed: int = 0,
    cache_folder: pathlib.Path | None = None,
    adaptation: int = ADAPTATION_STUDIES,
    image_strength: float = 1.0,
    wording_strength: float = 1.0,
    progress: bool = True,
) -> LoadedStudies:
    """The phantom data set: `train`, `validation` and `test` studies of each training centre, and of the unseen centre
    `test` and, as its train split, `adaptation` studies.

    Args:
        train: number of training studies of each training centre.
        validation: number of validation studies of each training centre.
        test: number of test studies of each centre, the unseen one included.
        image_size: height and width of the images in pixels.
        seed: root seed.
        cache_folder: where a drawn data set is kept and found again; None draws it anew.
        adaptation: number of studies of the unseen centre that a trained model may be adapted with; no client trains
            on them.
        image_strength: how strongly the centres' images differ in style, 0 (not at all) to 1.
        wording_strength: likewise their reports.
        progress: show a progress bar while drawing.

    Returns:
        Studies by the Study schema with two more columns, `drawn` and `details`; nothing is ever left out.

    Raises:
        InputError: a negative count, no study at all, or a size or strength out of range.
    """
    counts = {"train": train, "validation": validation, "test": test}
    asked = {**counts, "adaptation": adaptation}
    for name, count in asked.items():
        if count < 0:
            raise InputError(f"PhantomCXR: {name} is {count}; give a number of studies of 0 or more.")
    of_unseen = {"train": adaptation, "test": test}
    jobs = [
        (site, split, number)
        for site in CENTRES
        for split, count in (of_unseen if site == UNSEEN_CENTRE else counts).items()
        for number in range(count)
    ]
    settings = PhantomSettings(image_strength, wording_strength)
    key = {"kind": "centres", **asked, "image_size": image_size, "seed": seed, **dataclasses.asdict(settings)}
    return LoadedStudies(_cached(jobs, key, image_size, seed, settings, cache_folder, progress), [])


def public_corpus(
    count: int, image_size: int = 128, seed: int = 0, cache_folder: pathlib.Path | None = None, progress: bool = True
) -> datasets.Dataset:
    """Images and reports of no centre, for pretraining: neutral wording, a style of its own for every study.

    Same columns as `load_phantom`; site "public", split "train". Its random streams bear another name, so no study is
    shared.

    Raises:
        InputError: a count below 1 or a size out of range.
    """
    jobs = [(PUBLIC_SITE, "train", number) for number in range(count)]
    key = {"kind": PUBLIC_SITE, "count": count, "image_size": image_size, "seed": seed}
    return _cached(jobs, key, image_size, seed, DEFAULT_SETTINGS, cache_folder, progress)


def public_part(
    count: int, image_size: int = 128, seed: int = 0, cache_folder: pathlib.Path | None = None
) -> PublicPart:
    """The public corpus for base models: `count` images and TEXTS_PER_IMAGE texts for each, as words cost no drawing.

    Raises:
        InputError: as :func:`public_corpus`.
    """
    studies = public_corpus(count, image_size, seed, cache_folder)
    return PublicPart(public_texts(TEXTS_PER_IMAGE * count, seed), studies, [])


def public_texts(count: int, seed: int = 0) -> list[str]:
    """The findings sections of the first `count` studies of the public corpus, without drawing their images."""
    return [study_text(seed, PUBLIC_SITE, index) for index in range(count)]


Job = tuple[str, str, int]


def _row(job: Job, image_size: int, seed: int, settings: PhantomSettings) -> dict[str, Any]:
    site, split, number = job
    study = draw_study(seed, site, SPLIT_START[split] + number, image_size, settings)
    handle = io.BytesIO()
    Image.fromarray(study.image).save(handle, format="PNG", compress_level=1)
    name = f"{site}-{split}-{number:06d}"
    return {
        "study_id": name,
        "patient_id": f"patient-{name}",
        "site": site,
        "split": split,
        "view": study.view,
        "image": {"bytes": handle.getvalue(), "path": None},
        "findings": study.findings,
        "impression": study.impression,
        "states": study.states,
        "drawn": study.drawn,
        "details": study.details,
    }


def _rows(
    jobs: list[Job], image_size: int, seed: int, settings: PhantomSettings, progress: bool
) -> Iterator[dict[str, Any]]:
    draw = functools.partial(_row, image_size=image_size, seed=seed, settings=settings)
    bar = functools.partial(tqdm, total=len(jobs), desc="PhantomCXR", unit="study", disable=not progress)
    workers = os.cpu_count() or 1
    if len(jobs) < 2000 or workers == 1:
        yield from bar(map(draw, jobs))
        return
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        results: Iterable[dict[str, Any]] = pool.map(draw, jobs, chunksize=64)
        yield from bar(results)


def _cached(
    jobs: list[Job],
    key: dict[str, Any],
    image_size: int,
    seed: int,
    settings: PhantomSettings,
    cache_folder: pathlib.Path | None,
    progress: bool,
) -> datasets.Dataset:
    """Draw the studies, or read them where the same arguments have been drawn before."""
    if not jobs:
        raise InputError("PhantomCXR: no study was asked for; give at least one of train, validation and test above 0.")
    digest = hashlib.sha256(json.dumps({**key, "version": GENERATOR_VERSION}, sort_keys=True).encode()).hexdigest()[:16]
    target = None if cache_folder is None else pathlib.Path(cache_folder) / f"phantom-{digest}"
    if target is not None and target.is_dir():
        return datasets.load_from_disk(str(target))
    studies = dataset_of_rows(_rows(jobs, image_size, seed, settings, progress), PHANTOM_FEATURES)
    check_studies(studies, "PhantomCXR")
    if target is None:
        return studies
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        studies.save_to_disk(str(pathlib.Path(scratch) / "data"))
        try:
            os.replace(pathlib.Path(scratch) / "data", target)
        except OSError:
            if not target.is_dir():  # otherwise somebody else finished the same data set first
                raise
    return datasets.load_from_disk(str(target))
