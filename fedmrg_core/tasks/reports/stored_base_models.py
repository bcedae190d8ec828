"""Small base models that the repository holds, so that a first run need not build them [ours].

``profiles/base_models/<profile>/<corpus>/`` holds what notebook 05 has built once, and `manifest.json`: from which
numbers, seed and corpus, with which commit, packages and arithmetic, by which command, and a sha256 of every file.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from fedmrg_core.data.publishing import shows_studies
from fedmrg_core.data.sources import DATA_SOURCES, corpus_name, data_source
from fedmrg_core.errors import InputError
from fedmrg_core.files.code_state import source_state
from fedmrg_core.files.whole_files import partial_folder, remove_partial, replace_folder, write_text
from fedmrg_core.paths import STORED_BASE_MODELS
from fedmrg_core.runs.arithmetic import arithmetic_of
from fedmrg_core.runs.configuration import BaseModels
from fedmrg_core.runs.run_folder import installed_packages

MANIFEST, DESCRIPTION = "manifest.json", "description.json"
FORMAT = 1  # raise it whenever the layout of a stored folder or the meaning of an entry changes
CHOICES = ("stored", "fresh")
FRESH = "build them with BASE_MODELS=fresh (of notebook 05: -p base_models=fresh)"
_PACKAGES = ("numpy", "tokenizers", "torch", "transformers")


def stored_models(profile: str, data: str, root: pathlib.Path = STORED_BASE_MODELS) -> pathlib.Path | None:
    """The stored base models of a profile for a data set; None if there are none.

    Args:
        profile: the profile's name.
        data: name of the data set; those with the same public corpus share base models.
        root: where they are stored.
    """
    folder = root / profile / _owner_of_corpus(data)
    return folder if folder.is_dir() else None


def choose_models(choice: str, profile: str, data: str, root: pathlib.Path = STORED_BASE_MODELS) -> pathlib.Path | None:
    """The stored base models to take, or None: build them.

    Raises:
        InputError: the choice is neither "stored" nor "fresh".
    """
    if choice not in CHOICES:
        raise InputError(f"base_models is {choice!r}; expected one of {', '.join(CHOICES)}.")
    return stored_models(profile, data, root) if choice == "stored" else None


def _owner_of_corpus(data: str) -> str:
    """The data set whose public corpus it is: a folder of a user's learns from the phantom's."""
    source = data_source(data)
    if source.corpus_needs_root:
        return corpus_name(data)
    return next(name for name, other in DATA_SOURCES.items() if other.public_corpus == source.public_corpus)


def _corpus_version(data: str) -> str:
    return DATA_SOURCES[_owner_of_corpus(data)].version


def take_stored_models(stored: pathlib.Path, folder: pathlib.Path, sizes: BaseModels, data: str, seed: int) -> None:
    """Copy stored base models to where runs look for them, whole or not at all.

    Args:
        stored: of :func:`stored_models`.
        folder: of :func:`fedmrg_core.paths.base_models_folder`; what was there is replaced.
        sizes: what the profile says of base models.
        data: name of the data set.
        seed: root seed.

    Raises:
        InputError: their manifest is missing or of another format, they were made from other numbers, seed or corpus,
            or a file is not the one that the manifest names.
    """
    manifest = _checked_manifest(stored, sizes, data, seed)
    if _is_copy(folder, stored) and not _changed_files(folder, manifest):
        return
    if changed := _changed_files(stored, manifest):
        raise InputError(
            f"{stored / changed[0]} is not the file that {MANIFEST} names; restore it from the repository or {FRESH}."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(folder.parent)
    partial = partial_folder(folder)
    shutil.copytree(stored, partial, dirs_exist_ok=True)
    replace_folder(partial, folder)


def _is_copy(folder: pathlib.Path, stored: pathlib.Path) -> bool:
    copy = folder / MANIFEST
    return copy.is_file() and copy.read_bytes() == (stored / MANIFEST).read_bytes()


def is_built_here(folder: pathlib.Path) -> bool:
    """Whether base models in `folder` were built on this machine, and not copied from the repository."""
    manifest = folder / MANIFEST
    return not (manifest.is_file() and "files" in json.loads(manifest.read_text(encoding="utf-8")))


def _checked_manifest(stored: pathlib.Path, sizes: BaseModels, data: str, seed: int) -> dict[str, Any]:
    path = stored / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, made_from = manifest["format"], manifest["description"]
        there = {**made_from["profile"], "seed": made_from["seed"], "version of the corpus": manifest["corpus_version"]}
        files = dict(manifest["files"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no manifest of base models ({error!r}); restore it or {FRESH}.") from None
    if version != FORMAT:
        raise InputError(f"{path} has format {version}; this code reads format {FORMAT}: {FRESH}.")
    here = {**sizes.model_dump(mode="json"), "seed": seed, "version of the corpus": _corpus_version(data)}
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise InputError(
                f"{stored}: the stored base models were made with {name} {there.get(name)}, this run asks for "
                f"{here.get(name)}; {FRESH}."
            )
    return {**manifest, "files": files}


def _changed_files(folder: pathlib.Path, manifest: Mapping[str, Any]) -> list[str]:
    there, named = _digests(folder), manifest["files"]
    return sorted(name for name in there.keys() | named.keys() if there.get(name) != named.get(name))


def _digests(folder: pathlib.Path) -> dict[str, str]:
    """sha256 of every file but the manifest, by its path in the folder."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        with path.open("rb") as content:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(content, "sha256").hexdigest()
    return found


def write_making(folder: pathlib.Path, data: str, command: str, **further: Any) -> None:
    """Write how base models were made beside them, in `manifest.json`.

    Args:
        folder: with the models and their description.json.
        data: name of the data set.
        command: makes them again.
        further: plain values of the caller.
    """
    versions = installed_packages()
    manifest = {
        "format": FORMAT,
        "description": json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")),
        "corpus_version": _corpus_version(data),
        "command": command,
        **source_state(),
        "arithmetic": arithmetic_of(),
        "packages": {name: versions.get(name) for name in _PACKAGES},
        **further,
    }
    _write_manifest(folder, manifest)


def store_base_models(
    built: pathlib.Path, profile: str, data: str, root: pathlib.Path = STORED_BASE_MODELS
) -> pathlib.Path:
    """Keep base models that notebook 05 has built in the repository.

    Args:
        built: their folder, e.g. ``base_models/smoke/phantom``.
        profile: the profile's name.
        data: name of the data set.
        root: where they are stored.

    Returns:
        Their folder; what was there is replaced whole.

    Raises:
        InputError: they are not there, were taken from the repository themselves, their code was not committed, or they
            have read reports that must not be published.
    """
    owner = _owner_of_corpus(data)
    if not shows_studies(owner):
        raise InputError(
            f"{built}: its models have learnt reports of {owner!r} by heart, which must not be published; leave them."
        )
    try:
        manifest = json.loads((built / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{built} holds no base models ({error}); run notebook 05_base_models first.") from None
    if "files" in manifest:
        raise InputError(f"{built} holds the stored base models themselves; {FRESH}.")
    if manifest.get("uncommitted_changes") or not manifest.get("commit"):
        raise InputError(f"{built}: made with uncommitted changes, or outside a git clone; commit and make them again.")
    target = root / profile / owner
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(target.parent)
    partial = partial_folder(target)
    shutil.copytree(built, partial, dirs_exist_ok=True)
    _write_manifest(partial, {**manifest, "files": _digests(partial)})
    replace_folder(partial, target)
    return target


def _write_manifest(folder: pathlib.Path, manifest: Mapping[str, Any]) -> None:
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
