"""Image features of a run folder (features.safetensors, features.csv), for the figures that show them."""

from __future__ import annotations

import pathlib

import numpy
import pandas
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fedmrg_core.errors import InputError
from figures import common


def read_features(run: pathlib.Path, split: str = "test") -> tuple[numpy.ndarray, pandas.DataFrame]:
    """Features (N, D) and their rows (study_id, site, role, states), of one split where the file tells splits apart.

    Raises:
        InputError: a file is missing or damaged, or their lengths differ.
    """
    rows = common.read_run_table(
        run, "features.csv", ("study_id", "site", "role", "states"), dtype=str, keep_default_na=False
    )
    path = run / "features.safetensors"
    try:
        features = load_file(path)["features"]
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: no readable tensor 'features'; evaluate the run first (notebook 07).") from error
    if len(features) != len(rows):
        raise InputError(f"{path} has {len(features)} rows and features.csv {len(rows)}; evaluate the run again.")
    if "split" in rows:
        keep = (rows["split"] == split).to_numpy()
        if not keep.any():
            raise InputError(f"{run / 'features.csv'} has no row of the split {split!r}; evaluate the run again.")
        features, rows = features[keep], rows[keep].reset_index(drop=True)
    return features, rows
