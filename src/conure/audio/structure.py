"""Checks while a container is read that its elements follow one another without gaps.

After damage FFmpeg silently searches the next known element, or stops. So each element's length is compared with the
start of the next one. The content of elements is checked by the decoder only.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Protocol, cast

from conure.audio.source import SourceFile

__all__ = ["DAMAGED", "MORE", "OVER", "CheckedFile", "Readable", "StructureCheck"]

MORE, DAMAGED, OVER = 0, -1, -2
"""Results of `step` instead of a length: more bytes are needed; no element begins here; the check ends here."""
LENGTH_MARGIN = 512
"""Bytes by which the last, truncated element must exceed twice the length of the others to count as damaged."""
SLACK = 64
"""Bytes at the end that are not checked; some writers count them wrongly."""
READ_SIZE = 1 << 16


class Readable(Protocol):
    """A file for FFmpeg; it has `seek` and `tell`, too, if it is seekable."""

    def read(self, size: int) -> bytes: ...

    def seekable(self) -> bool: ...


class StructureCheck(ABC):
    """The check of one recording. Zero bytes after an element are padding if only zero bytes follow."""

    head = 4
    """Bytes of an element's header that contain its length."""

    def __init__(self) -> None:
        self.damaged_at: int | None = None
        """The first position where an element should begin and none does."""
        self._is_over = False
        self._base = 0
        """Position of the first buffered byte."""
        self._held = bytearray()
        self._remaining = 0
        """Bytes of the current element that are not yet read."""
        self._max_length = self._second_max_length = 0
        self._max_length_at = self._last_at = 0
        self._padding_at: int | None = None

    @abstractmethod
    def step(self, held: bytearray, at: int) -> int:
        """Length of the element at `at`, of which at least `head` bytes are buffered; or MORE, DAMAGED, OVER."""

    @property
    def problem(self) -> str | None:
        place = self.damaged_at
        return None if place is None else f"damaged at byte {place}: parts of it may be left out"

    def push(self, data: bytes) -> None:
        """Checks the next bytes."""
        if self._is_over:
            return
        if self._remaining >= len(data):
            self._remaining -= len(data)
            self._base += len(data)
            return
        self._base += self._remaining
        self._held += memoryview(data)[self._remaining :]
        self._remaining = 0
        at = self._walk()
        self._remaining = max(0, at - len(self._held))
        self._base += at - self._remaining
        del self._held[:at]

    def _walk(self) -> int:
        """Walks from element to element and returns the offset after the last one."""
        held, at, size = self._held, 0, 0
        while len(held) - at >= self.head:
            if not held[at] and not any(held[at : at + self.head]):
                at += self._padding(at)
                continue
            if self._padding_at is not None:
                self._end(self._padding_at)
                break
            size = self.step(held, at)
            if size <= 0:
                if size != MORE:
                    self._end(self._base + at if size == DAMAGED else None)
                break
            self._last_at = self._base + at
            if size > self._max_length:
                self._second_max_length, self._max_length, self._max_length_at = self._max_length, size, self._last_at
            at += size
        return at

    def _padding(self, at: int) -> int:
        if self._padding_at is None:
            self._padding_at = self._base + at
        rest = self._held[at:]
        return len(rest) - len(rest.lstrip(b"\0"))

    def _end(self, damaged_at: int | None) -> None:
        self._is_over = True
        self.damaged_at = damaged_at

    def finish(self, length: int, is_cut: bool) -> None:
        """Ends the check. `is_cut`: the recording is known to be truncated.

        Truncated files usually end within an element, but rarely in one of unusual length.
        """
        if self.damaged_at is not None and self.damaged_at + SLACK >= length:
            self.damaged_at = None
        if is_cut:
            return
        is_unusual = self._max_length > 2 * self._second_max_length + LENGTH_MARGIN
        if not self._is_over and self._remaining and self._last_at == self._max_length_at and is_unusual:
            self._end(self._last_at)


class CheckedFile:
    """A recording for FFmpeg whose bytes are checked in order, even if they are read out of order."""

    def __init__(self, file: Readable, check: StructureCheck | None) -> None:
        self._file = file
        self._check = check
        self._checked = 0
        """Position up to which the bytes are checked."""
        self._at = 0

    @property
    def problem(self) -> str | None:
        return self._check.problem if self._check else None

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if self._check and self._at <= self._checked < self._at + len(data):
            self._check.push(data[self._checked - self._at :])
            self._checked = self._at + len(data)
        self._at += len(data)
        return data

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = cast(SourceFile, self._file).seek(offset, whence)
        self._at = cast(SourceFile, self._file).tell()
        return at

    def tell(self) -> int:
        return self._at

    def skip_to_end(self, is_cut: bool) -> int:
        """Reads the bytes that FFmpeg left unread and returns the number for pipes. `is_cut`: see `finish`."""
        skipped = 0
        if self._check or not self.seekable():
            if self.seekable():
                self.seek(self._checked)
            while part := self.read(READ_SIZE):
                skipped += len(part)
        if self._check:
            self._check.finish(self._checked, is_cut)
        return skipped
