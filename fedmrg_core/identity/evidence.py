"""The evidence of a run: a digest of every file, kept on the chain, and one bundle that can be checked anywhere.

What is private stays out: a bundle holds tables, signed statements and the chain, and of models, studies and hospitals'
folders their digests alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import zipfile

from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import atomic_file, write_text
from fedmrg_core.identity.book import TRANSACTIONS, transactions_text
from fedmrg_core.identity.contract import COMPILED, SOURCE
from fedmrg_core.identity.embedded import BLOCKS, GENESIS
from fedmrg_core.identity.keys import SIGNING, public_bytes, read_signing_key
from fedmrg_core.identity.members import (
    CHAIN,
    COORDINATOR,
    FOLDER,
    KEYS,
    MEMBERS,
    identity_folder,
    keys_folder,
    open_registry,
    read_members,
)
from fedmrg_core.identity.records import GAS, ROUNDS, TABLE, TIMING

EVIDENCE, BUNDLE, SIGNATURE = "evidence.json", "evidence.zip", "signature.json"
# What a bundle holds beside identity/: tables without a word of a study.
TABLES = (
    "config.yaml", "manifest.json", "clients.json", "rounds.csv", "ledger.csv", "finish.csv", "timing.csv", TABLE, GAS,
    TIMING,
)  # fmt: skip
_NEVER = (f"{FOLDER}/{KEYS}/", f"{FOLDER}/{CHAIN}/", f"{FOLDER}/{EVIDENCE}", f"{FOLDER}/{BUNDLE}", ".flower/")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # a bundle's bytes do not depend on when it is made


def seal(run_folder: pathlib.Path) -> None:
    """Write the digest of every file of a run that is over, and the digest of that to the chain; again: nothing.

    Raises:
        InputError, ChainUnavailable: the chain is not what it has to be, or does not answer.
    """
    registry, members = open_registry(run_folder, COORDINATOR), read_members(run_folder)
    if any(registry.run(members.run_bytes).evidence):
        return
    content = {"run": members.run, "files": {name: file_digest(run_folder / name) for name in files_of(run_folder)}}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_text(identity_folder(run_folder) / EVIDENCE, text)
    registry.seal(members.run_bytes, hashlib.sha256(text.encode()).hexdigest())


def files_of(run_folder: pathlib.Path) -> list[str]:
    """Every file of a run, but keys, what the chain proves by itself, and locks."""
    names = sorted(path.relative_to(run_folder).as_posix() for path in run_folder.rglob("*") if path.is_file())
    return [name for name in names if not name.startswith(_NEVER) and not name.endswith((".lock", ".partial"))]


def file_digest(path: pathlib.Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bundle(run_folder: pathlib.Path) -> pathlib.Path:
    """Write identity/evidence.zip, signed with the server's key.

    Raises:
        InputError: the key is not here.
    """
    contents = {name: (run_folder / name).read_bytes() for name in TABLES if (run_folder / name).exists()}
    folder = identity_folder(run_folder)
    known = [path for path in (folder / MEMBERS, folder / EVIDENCE) if path.exists()]
    for path in [*known, *sorted((folder / ROUNDS).glob("*.json"))]:
        contents[path.relative_to(run_folder).as_posix()] = path.read_bytes()
    # The embedded chain is carried out again wherever its file is; of a node's, what concerns this contract goes along.
    own = [folder / CHAIN / GENESIS, folder / CHAIN / BLOCKS]
    if own[0].exists():
        contents |= {path.relative_to(run_folder).as_posix(): path.read_bytes() for path in own}
    else:
        contents[f"{FOLDER}/{CHAIN}/{TRANSACTIONS}"] = transactions_text(run_folder).encode()
    contents |= {path.name: path.read_bytes() for path in (SOURCE, COMPILED)}
    key, listing = read_signing_key(keys_folder(run_folder, COORDINATOR) / SIGNING), listing_of(contents)
    signed = {"public_key": public_bytes(key).hex(), "signature": key.sign(listing).hex()}
    contents[SIGNATURE] = (json.dumps(signed, indent=1) + "\n").encode()
    with atomic_file(folder / BUNDLE) as temporary:
        temporary.write_bytes(zipped(contents))
    return folder / BUNDLE


def listing_of(contents: dict[str, bytes]) -> bytes:
    """What a bundle's signature is of: the digest and the name of every file in it but the signature's own."""
    lines = [f"{hashlib.sha256(contents[name]).hexdigest()} {name}" for name in sorted(contents) if name != SIGNATURE]
    return "\n".join(["FedMRG evidence 1", *lines]).encode()


def zipped(contents: dict[str, bytes]) -> bytes:
    """A zip archive, not compressed, whose bytes follow from its files alone."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as made:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.create_system = 3  # whatever system this is
            made.writestr(entry, contents[name])
    return archive.getvalue()


def unzipped(path: pathlib.Path) -> dict[str, bytes]:
    """The files of a bundle.

    Raises:
        InputError: it is no bundle, or its bytes are not those that its files make.
    """
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as error:
        raise InputError(f"{path}: not a bundle of evidence, or it was changed ({error}).") from error
    if zipped(contents) != content:
        raise InputError(f"{path}: the archive was changed; expected the bytes that fedmrg audit wrote.")
    return contents
