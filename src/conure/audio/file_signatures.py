"""Signatures of recordings, which are unlikely to occur within one, and reading up to the next signature."""

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
    """Possible first bytes of a match."""
    max_length: int
    """Most bytes of a match."""
    anchor: tuple[bytes, int] | None = None
    """Bytes that every match contains, and their offset, if searching for them is faster than for the pattern."""

    def search(self, held: bytearray, end: int) -> int | None:
        """Start of the first match that ends before `end`."""
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


def read_until(window: PeekBuffer, size: int, ends: Sequence[Signature]) -> bytes:
    """At most `size` bytes, up to the start of one of the signatures; none at such a start or at the end.

    From a pipe it reads the bytes that have arrived, except those that may be the beginning of a signature.
    """
    while window.held or window.read_more():
        count = min(size, len(window.held))
        found = min((at for end in ends if (at := _find(window, count, end)) is not None), default=None)
        if found is not None:
            return window.take(found)
        if not window.is_exhausted:
            count = min((_before_partial(window, count, end) for end in ends), default=count)
        if count:
            return window.take(count)
        window.read_more()
    return b""


def _find(window: PeekBuffer, count: int, end: Signature) -> int | None:
    """Start of the signature within the first `count` bytes."""
    at = end.search(window.held, count + end.max_length - 1)
    return at if at is not None and at < count else None


def _before_partial(window: PeekBuffer, count: int, end: Signature) -> int:
    """Number of bytes, at most `count`, before a possible signature of which only a part has been read."""
    for at in range(max(0, len(window.held) - end.max_length + 1), count):
        part = bytes(window.held[at : at + len(end.prefixes[0])])
        if any(begin.startswith(part) for begin in end.prefixes):
            return at
    return count
