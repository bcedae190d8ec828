"""Tables of a run folder, read back: what is wrong with a file is told in one sentence."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import pandas

from fedmrg_core.errors import InputError

# Columns of names, which are text whatever they look like: a site may be called NA, 007 or 1e5.
NAMES = ("study_id", "site", "scope", "client")
_EMPTY = ["", "nan", "NaN"]


def read_table(path: pathlib.Path | str, columns: Sequence[str], remedy: str, **settings: object) -> pandas.DataFrame:
    """Read a CSV file, compressed if its name ends in .gz; columns of `NAMES` are text as written.

    pandas alone would read nothing out of a site called "NA" or "None".

    Args:
        path: of the file.
        columns: those it has to have.
        remedy: how to come by a good file; ends the sentence.
        settings: of `pandas.read_csv`, in place of what is chosen here for names and empty values. With ``dtype=str,
            na_values=[]`` every cell is text and an empty one stays empty.

    Raises:
        InputError: the file is missing, no CSV file in UTF-8, or lacks a column.
    """
    try:
        table = pandas.read_csv(path, encoding="utf-8", **(_names_as_text(path) | settings))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {remedy}.") from error
    except (OSError, EOFError, ValueError) as error:  # pandas' own are ValueErrors; EOFError: compressed and cut off
        raise InputError(f"{path} is not a readable UTF-8 CSV file ({error}); {remedy}.") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing, expected {', '.join(columns)}; {remedy}.")
    return table


def _names_as_text(path: pathlib.Path | str) -> dict[str, Any]:
    header = pandas.read_csv(path, encoding="utf-8", nrows=0).columns
    return {
        "dtype": {name: str for name in NAMES if name in header},
        "keep_default_na": False,
        "na_values": {name: _EMPTY for name in header if name not in NAMES},
    }
