"""Tables of a run folder, written and read back: what is wrong with a file is told in one sentence.

A spreadsheet takes a cell that begins with =, +, - or @ for a formula, and text comes from reports and from other
hospitals. Such text is written with an apostrophe in front, which reading takes away again.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import pandas

from fedmrg_core.errors import InputError

# Columns of names, which are text whatever they look like: a site may be called NA, 007 or 1e5.
NAMES = ("study_id", "site", "scope", "client")
_EMPTY = ["", "nan", "NaN"]
# What makes a formula; also behind apostrophes, so that text which begins with one is read back as it was.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def cell_text(text: str) -> str:
    """A cell of text that no spreadsheet computes."""
    return f"'{text}" if _FORMULA.match(text) else text


def text_of_cell(cell: str) -> str:
    """The inverse of :func:`cell_text`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def table_text(table: pandas.DataFrame, **settings: object) -> str:
    """A table as CSV without its index, lines ended by a single newline.

    Args:
        table: text in its cells, not in its header, is guarded by :func:`cell_text`.
        settings: of `DataFrame.to_csv`.
    """
    return _each_text(table, cell_text).to_csv(index=False, lineterminator="\n", **settings)


def _each_text(table: pandas.DataFrame, change: Callable[[str], str]) -> pandas.DataFrame:
    """The table with every cell of text changed; numbers stay."""
    changed = {}
    for name in table.columns[[not pandas.api.types.is_numeric_dtype(kind) for kind in table.dtypes]]:
        before = table[name].tolist()  # three times as fast to go through as the column
        cells = [change(cell) if isinstance(cell, str) else cell for cell in before]
        if any(isinstance(old, str) and old != new for old, new in zip(before, cells, strict=True)):
            changed[name] = cells
    return table.assign(**changed) if changed else table


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
        table = _each_text(table, text_of_cell)
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
