"""Reports in a text file, one a line, and their states as JSON."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Iterator

from fedmrg_core.data.findings import states_to_names
from fedmrg_core.data.labeller.explain import explain_report
from fedmrg_core.data.labeller.reading import label_report
from fedmrg_core.errors import InputError


def label_lines(lines: Iterable[str], source: str = "input") -> Iterator[str]:
    """One JSON object a report, ``{"states": {finding name: state name}}``, for one report a line.

    Raises:
        InputError: a line holds no report; `source` names the lines' origin in the message.
    """
    for number, line in enumerate(lines, start=1):
        _check_line(line, number, source)
        yield json.dumps({"states": states_to_names(label_report(line))})


def explain_lines(lines: Iterable[str], source: str = "input") -> Iterator[str]:
    """For one report a line, its number and what the labeller read, why (`explain_report`).

    Raises:
        InputError: a line holds no report.
    """
    for number, line in enumerate(lines, start=1):
        _check_line(line, number, source)
        yield f"report {number}: {line.strip()}\n{explain_report(line)}\n"


def label_file(path: str | pathlib.Path, explain: bool = False) -> Iterator[str]:
    """`label_lines`, or `explain_lines`, of a UTF-8 text file; a bad line raises before the first label is handed out.

    Raises:
        InputError: the file is missing, unreadable or empty, is not in UTF-8, or has an empty line.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a file of one report a line.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}: line {line} is not in UTF-8 (byte {error.start}); convert the file to UTF-8."
        ) from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return iter(list((explain_lines if explain else label_lines)(lines, source=str(path))))


def _check_line(line: str, number: int, source: str) -> None:
    if not line.strip():
        raise InputError(f"{source}: line {number} is empty; expected one report a line, so remove or fill it.")
