"""One folder a client, with its pictures: what a hospital's process opens, and nothing else.

``train``, ``validation`` and ``test.safetensors`` with `pixels` and `truth`, ``pictures.json`` with the ids by split,
and ``client.json`` with name, counts, fingerprint and what is asked.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from fedmrg_core.data.client_folders import drawn_share
from fedmrg_core.data.pictures.picture import Picture, Subject
from fedmrg_core.data.site_names import find_sites, path_part
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.federation.roster import Roster, pooled, read_client, roster_of_folders
from fedmrg_core.federation.tensor_folders import TensorBatches
from fedmrg_core.files.tensor_files import read_tensors, write_tensors
from fedmrg_core.files.whole_files import partial_folder, read_json, replace_folder, write_text
from fedmrg_core.runs.configuration import ImageChanges
from fedmrg_core.runs.run_configuration import RunConfiguration
from fedmrg_core.training.augmentation import augmented

IDS, ABOUT, SUMMARY, SUBJECT = "pictures.json", "client.json", "summary.json", "subject.json"


class PictureBatches(TensorBatches):
    """Pictures as batches: `pixels` (B, C, H, W) in [0, 1] and `truth`, float.

    Args:
        tensors: `pixels` and `truth`, uint8.
        size: pictures of a batch.
        changes: made to training pictures at random.
        device: where batches go.
    """

    def __init__(self, tensors: dict[str, Tensor], size: int, changes: ImageChanges, device: torch.device) -> None:
        super().__init__(tensors, size)
        self.changes, self.device = changes, device

    def batch(self, indices: Sequence[int], generator: numpy.random.Generator | None = None) -> dict[str, Tensor]:
        """The pictures at `indices`; with a generator changed at random, a mask as its picture."""
        rows = super().batch(indices)
        pixels, truth = rows["pixels"].float() / 255, rows["truth"].float()
        if generator is not None and truth.dim() == 4:  # only moved, see `check_changes`
            moved = augmented(torch.cat([pixels, truth], dim=1), self.changes, generator)
            pixels, truth = moved[:, : pixels.shape[1]], moved[:, pixels.shape[1] :]
        elif generator is not None:
            pixels = augmented(pixels, self.changes, generator)
        return {"pixels": pixels.to(self.device), "truth": truth.to(self.device)}


def check_changes(changes: ImageChanges, subject: Subject) -> None:
    """Refuse random changes of pictures that their masks cannot follow.

    Raises:
        InputError: pictures with masks are to be turned, stretched or exposed otherwise.
    """
    if subject.kind == "masks" and (changes.image_rotation or changes.image_stretch or changes.image_gamma):
        raise InputError(
            "training.image_rotation, image_stretch and image_gamma are for pictures without masks; set them to 0 "
            "and use image_shift."
        )


def write_pictures(folder: pathlib.Path, site: str, pictures: Sequence[Picture], subject: Subject) -> None:
    """Write the folder of one site, whole or not at all."""
    partial, ids, digest = partial_folder(folder), {}, hashlib.sha256(json.dumps(subject.described()).encode())
    for split in SPLITS:
        part = [picture for picture in pictures if picture.split == split]
        ids[split] = [picture.picture_id for picture in part]
        if part:
            pixels, truth = (numpy.stack([getattr(each, name) for each in part]) for name in ("pixels", "truth"))
            path = partial / f"{split}.safetensors"
            write_tensors(path, {"pixels": torch.from_numpy(pixels), "truth": torch.from_numpy(truth)})
            digest.update(path.read_bytes())
    digest.update(json.dumps(ids).encode())
    counts = {split: len(names) for split, names in ids.items()}
    about = {"name": site, "studies": counts, "fingerprint": digest.hexdigest(), "subject": subject.described()}
    write_text(partial / IDS, json.dumps(ids, ensure_ascii=False) + "\n")
    write_text(partial / ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    replace_folder(partial, folder)


def open_pictures(folder: pathlib.Path, split: str) -> tuple[list[str], dict[str, Tensor]]:
    """Ids and tensors of one split.

    Raises:
        InputError: it is missing, damaged or empty.
    """
    ids = read_json(folder / IDS)[split] if (folder / IDS).is_file() else []
    if not ids:
        raise InputError(f"{folder}: there is no {split} picture; put some into that split.")
    return ids, read_tensors(folder / f"{split}.safetensors")


def used_pictures(folder: pathlib.Path, split: str, share: float, seed: int) -> tuple[list[str], dict[str, Tensor]]:
    """As `open_pictures`; of the training pictures a share, see `drawn_share`: the same in every row of methods."""
    ids, tensors = open_pictures(folder, split)
    if split != "train" or share == 1:
        return ids, tensors
    chosen = drawn_share(len(ids), share, seed, read_client(folder, folder.parent).name)
    return [ids[index] for index in chosen], {name: tensor[chosen] for name, tensor in tensors.items()}


def deal_pictures(run_folder: pathlib.Path, configuration: RunConfiguration) -> Roster:
    """Copy the folders of the sites that train out of the prepared ones, and write what is asked beside the run.

    Args:
        run_folder: the folders of the configuration are relative to it.
        configuration: of the run.

    Returns:
        Who takes part; where the method is centralised "pooled", which holds the folders of all.

    Raises:
        InputError: the prepared pictures are missing, a site is unknown, or clients are to be dealt otherwise.
    """
    source = (run_folder / configuration.prepared).resolve()
    summary = read_summary(source)
    if configuration.partition != "site" or configuration.clients:
        raise InputError(f"partition: {configuration.partition!r}; of pictures each site is a client, expected site.")
    chosen = configuration.unseen_sites
    unseen = summary["unseen"] if chosen is None else find_sites(chosen, summary["pictures"], "unseen")
    folder = (run_folder / configuration.dealt).resolve()
    write_text(run_folder / SUBJECT, json.dumps(summary["subject"], indent=1, ensure_ascii=False) + "\n")
    folders = [_copied(source, folder, site) for site in summary["pictures"] if site not in unseen]
    roster = roster_of_folders(folders, run_folder)
    return pooled(roster) if configuration.method.training == "centralised" else roster


def read_summary(prepared: pathlib.Path) -> dict:
    """What a prepared folder holds.

    Raises:
        InputError: it holds no pictures.
    """
    if not (prepared / SUMMARY).is_file():
        raise InputError(f"{prepared / SUMMARY} does not exist; prepare the pictures with notebook 12b.")
    return read_json(prepared / SUMMARY)


def _copied(source: pathlib.Path, folder: pathlib.Path, site: str) -> pathlib.Path:
    place = folder / path_part(site)
    given = read_client(source / path_part(site), source)
    if not read_json(source / path_part(site) / ABOUT)["studies"]["train"]:
        raise InputError(f"site {site!r} has no train picture; give it some, or hold it out with unseen.")
    if (place / ABOUT).is_file() and read_client(place, folder).fingerprint == given.fingerprint:
        return place
    partial = partial_folder(place)
    shutil.copytree(source / path_part(site), partial, dirs_exist_ok=True)
    replace_folder(partial, place)
    return place
