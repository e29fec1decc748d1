"""Bytes with which a recording begins, as they would be within one by no chance; and all bytes before them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from conure.audio.peek_buffer import PeekBuffer

__all__ = ["Signature", "read_until"]


@dataclass(frozen=True)
class Signature:
    pattern: re.Pattern[bytes]
    prefixes: tuple[bytes, ...]
    """The first letters of what it matches."""
    max_length: int
    """Bytes that a match may have."""
    anchor: tuple[bytes, int] | None = None
    """Letters that every match has, and their place in it, where that is found faster than the pattern."""

    def search(self, held: bytearray, end: int) -> int | None:
        """Where it begins, and ends before `end`."""
        if self.anchor is None:
            found = self.pattern.search(held, 0, end)
            return found.start() if found else None
        letters, offset = self.anchor
        at = held.find(letters, 0, end)
        while at >= 0:
            if at >= offset and self.pattern.match(held, at - offset, end):
                return at - offset
            at = held.find(letters, at + 1, end)
        return None


def read_until(window: PeekBuffer, most: int, ends: Sequence[Signature]) -> bytes:
    """At most so many bytes, up to where one of the signatures begins; none where one does, or at the end.

    Of a pipe it takes what has come, but for bytes that may be the beginning of a signature.
    """
    while window.held or window.read_more():
        count = min(most, len(window.held))
        found = min((at for end in ends if (at := _place(window, count, end)) is not None), default=None)
        if found is not None:
            return window.take(found)
        if not window.is_exhausted:
            count = min((_torn(window, count, end) for end in ends), default=count)
        if count:
            return window.take(count)
        window.read_more()
    return b""


def _place(window: PeekBuffer, count: int, end: Signature) -> int | None:
    """Where it begins within so many bytes."""
    at = end.search(window.held, count + end.max_length - 1)
    return at if at is not None and at < count else None


def _torn(window: PeekBuffer, count: int, end: Signature) -> int:
    """How many of so many bytes come before what may be the beginning of it, and is held in part."""
    for at in range(max(0, len(window.held) - end.max_length + 1), count):
        part = bytes(window.held[at : at + len(end.prefixes[0])])
        if any(begin.startswith(part) for begin in end.prefixes):
            return at
    return count
