"""A buffer over a source that allows to look at bytes before they are consumed."""

from __future__ import annotations

from conure.audio.source import SourceFile

__all__ = ["PeekBuffer"]

READ_SIZE = 1 << 15


class PeekBuffer:
    """Reads forward only, so it works for files and pipes."""

    def __init__(self, file: SourceFile, at: int = 0) -> None:
        """`at`: current position of the file."""
        self.position = at
        """Position in the file of the first buffered byte."""
        self.held = bytearray()
        self.is_exhausted = False
        """All bytes of the file have been read into the buffer."""
        self._file = file

    def read_more(self) -> bool:
        """Reads more bytes into the buffer, of a pipe those that have arrived. False at the end."""
        if not self.is_exhausted:
            part = self._file.read(READ_SIZE)
            self.held += part
            self.is_exhausted = not part
        return not self.is_exhausted

    def ensure(self, count: int) -> bool:
        """Reads until `count` bytes are buffered. False if the file ends before."""
        while len(self.held) < count and self.read_more():
            pass
        return len(self.held) >= count

    def take(self, count: int) -> bytes:
        """Consumes up to `count` of the buffered bytes."""
        part = bytes(self.held[:count])
        del self.held[:count]
        self.position += len(part)
        return part

    def skip(self, count: int) -> int:
        """Skips up to `count` bytes and returns their number."""
        remaining = count
        while remaining and (self.held or self.read_more()):
            remaining -= len(self.take(remaining))
        return count - remaining

    def peek_at(self, place: int, count: int) -> bytes | None:
        """Bytes at any position of the file; None if it is not seekable."""
        return self._file.read_at(place, count) if self._file.seekable() else None

    def length(self) -> int | None:
        """Length of the file; None if it is not seekable."""
        return self._file.length()
