"""Reading the tables that come with a data set, strictly: every fault is told with file and row [ours]."""

from __future__ import annotations

import csv
import gzip
import io
import pathlib
from collections.abc import Sequence

from fedmrg_core.errors import InputError


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


def read_table(path: pathlib.Path, columns: Sequence[str], remedy: str) -> list[dict[str, str]]:
    """The rows of a CSV file (``.csv`` or ``.csv.gz``), values stripped of white space around them.

    Raises:
        InputError: the file is missing, not UTF-8, without one of `columns`, without rows, or has a row of another
            length.
    """
    content = read_bytes(path, remedy)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise InputError(f"{path} is not a whole gzip file ({error}); copy it again.") from None
    reader = csv.reader(io.StringIO(decode_text(content, str(path)), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in columns if name not in header]
        if missing:
            raise InputError(f"{path}: column {missing[0]!r} is missing; expected the columns {', '.join(columns)}.")
        rows = []
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(values)} values, the header {len(header)}; "
                    "put texts with commas into double quotes."
                )
            rows.append({name: value.strip() for name, value in zip(header, values, strict=True)})
    except csv.Error as error:
        raise InputError(
            f"{path}: line {reader.line_num} is not CSV ({error}); quote its texts and save it again."
        ) from None
    if not rows:
        raise InputError(f"{path} has no rows; expected one row for each study.")
    return rows


def check_root(root: pathlib.Path, expected: str) -> pathlib.Path:
    """The root folder of a data set.

    Raises:
        InputError: it is missing or not a folder.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise InputError(f"root {root} is not a folder; expected {expected}.")
    return root
