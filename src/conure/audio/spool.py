"""A queue of a stream's bytes: in memory while it is short, otherwise in unnamed temporary files.

    append ──> tail (memory) ──> file being written ──> file being read ──> head (memory) ──> read

There are two files, because one that is read and written would never become shorter. The bytes in the files of all
spools together are limited.
"""

from __future__ import annotations

import tempfile
from typing import BinaryIO

from conure.errors import BacklogFull

__all__ = ["Spool", "SpoolSpace"]

MAX_MEMORY_BYTES = 2**20
"""Bytes of a spool above which files are used: half a minute of PCM at 16 kHz."""
READ_SIZE = 2**18


class SpoolSpace:
    """The limit of bytes that all spools together have in files."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0

    def reserve(self, size: int) -> None:
        """Raises BacklogFull."""
        if self.used_bytes + size > self.max_bytes:
            raise BacklogFull(
                f"the backlog of all streams has reached {self.max_bytes / 1e6:g} MB",
                "send audio in real time, or raise max_backlog_mb",
            )
        self.used_bytes += size

    def release(self, size: int) -> None:
        self.used_bytes -= size


class Spool:
    """A FIFO queue of bytes. Not thread-safe."""

    def __init__(self, space: SpoolSpace) -> None:
        self._space = space
        self._head = memoryview(b"")
        self._tail = bytearray()
        self._reading: _File | None = None
        self._writing: _File | None = None

    def __len__(self) -> int:
        files = (file.remaining for file in (self._reading, self._writing) if file)
        return len(self._head) + sum(files) + len(self._tail)

    def append(self, data: bytes) -> None:
        """Raises BacklogFull at the limit or if the disk is full; the data is not stored then."""
        if len(self._tail) + len(data) > MAX_MEMORY_BYTES:
            self._write(bytes(self._tail) + data)
            self._tail.clear()
        else:
            self._tail += data

    def read(self, size: int) -> bytes:
        """Consumes at most `size` bytes; none only if the spool is empty. Raises OSError."""
        if not self._head:
            self._head = memoryview(self._next_block())
        data, self._head = bytes(self._head[:size]), self._head[size:]
        return data

    def close(self) -> None:
        """Discards the remaining bytes; may be called repeatedly."""
        for file in (self._reading, self._writing):
            if file:
                self._space.release(file.remaining)
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
                f"there is no space for the backlog of audio: {error.strerror}",
                "send audio in real time, or free space in the server's folder for temporary files (TMPDIR)",
            ) from None

    def _next_block(self) -> bytes:
        """The next bytes: of the file being read, of the one that was written, or from memory."""
        if self._reading is None:
            self._reading, self._writing = self._writing, None
        if self._reading is None:
            data = bytes(self._tail)
            self._tail.clear()
            return data
        data = self._reading.read(READ_SIZE)
        self._space.release(len(data))
        if not self._reading.remaining:
            self._reading.close()
            self._reading = None
        return data


class _File:
    """A temporary file that is read at its beginning while data is appended."""

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  `close` closes it
        self._read = self._written = 0

    @property
    def remaining(self) -> int:
        return self._written - self._read

    def write(self, data: bytes) -> None:
        """Appends all of the data or, with an OSError, none."""
        self._file.seek(self._written)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._written += len(data)

    def read(self, size: int) -> bytes:
        self._file.seek(self._read)
        data = self._file.read(min(size, self.remaining))
        if not data:
            raise OSError("a temporary file has become shorter")
        self._read += len(data)
        return data

    def close(self) -> None:
        self._file.close()
