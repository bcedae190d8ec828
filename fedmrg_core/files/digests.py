"""SHA-256 of stored files: a flipped byte, a missing file or an older one in its place is named, not computed with."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterable, Mapping

from fedmrg_core.errors import InputError
from fedmrg_core.files.whole_files import write_text

INDEX = "files.sha256"  # of one folder, as `sha256sum` writes it: `sha256sum --check files.sha256` says the same


def file_digest(path: pathlib.Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digests_below(folder: pathlib.Path, names: Iterable[str] = ("*",)) -> dict[str, str]:
    """The digests of a folder's files.

    Args:
        folder: it and what lies below it.
        names: patterns of the files' names.

    Returns:
        By path relative to the folder, sorted.
    """
    found = {path for name in names for path in folder.rglob(name) if path.is_file()}
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(found)}


def check_file(path: pathlib.Path, digest: str | None, remedy: str) -> None:
    """Hold a file against the digest that was noted when it was written.

    Args:
        path: of the file.
        digest: as noted; None: it was not.
        remedy: ends the sentence of an error.

    Raises:
        InputError: the file is missing, was not noted, or is another.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; {remedy}")
    if digest is None or file_digest(path) != digest:
        raise InputError(f"{path} is damaged or not the file that was written there; {remedy}")


def check_files(folder: pathlib.Path, digests: Mapping[str, str], remedy: str) -> None:
    """:func:`check_file` for each of a folder's files."""
    for name, digest in digests.items():
        check_file(folder / name, digest, remedy)


class NotedFolder:
    """A flat folder whose files are noted in its `INDEX` as they are written.

    A file is written first and noted then: after a crash between the two it is refused, and whoever wrote it writes
    it again.

    Args:
        folder: it may not be there yet.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def note(self, *paths: pathlib.Path) -> None:
        """Note files that were just written, and forget those that are gone."""
        noted = {name: digest for name, digest in self.noted().items() if (self.folder / name).is_file()}
        noted |= {path.name: file_digest(path) for path in paths}
        lines = [f"{digest}  {name}\n" for name, digest in sorted(noted.items())]
        write_text(self.folder / INDEX, "".join(lines))

    def noted(self) -> dict[str, str]:
        """Digest by file name; none where no file was noted."""
        path = self.folder / INDEX
        if not path.is_file():
            return {}
        parts = (line.partition("  ") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
        return {name: digest for digest, _, name in parts}
