"""The bytes of a source in their order, of which some may be looked at before they are taken."""

from __future__ import annotations

from conure.audio.source import SourceFile

__all__ = ["PeekBuffer"]

PART = 1 << 15
"""Bytes that are read at a time."""


class PeekBuffer:
    """Reads forward only, so it serves files and pipes alike."""

    def __init__(self, file: SourceFile, at: int = 0) -> None:
        """`at`: where the file is."""
        self.position = at
        """Place in the file of the first byte that is held."""
        self.held = bytearray()
        self.is_exhausted = False
        """No bytes will come but those that are held."""
        self._file = file

    def read_more(self) -> bool:
        """Reads on; of a pipe as much as has come. False at the end."""
        if not self.is_exhausted:
            part = self._file.read(PART)
            self.held += part
            self.is_exhausted = not part
        return not self.is_exhausted

    def ensure(self, count: int) -> bool:
        """Reads until so many bytes are held, if there are so many."""
        while len(self.held) < count and self.read_more():
            pass
        return len(self.held) >= count

    def take(self, count: int) -> bytes:
        """Of what is held."""
        part = bytes(self.held[:count])
        del self.held[:count]
        self.position += len(part)
        return part

    def skip(self, count: int) -> int:
        """Leaves bytes out; how many there were."""
        left = count
        while left and (self.held or self.read_more()):
            left -= len(self.take(left))
        return count - left

    def peek_at(self, place: int, count: int) -> bytes | None:
        """Bytes anywhere in the file; None where it cannot seek."""
        return self._file.read_at(place, count) if self._file.seekable() else None

    def length(self) -> int | None:
        """Of the file; None where it cannot seek."""
        return self._file.length()
