"""Who takes part: clients.json in the run folder, the server's only knowledge of who there is.

On one machine dealing writes it. In a real federation whoever runs the server does, from the ``client.json`` that each
hospital hands over. What a hospital then says of itself is held against it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import read_json, write_text

ROSTER = "clients.json"
# The one client of a method with `training: centralised`; no site is called so, see `site_names.RESERVED`.
POOLED = "pooled"


@dataclasses.dataclass(frozen=True)
class Client:
    """One client.

    Attributes:
        name: as tables have it.
        train: number of its training studies.
        fingerprint: of its studies.
        folders: where they lie on its own machine, relative to the run folder there; the server does not look there.
    """

    name: str
    train: int
    fingerprint: str
    folders: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Roster:
    """The clients of a run, and hashes of all their data together.

    Attributes:
        clients: sorted by name; partition k of Flower is the k-th.
        fingerprints: ``data`` and ``data_version``, for checkpoints and the manifest.
    """

    clients: tuple[Client, ...]
    fingerprints: Mapping[str, str]

    def __post_init__(self) -> None:
        for name, count in Counter(client.name for client in self.clients).items():
            if count > 1:
                raise InputError(f"{ROSTER}: client {name!r} stands twice; every client needs a name of its own.")
        object.__setattr__(self, "clients", tuple(sorted(self.clients, key=lambda client: client.name)))

    @property
    def names(self) -> tuple[str, ...]:
        """The clients' names, sorted."""
        return tuple(client.name for client in self.clients)

    def get(self, name: str) -> Client | None:
        """The client of a name."""
        return next((client for client in self.clients if client.name == name), None)


def write_roster(run_folder: pathlib.Path, roster: Roster) -> None:
    """Write clients.json."""
    content = {"clients": [dataclasses.asdict(client) for client in roster.clients], **roster.fingerprints}
    write_text(run_folder / ROSTER, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_roster(run_folder: pathlib.Path) -> Roster:
    """Read clients.json.

    Raises:
        InputError: it is missing, damaged, or a client stands in it twice.
    """
    path = run_folder / ROSTER
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; it names the clients: deal the data, or write it with fedmrg federation clients."
        )
    state = path.stat()
    return _read_roster(path, (state.st_ino, state.st_mtime_ns, state.st_size))


# Every message asks for it, and among a thousand clients reading it would be most of a round.
@functools.lru_cache(maxsize=4)
def _read_roster(path: pathlib.Path, _state: tuple[int, ...]) -> Roster:
    content: dict[str, Any] = read_json(path)
    try:
        rows = [{**row, "folders": tuple(row.get("folders", ()))} for row in content.pop("clients")]
        return Roster(tuple(Client(**row) for row in rows), content)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a list of clients ({error}); write it again with fedmrg federation clients."
        ) from error


def read_client(folder: pathlib.Path, run_folder: pathlib.Path) -> Client:
    """What a hospital says of itself, from the ``client.json`` in its client folder.

    Raises:
        InputError: it is missing or lacks a name, its counts or its fingerprint.
    """
    client = _described(folder / "client.json")
    return dataclasses.replace(client, folders=relative_folders(run_folder, [folder]))


def roster_of(descriptions: Sequence[pathlib.Path]) -> Roster:
    """The roster of hospitals that have each handed over their ``client.json``.

    Raises:
        InputError: a file is missing or wrong, two name the same client, or there are fewer than two.
    """
    clients = sorted(map(_described, descriptions), key=lambda client: client.name)
    if len(clients) < 2:
        raise InputError(f"{len(clients)} client.json was given; a federation needs at least 2 hospitals.")
    return roster_of_clients(clients)


def roster_of_folders(folders: Sequence[pathlib.Path], run_folder: pathlib.Path) -> Roster:
    """The roster of client folders on one machine.

    Raises:
        InputError: as `read_client`.
    """
    clients = [read_client(folder, run_folder) for folder in folders]
    return roster_of_clients(sorted(clients, key=lambda client: client.name))


def roster_of_clients(clients: Sequence[Client]) -> Roster:
    """The roster of clients sorted by name, with a hash of all their data together."""
    together = hashlib.sha256("\n".join(f"{client.name} {client.fingerprint}" for client in clients).encode())
    return Roster(tuple(clients), {"data": together.hexdigest()})


def pooled(roster: Roster) -> Roster:
    """One client in place of all, with the folders of each in the order of their names."""
    together = Client(
        POOLED,
        train=sum(client.train for client in roster.clients),
        fingerprint="+".join(client.fingerprint for client in roster.clients),
        folders=tuple(folder for client in roster.clients for folder in client.folders),
    )
    return Roster((together,), roster.fingerprints)


def _described(path: pathlib.Path) -> Client:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Client(str(content["name"]), int(content["studies"]["train"]), str(content["fingerprint"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a client's description ({error}); make it with fedmrg federation client-folder."
        ) from error


def relative_folders(run_folder: pathlib.Path, folders: Sequence[pathlib.Path]) -> tuple[str, ...]:
    """Folders as clients.json has them."""
    root = run_folder.resolve()
    return tuple(pathlib.PurePath(os.path.relpath(folder.resolve(), root)).as_posix() for folder in folders)
