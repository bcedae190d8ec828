"""Tables of a run folder, read back: what is wrong with a file is told in one sentence."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pandas

from fedmrg_core.errors import InputError


def read_table(
    path: pathlib.Path | str, columns: Sequence[str], remedy: str, missing: Sequence[str] = ("",), **settings: object
) -> pandas.DataFrame:
    """Read a CSV file, compressed if its name ends in .gz.

    pandas alone would read nothing out of a site called "NA" or "None".

    Args:
        path: of the file.
        columns: those it has to have.
        remedy: how to come by a good file; ends the sentence.
        missing: the texts that stand for no value; () keeps empty texts as they are.
        settings: further arguments of `pandas.read_csv`.

    Raises:
        InputError: the file is missing, no CSV file in UTF-8, or lacks a column.
    """
    try:
        table = pandas.read_csv(path, encoding="utf-8", keep_default_na=False, na_values=list(missing), **settings)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {remedy}.") from error
    except (OSError, EOFError, ValueError) as error:  # pandas' own are ValueErrors; EOFError: compressed and cut off
        raise InputError(f"{path} is not a readable UTF-8 CSV file ({error}); {remedy}.") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing, expected {', '.join(columns)}; {remedy}.")
    return table
