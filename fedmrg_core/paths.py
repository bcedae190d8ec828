"""Where everything a run makes is kept: one tree below a workspace, the repository itself unless told otherwise."""

from __future__ import annotations

import pathlib

from fedmrg_core.configuration import REPOSITORY


def workspace_folder(workspace: str = "") -> pathlib.Path:
    """The folder given, or the repository's own root for ""."""
    return pathlib.Path(workspace).resolve() if workspace else REPOSITORY


def prepared_folder(workspace: pathlib.Path, profile: str, data: str) -> pathlib.Path:
    """Studies at the profile's image size, as notebook 01 leaves them."""
    return workspace / "prepared" / profile / data


def base_models_folder(workspace: pathlib.Path, profile: str, data: str) -> pathlib.Path:
    """`llm` and `backbone` as notebook 05 leaves them; each data set has its own public corpus."""
    return workspace / "base_models" / profile / data


def run_folder(
    workspace: pathlib.Path, profile: str, data: str, partition: str, method: str, seed: int
) -> pathlib.Path:
    """One federated run (contract 4); partitions other than by site are part of the data's name."""
    data_name = data if partition == "site" else f"{data}-{partition}"
    return workspace / "results" / profile / data_name / method / f"seed-{seed}"
