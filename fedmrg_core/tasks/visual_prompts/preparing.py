"""Before a run: the pictures of a data set with their splits, and the small frozen model, each made once."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import pandas

from fedmrg_core.data.pictures.picture import LoadedPictures, Subject, by_site, check_pictures
from fedmrg_core.data.site_names import find_sites, path_part, read_sites
from fedmrg_core.data.sources import VISUAL_PROMPTS, call_loader, check_data_parameters, data_source
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.files.described_folders import copy_described, read_description
from fedmrg_core.files.stored_tables import table_text
from fedmrg_core.files.whole_files import partial_folder, read_json, replace_folder, write_text
from fedmrg_core.paths import STORED_BASE_MODELS
from fedmrg_core.runs.configuration import Pictures, Profile
from fedmrg_core.tasks.visual_prompts.base_model import (
    SAM_TASK,
    VIT_TASK,
    pretrain_sam,
    pretrain_vit,
    save_base_model,
)
from fedmrg_core.tasks.visual_prompts.client_pictures import ABOUT, SUMMARY, read_summary, write_pictures
from fedmrg_core.tasks.visual_prompts.task import built_name

DATA_SEED = 0  # the same pictures, and one way to split, for all seeds of a run: they differ in training alone
LEFT_OUT = "left_out.csv"
# The numbers of the profile that a small frozen model is made of.
SIZES = {"vit": ("width", "layers", "patch"), "sam": ("width", "layers", "patch", "window", "decoder_width")}


def prepare_pictures(
    folder: pathlib.Path, data: str, profile: Profile, data_root: str = "", options: str = "{}"
) -> dict[str, Any]:
    """Read or draw a data set's pictures and write a folder a site, unless the folder holds these.

    Args:
        folder: becomes the prepared folder: a folder a site, summary.json, and left_out.csv with a reason for each.
        data: a data set of this task.
        profile: size of the pictures, and their counts in the embedded data.
        data_root: the folder of a public set.
        options: the loader's own, as JSON or YAML.

    Returns:
        The summary: what is asked, pictures by site and split, unseen sites, notes.

    Raises:
        InputError: the parameters do not fit, or whatever the loader finds in the files.
    """
    given = check_data_parameters(data, data_root, options, VISUAL_PROMPTS)
    source, counts = data_source(data), profile.phantom.model_dump()
    request = {"data": data, "version": source.version, "image_size": profile.image_size, "options": given}
    request |= {"root": pathlib.Path(data_root).name} if data_root else {"counts": counts}
    if not data_root and (folder / SUMMARY).is_file():
        there = read_json(folder / SUMMARY)
        if {key: there.get(key) for key in request} == request:
            return there
    own = {key: value for key, value in given.items() if key != "unseen"}
    loaded = call_loader(data, data_root or None, profile.image_size, DATA_SEED, **(own if data_root else counts))
    sites = by_site(loaded.pictures)
    unseen = find_sites(read_sites(given.get("unseen", list(source.unseen_sites))), sites, "unseen")
    check_pictures(loaded, data, unseen)
    summary = {**request, "synthetic": source.synthetic, "unseen": unseen, **_summary(loaded)}
    partial = partial_folder(folder)
    for site, pictures in sites.items():
        write_pictures(partial / path_part(site), site, pictures, loaded.subject)
    left_out = pandas.DataFrame(
        [dataclasses.asdict(row) for row in loaded.left_out], columns=["study_id", "item", "reason"]
    )
    write_text(partial / LEFT_OUT, table_text(left_out))
    write_text(partial / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    if content_of(partial) == content_of(folder):  # another run may be reading it
        shutil.rmtree(partial)
    else:
        replace_folder(partial, folder)
    return summary


def content_of(folder: pathlib.Path) -> dict[str, bytes]:
    """The small files of a prepared folder: they name its pictures, and hold a fingerprint of each site's."""
    paths = [*folder.glob("*.*"), *folder.glob(f"*/{ABOUT}")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def _summary(loaded: LoadedPictures) -> dict[str, Any]:
    counts = {
        site: {split: sum(picture.split == split for picture in pictures) for split in SPLITS}
        for site, pictures in by_site(loaded.pictures).items()
    }
    return {
        "subject": loaded.subject.described(), "left_out": len(loaded.left_out), "notes": loaded.notes,
        "pictures": counts,
    }  # fmt: skip


def prepare_base_model(
    folder: pathlib.Path,
    prepared: pathlib.Path,
    data: str,
    profile: Profile,
    choice: str = "stored",
    progress: bool = True,
) -> dict[str, Any]:
    """Take or pretrain the small frozen model, unless the folder holds it, or the profile names another.

    Args:
        folder: of the base models: becomes its `vit` or `sam`.
        prepared: the prepared folder, which says what is asked.
        data: a data set of this task.
        profile: names a backbone, or has the sizes of the one to build.
        choice: stored: the one that the repository has of this profile, if it has one; fresh: built here.
        progress: show a bar.

    Returns:
        What it was made from, with the training loss of the last steps; of a named one its name.

    Raises:
        InputError: the choice is unknown.
    """
    if choice not in ("stored", "fresh"):
        raise InputError(f"base_models is {choice!r}; expected stored or fresh.")
    sizes, numbers = profile.base_models, profile.pictures or Pictures()
    if sizes.backbone is not None:
        return {"backbone": sizes.backbone}
    name = built_name(Subject.read(read_summary(prepared)["subject"]))
    wanted = _wanted(name, profile, data)
    for place in (folder, STORED_BASE_MODELS / profile.name / data):
        made_from = read_description(place) or {}
        if {key: made_from.get(key) for key in wanted} == wanted and (place == folder or choice == "stored"):
            if place != folder:
                copy_described(place, folder)
            return made_from
    pretrain = pretrain_sam if name == "sam" else pretrain_vit
    model, losses = pretrain(sizes, numbers, profile.image_size, DATA_SEED, progress)
    last = losses[-50:]
    description = {**wanted, "loss": round(sum(last) / max(len(last), 1), 4)}
    save_base_model(folder, name, model, description)
    return description


def _wanted(name: str, profile: Profile, data: str) -> dict[str, Any]:
    """What a small frozen model of this profile is made from."""
    sizes, numbers = profile.base_models, profile.pictures or Pictures()
    pretraining = ("public_studies", "backbone_steps", "pretraining_batch_size", "pretraining_learning_rate")
    return {
        "model": name,
        "task": SAM_TASK if name == "sam" else VIT_TASK,
        "numbers": {key: getattr(numbers, key) for key in SIZES[name]},
        "pretraining": {key: getattr(sizes, key) for key in pretraining},
        "image_size": profile.image_size,
        "version": data_source(data).version,
    }
