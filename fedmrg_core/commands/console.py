"""What a step of the workflow shows: its errors and the project's own words; what libraries say goes into a log file.

Whoever waits for a run reads the console. Warnings of libraries are for whoever repairs something, so they are kept
beside the results and named where the step fails.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import TextIO

# A line that begins a library's message: a Python warning with its place, a record of Flower's, Ray's or absl's
# logging, or a progress bar.
_BEGINNINGS = (
    re.compile(r"\S.*:\d+: \w*(Warning|Deprecated\w*): "),
    re.compile(r"(\x1b\[\d+m)?(DEBUG|INFO|WARNING)\s*(\x1b\[0m)?\s*:"),
    re.compile(r"\[?\d{4}-\d\d-\d\d[ T,:\d]+.*(DEBUG|INFO|WARNING)|[IW]\d{4} \d\d:\d\d:|[IW]0000 "),
    re.compile(r".*(\d+%\|.*\|.*\[|\d+\S*it \[)\d\d:\d\d"),
)
_ACTOR = re.compile(r"(\x1b\[\d+m)?\(\S+ pid=\d+\)(\x1b\[0m)? ?")  # before what Ray hands on from another process
_TAIL = 20  # lines of the log that are shown where a step ends without any message


def is_library_line(line: str, within: bool = False) -> bool:
    """Whether a line of standard error is a library's.

    Args:
        line: without its end.
        within: whether the line before was; an indented line goes on with it.
    """
    own = _ACTOR.sub("", line, count=1)
    return any(pattern.match(own) for pattern in _BEGINNINGS) or (within and own.startswith((" ", "\t")))


class ConsoleFilter:
    """A text stream that writes everything to a log, and to the console what no library says.

    Attributes:
        log: takes every line.
        console: takes the lines that are left; None for standard error.
    """

    def __init__(self, log: TextIO, console: TextIO | None = None) -> None:
        self.log, self.console = log, console
        self._begun = ""
        self._within = False

    def write(self, text: str) -> int:
        """Take some text; a line is shown when it has ended. A bar's states end with a carriage return."""
        self.log.write(text)
        *lines, self._begun = re.split(r"\r?\n|\r", self._begun + text)
        for line in lines:
            self._show(line)
        return len(text)

    def flush(self) -> None:
        """Hand on what the log has taken."""
        self.log.flush()

    def close(self) -> None:
        """Show a last line that never ended; the log stays open."""
        self._show(self._begun)
        self._begun = ""
        self.flush()

    def _show(self, line: str) -> None:
        from tqdm import tqdm

        self._within = is_library_line(line, self._within)
        if line.strip() and not self._within:
            tqdm.write(line, file=self.console or sys.stderr)  # above a bar, not into it


@contextlib.contextmanager
def library_log(path: pathlib.Path, first_line: str) -> Iterator[TextIO]:
    """Everything that libraries warn about in this process goes to a new file, which is named if the block fails.

    Args:
        path: of the log.
        first_line: what is being done, e.g. a command that can be copied.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    with path.open("w", encoding="utf-8", buffering=1) as log:
        log.write(f"{first_line}\n")
        handler = logging.StreamHandler(log)
        root.addHandler(handler)
        logging.captureWarnings(True)
        try:
            yield log
        except Exception:
            print(f"What libraries and cells said: {path}", file=sys.stderr)
            raise
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)


def last_lines(log: pathlib.Path, count: int = _TAIL) -> str:
    """The end of a log, for a step that ended without a message of its own."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
