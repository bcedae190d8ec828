"""Where replies wait until the strategy reads them: one file for all of a round, however many hospitals there are."""

from __future__ import annotations

import os
import pathlib
import tempfile
from typing import IO

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict


class StoredArray(Array):
    """An array whose bytes lie in an open file and are read each time they are asked for."""

    def __init__(self, array: Array, file: IO[bytes]) -> None:
        place = (file, file.tell(), len(array.data))
        file.write(array.data)
        self.__dict__.update(dtype=array.dtype, shape=array.shape, stype=array.stype, _place=place)

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The serialised array."""
        file, start, length = self.__dict__["_place"]
        return os.pread(file.fileno(), length, start)


class ReplyStore:
    """Takes arrays out of memory into a file without a name, which vanishes with them or with the process.

    A file a reply would come to the system's limit of open files with a few hundred hospitals.

    Args:
        folder: on whose disk.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None

    def renew(self) -> None:
        """Begin a new file; the old one goes with the last of its arrays."""
        self._file = None

    def array(self, array: Array) -> StoredArray:
        """The same array, its bytes in the file; `flush` before they are read."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)
        return StoredArray(array, self._file)

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._file is not None:
            self._file.flush()

    def keep(self, message: Message) -> Message:
        """The same message, its arrays in the file."""
        if not message.has_content() or not message.content.array_records:
            return message
        content: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = dict(message.content)
        for name, record in message.content.array_records.items():
            stored = ArrayRecord()
            for key in list(record):
                stored[key] = self.array(record.pop(key))
            content[name] = stored
        self.flush()
        message.content = RecordDict(content)
        return message
