"""Reading the tables that come with a data set, strictly: every fault is told with file and row [ours]."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pathlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from fedmrg_core.data.report_words import clean_name
from fedmrg_core.errors import InputError

OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def read_bytes(path: pathlib.Path, remedy: str) -> bytes:
    """The content of a file that has to be there.

    Raises:
        InputError: the file is missing or unreadable; `remedy` ends the sentence.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise InputError(f"{path} {reason}; {remedy}.") from None


def decode_text(content: bytes, name: str) -> str:
    """Bytes as UTF-8 text, with or without a byte order mark.

    Raises:
        InputError: another encoding; the sentence names the row and the byte.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{name}: line {row}, byte {error.start} (0x{content[error.start]:02x}) is not UTF-8; "
            "save the file again with encoding UTF-8."
        ) from None


def read_json(text: str, name: str) -> Any:
    """The content of a JSON text in which no object has two keys of one name.

    Raises:
        json.JSONDecodeError: the text is no JSON.
        InputError: a key occurs twice in one object: Python would take the last one without a word.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = _twice(key for key, _ in pairs)
        if twice is not None:
            raise InputError(f"{name}: the key {twice!r} occurs twice in one object; keep one of the two.")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def read_rows(path: pathlib.Path, columns: Sequence[str], remedy: str) -> list[dict[str, str]]:
    """The rows of a CSV file (``.csv`` or ``.csv.gz``), values stripped of white space around them.

    A value is taken as it is written: nothing is read as missing here (see `report_words`).

    Raises:
        InputError: the file is missing, not UTF-8, separated by something else than commas, without one of `columns` or
            with two of one name, without rows, or has a row of another length.
    """
    content = read_bytes(path, remedy)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} is not a whole gzip file ({error}); copy it again.") from None
    text = decode_text(content, str(path))
    _check_separator(text, columns, path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = _column_names(next(reader, []), columns, path)
        rows = []
        for values in reader:
            if not values:
                continue
            if len(values) != len(names):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(values)} values, the header {len(names)}; "
                    "put texts with commas into double quotes."
                )
            rows.append({name: value.strip() for name, value in zip(names, values, strict=True)})
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num} is not CSV ({error}); quote its texts and save it again."
        ) from None
    if not rows:
        raise InputError(f"{path} has no rows; expected one row for each study.")
    return rows


def _check_separator(text: str, columns: Sequence[str], path: pathlib.Path) -> None:
    """Another sign than the comma must not name more of `columns` in the first line."""
    line = text.lstrip().partition("\n")[0]
    found = {
        sign: len(set(columns) & {clean_name(part.strip().strip('"')) for part in line.split(sign)})
        for sign in (",", *OTHER_SEPARATORS)
    }
    sign = max(found, key=found.__getitem__)
    if sign != ",":
        raise InputError(
            f"{path} looks separated by {OTHER_SEPARATORS[sign]}; save it again as CSV with commas between the columns."
        )


def _column_names(header: Sequence[str], columns: Sequence[str], path: pathlib.Path) -> list[str]:
    """The names in the first line, each in its one spelling; those of `columns` are there once."""
    names = [clean_name(name) for name in header]
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; expected the columns {', '.join(columns)}.")
    twice = _twice(name for name in names if name in columns)
    if twice is not None:
        raise InputError(f"{path} has two columns {twice!r}; keep one of the two or give the other another name.")
    return names


def _twice(names: Iterable[str]) -> str | None:
    """The first name that comes again."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def path_fault(root: pathlib.Path, name: str) -> str:
    """What is wrong with the name of a file below `root`, as the end of a sentence; "" if nothing is.

    A file that is missing or cannot be reached is no fault of its name: reading it says so.
    """
    path = root / name
    try:
        if "\\" in name and not path.exists():
            return "with backslashes; write paths with /"
        if path.resolve().is_relative_to(root.resolve()):
            return ""
    except (OSError, RuntimeError, ValueError):  # links that lead in a circle, a NUL
        return ""
    return f"outside {root}; give a path below it"


def check_root(root: pathlib.Path, expected: str) -> pathlib.Path:
    """The root folder of a data set.

    Raises:
        InputError: it is missing or not a folder.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise InputError(f"root {root} is not a folder; expected {expected}.")
    return root
