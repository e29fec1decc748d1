"""Whether the elements of a container follow on one another without a break, checked on the bytes as they are read.

FFmpeg looks for the next element that it knows after damaged ones, without a word, or ends there. So each element's
length is held against where the next one begins. What is inside of an element is the decoder's to judge.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Protocol, cast

from conure.audio.source import SourceFile

__all__ = ["DAMAGED", "MORE", "OVER", "CheckedFile", "Readable", "StructureCheck"]

MORE, DAMAGED, OVER = 0, -1, -2
"""Instead of a length: more bytes are needed; no element begins here; nothing is to be checked from here on."""
CUT_LONGER = 512
"""Bytes by which an element that the end of the file cuts must be longer than twice the others to be wrong."""
SLACK = 64
"""Bytes at the end that may be anything; writers of some formats count them wrongly."""
PART = 1 << 16


class Readable(Protocol):
    """What FFmpeg reads; it has `seek` and `tell`, too, if it can seek."""

    def read(self, size: int) -> bytes: ...

    def seekable(self) -> bool: ...


class StructureCheck(ABC):
    """Of one recording. Zero bytes between elements are padding, if nothing but zero bytes follows."""

    head = 4
    """Bytes that tell an element's length."""

    def __init__(self) -> None:
        self.damaged_at: int | None = None
        """The first place where no element begins, though one should."""
        self._is_over = False
        self._base = 0
        """Place of the first byte that is held."""
        self._held = bytearray()
        self._ahead = 0
        """Bytes that are still to come of an element."""
        self._longest = self._longest_but_one = 0
        self._longest_at = self._last_at = 0
        self._padding_at: int | None = None

    @abstractmethod
    def step(self, held: bytearray, at: int) -> int:
        """Bytes of the element that begins at `at`; at least `head` of them are held. Or MORE, DAMAGED, OVER."""

    @property
    def problem(self) -> str | None:
        place = self.damaged_at
        return None if place is None else f"damaged at byte {place}: what is there may be left out"

    def push(self, data: bytes) -> None:
        """The bytes that come next."""
        if self._is_over:
            return
        if self._ahead >= len(data):
            self._ahead -= len(data)
            self._base += len(data)
            return
        self._base += self._ahead
        self._held += memoryview(data)[self._ahead :]
        self._ahead = 0
        at = self._walk()
        self._ahead = max(0, at - len(self._held))
        self._base += at - self._ahead
        del self._held[:at]

    def _walk(self) -> int:
        """Goes from element to element; how many bytes that takes."""
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
            if size > self._longest:
                self._longest_but_one, self._longest, self._longest_at = self._longest, size, self._last_at
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
        """No more bytes come. `is_cut`: it is known that some are missing.

        Files that are cut most often end within an element, but hardly in one of unusual length.
        """
        if self.damaged_at is not None and self.damaged_at + SLACK >= length:
            self.damaged_at = None
        if is_cut:
            return
        unusual = self._longest > 2 * self._longest_but_one + CUT_LONGER
        if not self._is_over and self._ahead and self._last_at == self._longest_at and unusual:
            self._end(self._last_at)


class CheckedFile:
    """A recording that FFmpeg reads, and whose bytes are checked in their order whichever way it reads them."""

    def __init__(self, file: Readable, check: StructureCheck | None) -> None:
        self._file = file
        self._check = check
        self._checked = 0
        """Place up to which the bytes were checked."""
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

    def pass_over(self, is_cut: bool) -> int:
        """Reads what FFmpeg did not want; of a pipe, how many bytes. `is_cut`: that some are missing is known."""
        passed = 0
        if self._check or not self.seekable():
            if self.seekable():
                self.seek(self._checked)
            while part := self.read(PART):
                passed += len(part)
        if self._check:
            self._check.finish(self._checked, is_cut)
        return passed
