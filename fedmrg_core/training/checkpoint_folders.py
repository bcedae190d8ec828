"""What lies in a checkpoint's folder, looked at before it is loaded: what is no model is named in one sentence."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
from collections.abc import Iterable

import huggingface_hub
import safetensors

from fedmrg_core.errors import InputError

EXPECTED = "expected a model saved by save_pretrained"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
LFS_POINTER = b"version https://git-lfs"  # how the stand-in of a file that git-lfs has not fetched begins


def check_folder(name: str | pathlib.Path, what: str, weights: bool = True) -> None:
    """Refuse what holds no whole model, before anything is read into memory.

    A hub name is looked at in the local cache as far as it lies there; what is not there transformers may fetch.

    Args:
        name: folder, or name of a hub model.
        what: what the sentence calls it.
        weights: it has to hold weights, not only a configuration or a tokenizer.

    Raises:
        InputError: it is nowhere, a file, an adapter or a run's trained model; or a file in it is missing, cut off or
            not fetched.
    """
    path = pathlib.Path(name)
    if path.is_file():
        raise InputError(f"{what}: {name} is a file; {EXPECTED}, named by its folder.")
    cached = None if path.is_dir() else _cached(str(name))
    folder = path if path.is_dir() else cached
    if folder is None:
        _check_name(str(name), what)
        return
    _check_kind(folder, name, what)
    if path.is_dir():
        _check_complete(path, what, weights)
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        _check_file(file, what)


def _cached(name: str) -> pathlib.Path | None:
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        return None


def _check_name(name: str, what: str) -> None:
    if HUB_NAME.fullmatch(name) and not huggingface_hub.constants.HF_HUB_OFFLINE:
        return
    raise InputError(
        f"{what}: {name} is neither a folder here nor a model in the local cache; expected the path of a folder, or "
        "the name of a hub model that has been downloaded."
    )


def _check_kind(folder: pathlib.Path, name: str | pathlib.Path, what: str) -> None:
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        try:
            base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        except (ValueError, AttributeError):
            base = None
        adapted = f"of {base} " if base else ""
        raise InputError(
            f"{what}: {name} holds an adapter {adapted}(adapter_config.json); expected the model itself, without it or "
            "with the adapter merged into its weights."
        )
    for place in (folder, folder / "model"):
        if (place / "shared.safetensors").is_file():
            raise InputError(
                f"{what}: {name} holds what a run of this project trained (shared.safetensors); {EXPECTED}, the one "
                "that the run started from."
            )


def _check_complete(folder: pathlib.Path, what: str, weights: bool) -> None:
    if weights and not list(folder.glob("*.safetensors")):
        raise InputError(f"{what}: folder {folder} holds no .safetensors weights; {EXPECTED}.")
    if weights and not (folder / "config.json").is_file():
        inside = ", ".join(sorted(path.parent.name for path in folder.glob("*/config.json")))
        hint = f", perhaps one of its folders {inside}" if inside else ""
        raise InputError(f"{what}: folder {folder} holds no config.json; {EXPECTED}{hint}.")


def _check_file(file: pathlib.Path, what: str) -> None:
    with file.open("rb") as content:
        start = content.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise InputError(
            f"{what}: {file} is a pointer of git-lfs and not the file itself; fetch it with `git lfs pull`."
        )
    if file.suffix not in (".safetensors", ".json"):
        return
    if not start:
        raise InputError(f"{what}: {file} is empty; fetch it again.")
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        else:
            with safetensors.safe_open(file, "pt"):  # reads the header, and holds it against the file's length
                pass
    except (ValueError, OSError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{what}: {file} is cut off or damaged ({reason}); fetch it again.") from None


def hash_of_checkpoints(sources: Iterable[str | pathlib.Path]) -> str:
    """Names, sizes and first megabyte of every file in the folders; a model that is no folder counts by its name."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(str(source).encode() if isinstance(source, str) else source.name.encode())
        for path in sorted(pathlib.Path(source).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(source)} {path.stat().st_size}".encode())
                with path.open("rb") as handle:
                    digest.update(handle.read(2**20))
    return digest.hexdigest()
