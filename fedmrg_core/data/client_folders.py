"""One folder a client: what a hospital's process opens, and nothing else.

A client folder holds ``train/``, ``validation/`` and ``test/`` (studies as `datasets` folders, memory-mapped) and
``client.json``: the client's name, what it was made from, its counts and a fingerprint. Dealing (`dealing`) writes
them for every partition; a hospital of a real federation brings one of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import datasets

from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError
from fedmrg_core.seeds import numpy_stream

DESCRIPTION = "client.json"
KEYS = ("name", "data", "data_version", "image_size", "studies", "fingerprint")


@dataclasses.dataclass(frozen=True)
class ClientFolder:
    """A client's studies on disk.

    Attributes:
        path: the folder.
        name: of the client.
        data: name of the data set it was made from.
        data_version: of that data source.
        image_size: height and width of the images in pixels.
        studies: split -> count.
        fingerprint: equal fingerprints, equal studies in the same splits.
    """

    path: pathlib.Path
    name: str
    data: str
    data_version: str
    image_size: int
    studies: Mapping[str, int]
    fingerprint: str

    def split(self, split: str) -> datasets.Dataset:
        """The studies of one split.

        Raises:
            InputError: there are none, or they cannot be read.
        """
        if not self.studies.get(split):
            raise InputError(f"{self.path}: client {self.name!r} has no {split} study; put some into that split.")
        try:
            return datasets.load_from_disk(str(self.path / split))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.path / split}: its studies cannot be read ({error}); deal the data again."
            ) from error

    def used(self, split: str, training_share: float, seed: int) -> datasets.Dataset:
        """The studies of a split that a run uses: of its training studies a share, of the others all.

        They are drawn once for a seed and client, so that a smaller share is a part of a larger one, and stand in the
        folder's order.

        Args:
            split: "train", "validation" or "test".
            training_share: above 0, at most 1; the number of studies is rounded up.
            seed: root seed.

        Raises:
            InputError: see `split`.
        """
        studies = self.split(split)
        if split != "train" or training_share == 1:
            return studies
        return studies.select(drawn_share(len(studies), training_share, seed, self.name))

    def check(self, data: str, image_size: int) -> None:
        """Hold the folder against the run that is to use it.

        Raises:
            InputError: other data, other images, or nothing to train on.
        """
        if self.data != data:
            raise InputError(f"{self.path}: its studies are of {self.data!r} and the run is of {data!r}; give its own.")
        if self.image_size != image_size:
            raise InputError(
                f"{self.path}: its images are {self.image_size} pixels wide and the profile asks for image_size "
                f"{image_size}; prepare the data with this profile (notebook 01)."
            )
        for split in ("train", "validation"):  # what every round opens
            self.split(split)


def drawn_share(count: int, share: float, seed: int, client: str) -> list[int]:
    """Which of so many training examples a client uses: drawn once for a seed and client, in the folder's order.

    A smaller share is a part of a larger one; their number is rounded up.
    """
    used = max(math.ceil(share * count - 1e-9), 1)  # 0.07 * 100 is a little more than 7
    return sorted(numpy_stream(seed, "study share", client).permutation(count)[:used].tolist())


def write_client_folder(
    path: pathlib.Path, name: str, splits: Mapping[str, datasets.Dataset], about: Mapping[str, Any], origin: str
) -> ClientFolder:
    """Write one client's studies; whoever calls moves the folder into place.

    Args:
        path: an empty or missing folder.
        name: of the client.
        splits: split -> studies by the Study schema.
        about: ``data``, ``data_version`` and ``image_size``.
        origin: fingerprint of the prepared studies they are taken from.
    """
    path.mkdir(parents=True, exist_ok=True)
    held = {split: studies for split, studies in splits.items() if len(studies)}
    digest = hashlib.sha256(origin.encode())
    for split in SPLITS:
        if split in held:
            with _without_bars():
                held[split].save_to_disk(str(path / split))
            digest.update(json.dumps([split, list(held[split]["study_id"])]).encode())
    counts = {split: len(held.get(split, ())) for split in SPLITS}
    content = {"name": name, **about, "studies": counts, "fingerprint": digest.hexdigest()}
    text = json.dumps({key: content[key] for key in KEYS}, indent=1, ensure_ascii=False)
    (path / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    return ClientFolder(path, **content)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Silence of `datasets`, which shows a bar for every folder it writes."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


@functools.lru_cache(maxsize=256)
def _described(path: pathlib.Path, modified: int) -> dict[str, Any]:
    content = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or set(content) != set(KEYS) or not isinstance(content["studies"], dict):
        raise ValueError(f"expected the keys {', '.join(KEYS)}")
    return content


def open_client_folder(path: pathlib.Path) -> ClientFolder:
    """Open a client folder; its studies are read when they are asked for.

    Raises:
        InputError: it is none, or its description is damaged.
    """
    try:
        return ClientFolder(path, **_described(path, (path / DESCRIPTION).stat().st_mtime_ns))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a client folder ({error}); make one with: fedmrg federation client-folder --help"
        ) from error
