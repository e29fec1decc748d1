"""Bytes of a stream that wait: in memory while they are few, else in temporary files that have no name.

    put ──> tail (memory) ──> a file that is written ──> a file that is read ──> head (memory) ──> take

Two files, because one that is read and written would never become shorter. What the files of all spools hold together
is bounded.
"""

from __future__ import annotations

import tempfile
from typing import BinaryIO

from conure.errors import BacklogFull

__all__ = ["Spool", "SpoolSpace"]

IN_MEMORY = 2**20
"""Bytes of a spool before files are used: half a minute of PCM at 16 kHz."""
BLOCK = 2**18
"""Bytes that are read back at once."""


class SpoolSpace:
    """Bytes that all spools together may have in files."""

    def __init__(self, most: int) -> None:
        self.max_bytes = most
        self.used_bytes = 0

    def reserve(self, size: int) -> None:
        """Raises BacklogFull."""
        if self.used_bytes + size > self.max_bytes:
            raise BacklogFull(
                f"audio of all streams that waits to be transcribed has reached {self.max_bytes / 1e6:g} MB",
                "send it as it is spoken, or raise max_backlog_mb",
            )
        self.used_bytes += size

    def release(self, size: int) -> None:
        self.used_bytes -= size


class Spool:
    """First in, first out. Of one thread."""

    def __init__(self, space: SpoolSpace) -> None:
        self._space = space
        self._head = memoryview(b"")
        self._tail = bytearray()
        self._reading: _File | None = None
        self._writing: _File | None = None

    def __len__(self) -> int:
        files = (file.left for file in (self._reading, self._writing) if file)
        return len(self._head) + sum(files) + len(self._tail)

    def append(self, data: bytes) -> None:
        """Raises BacklogFull, also where the disk is full; then nothing of the data was kept."""
        if len(self._tail) + len(data) > IN_MEMORY:
            self._write(bytes(self._tail) + data)
            self._tail.clear()
        else:
            self._tail += data

    def read(self, most: int) -> bytes:
        """The next ones, at most so many; none only where there are none. Raises OSError."""
        if not self._head:
            self._head = memoryview(self._next())
        taken, self._head = bytes(self._head[:most]), self._head[most:]
        return taken

    def close(self) -> None:
        """What is left is gone; more than once does no harm."""
        for file in (self._reading, self._writing):
            if file:
                self._space.release(file.left)
                file.close()
        self._reading = self._writing = None
        self._head = memoryview(b"")
        self._tail.clear()

    def _write(self, data: bytes) -> None:
        self._space.reserve(len(data))
        try:
            self._writing = self._writing or _File()
            self._writing.write(data)
        except OSError as error:
            self._space.release(len(data))
            raise BacklogFull(
                f"there is no room for audio that waits to be transcribed: {error.strerror}",
                "send it as it is spoken, or make room in the server's folder for temporary files (TMPDIR)",
            ) from None

    def _next(self) -> bytes:
        """Of the file that is read, of the one that was written, or of what is in memory."""
        if self._reading is None:
            self._reading, self._writing = self._writing, None
        if self._reading is None:
            data = bytes(self._tail)
            self._tail.clear()
            return data
        data = self._reading.read(BLOCK)
        self._space.release(len(data))
        if not self._reading.left:
            self._reading.close()
            self._reading = None
        return data


class _File:
    """Its beginning is read while it grows at its end."""

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  `close` closes it
        self._read = self._written = 0

    @property
    def left(self) -> int:
        return self._written - self._read

    def write(self, data: bytes) -> None:
        """All of it or, with an OSError, nothing that counts."""
        self._file.seek(self._written)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._written += len(data)

    def read(self, most: int) -> bytes:
        self._file.seek(self._read)
        data = self._file.read(min(most, self.left))
        if not data:
            raise OSError("a temporary file has become shorter")
        self._read += len(data)
        return data

    def close(self) -> None:
        self._file.close()
