"""Dealing: the step before a federation that gives every client a folder of its own.

It is the last step that sees the studies of more than one client. A dealt folder holds ``clients/<client>/``,
``unseen/<site>/`` (sites that never train: their test studies, and as ``train`` those for adaptation) and
``dealing.json``, which says what was dealt how.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import filelock

from fedmrg_core.data.client_folders import ClientFolder, open_client_folder, write_client_folder
from fedmrg_core.data.partition import Partition
from fedmrg_core.data.partition.parts import split_of
from fedmrg_core.data.prepared import Prepared
from fedmrg_core.data.site_names import path_part
from fedmrg_core.data.study import SPLITS
from fedmrg_core.errors import InputError

DEALING, CLIENTS, UNSEEN = "dealing.json", "clients", "unseen"
FORMAT = 1  # raise it whenever the layout of a dealt folder changes


@dataclasses.dataclass(frozen=True)
class Dealt:
    """A dealt folder.

    Attributes:
        clients: client -> its folder, in the order of the names.
        unseen: site that never trains -> its folder, in the order of the names.
        fingerprint: of the prepared studies.
        data_version: of their source.
        request: what was asked for.
    """

    clients: dict[str, ClientFolder]
    unseen: dict[str, ClientFolder]
    fingerprint: str
    data_version: str
    request: dict[str, Any]


def deal(
    prepared: Prepared,
    folder: pathlib.Path,
    partition: str,
    clients: int | None,
    seed: int,
    unseen_sites: Sequence[str] | None = None,
) -> Dealt:
    """Write every client's folder, or take those that are there if they were dealt from the same data in the same way.

    Args:
        prepared: the studies of all sites.
        folder: where the dealt folders go.
        partition: see `fedmrg_core.data.partition.partition_clients`, like those that follow.
        clients: how many.
        seed: root seed.
        unseen_sites: sites that never train; None: those the data were prepared with.

    Raises:
        InputError: the studies cannot be dealt so, or `folder` holds something else.
    """
    held_out = sorted(prepared.unseen_sites if unseen_sites is None else unseen_sites)
    request = dealing_request(partition, clients, seed, held_out) | {"fingerprint": prepared.fingerprint}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder.with_name(f".{folder.name}.lock")):  # runs that deal alike may begin together
        if _stored_request(folder) != request:
            _write(folder, prepared.deal(partition, clients, seed, unseen_sites), prepared.summary, request)
    return open_dealt(folder)


def deal_whole(prepared: Prepared, folder: pathlib.Path, client: str) -> ClientFolder:
    """The client folder of a hospital that takes part alone with all it has prepared.

    Args:
        prepared: the hospital's own studies.
        folder: becomes the client folder.
        client: the hospital's name in the federation.

    Raises:
        InputError: `folder` is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty; give another folder for client {client!r}.")
    splits = {name: split_of(prepared.studies, name) for name in SPLITS}
    return write_client_folder(folder, client, splits, _about(prepared.summary), prepared.fingerprint)


def open_dealt(folder: pathlib.Path) -> Dealt:
    """Open a dealt folder.

    Raises:
        InputError: it is missing or damaged, or two of its folders name the same client.
    """
    request = _stored_request(folder)
    if request is None:
        raise InputError(f"{folder} holds no dealt studies; deal the prepared data first (notebook 06 does).")
    by_name = [_by_name(folder / kind) for kind in (CLIENTS, UNSEEN)]
    version = next(iter(by_name[0].values())).data_version if by_name[0] else "None"
    return Dealt(*by_name, request["fingerprint"], version, request)


def dealing_request(partition: str, clients: int | None, seed: int, unseen_sites: Sequence[str]) -> dict[str, Any]:
    """What a dealing was asked for, as dealing.json holds it beside the fingerprint of the data."""
    return {
        "partition": partition,
        "clients": clients,
        "seed": None if partition == "site" else seed,  # nothing is drawn for it
        "unseen_sites": sorted(unseen_sites),
        "format": FORMAT,
    }


def _write(folder: pathlib.Path, partition: Partition, summary: Mapping[str, Any], request: dict[str, Any]) -> None:
    if folder.exists() and any(folder.iterdir()) and _stored_request(folder) is None:
        raise InputError(f"{folder} holds something else than dealt studies; give another folder or empty it.")
    about, origin = _about(summary), request["fingerprint"]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = pathlib.Path(scratch) / "fresh"
        for name, own in partition.clients.items():
            splits = {split: getattr(own, split) for split in SPLITS}
            write_client_folder(fresh / CLIENTS / path_part(name), name, splits, about, origin)
        for name, test in partition.unseen.items():
            splits = {"train": partition.adaptation[name], "test": test}
            write_client_folder(fresh / UNSEEN / path_part(name), name, splits, about, origin)
        (fresh / DEALING).write_text(json.dumps(request, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if folder.exists():
            os.replace(folder, pathlib.Path(scratch) / "old")
        os.replace(fresh, folder)


def _about(summary: Mapping[str, Any]) -> dict[str, Any]:
    version = str(summary.get("version"))
    return {"data": summary["data"], "data_version": version, "image_size": summary["image_size"]}


def _stored_request(folder: pathlib.Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / DEALING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "fingerprint" in content else None


def _by_name(folder: pathlib.Path) -> dict[str, ClientFolder]:
    found: dict[str, ClientFolder] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        client = open_client_folder(path)
        if client.name in found:
            raise InputError(f"{path} and {found[client.name].path} both name client {client.name!r}; rename one.")
        found[client.name] = client
    return {name: found[name] for name in sorted(found)}
