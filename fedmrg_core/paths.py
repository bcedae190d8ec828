"""Where everything a run makes is kept: one tree below a workspace, the repository itself unless told otherwise."""

from __future__ import annotations

import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
STORED_BASE_MODELS = REPOSITORY / "profiles" / "base_models"  # small ones, by profile and data


def workspace_folder(workspace: str = "") -> pathlib.Path:
    """The folder given, or the repository's own root for ""."""
    return pathlib.Path(workspace).resolve() if workspace else REPOSITORY


def prepared_folder(workspace: pathlib.Path, profile: str, data: str) -> pathlib.Path:
    """Studies at the profile's image size, as notebook 01 leaves them."""
    return workspace / "prepared" / profile / data


def base_models_folder(workspace: pathlib.Path, profile: str, corpus: str) -> pathlib.Path:
    """`llm` and `backbone` as notebook 05 leaves them, by the public corpus they were pretrained on."""
    return workspace / "base_models" / profile / corpus


def reference_folder(profile: str) -> pathlib.Path:
    """Reference runs of a profile: what is small and may be published of their run folders, committed."""
    return REPOSITORY / "figures" / "reference" / profile
