"""Where the packets of all streams lie in a file, held against where they should, if the structure does not tell."""

from __future__ import annotations

from typing import Any, cast

from av.packet import Packet

from conure.audio.parts import SourcePart
from conure.audio.source import SourceFile

__all__ = ["Extent", "has_extent"]

SYNC, INDEX = b"NK\xe4\xad\xee\xca\x45\x69", b"NX\xdd\x67\x2f\x23\xe6\x4e"
"""Of NUT: with the first of these comes all sound; the second may come after the last of it."""
NUT_NAME = 25
"""Bytes before all others."""
NUT_CHECK, NUT_UNCHECKED = 4, 4_096
"""Bytes of a check that comes with lengths beyond this one."""
LONGER = 512
"""Bytes by which the last packet may be longer than twice any other, unless it has swallowed others."""
NUT_HEAD = 1 << 16
"""Bytes before the first packet that are looked through."""
NUT_BETWEEN = 64
"""Bytes of a packet's head, and of what says where in time it is."""


def has_extent(part: SourcePart, kind: str) -> bool:
    """Whether all packets have to be seen; `kind`: the container's name."""
    return part.fragments > 0 or (kind == "nut" and part.file.seekable())


class Extent:
    def __init__(self) -> None:
        self._first: int | None = None
        self._end = 0
        self._size = 0
        self._last = self._longest = 0
        """Bytes of the last packet, and of the longest one before it."""

    def add(self, packet: Packet[Any]) -> None:
        size, place = packet.size, packet.pos
        self._size += size
        if place is not None and size:
            if self._first is None:
                self._first = place
            self._end = place + size
            self._longest, self._last = max(self._longest, self._last), size

    def problem(self, part: SourcePart) -> str | None:
        """Once all packets are there. The file is left anywhere."""
        if self._first is None:
            return None
        if part.fragments:
            lost = part.fragments - self._size
            return f"{lost} bytes of samples in its fragments are not read" if lost > 0 else None
        file = cast(SourceFile, part.file)
        return self._start_of_nut(file) or self._end_of_nut(file)

    def _start_of_nut(self, file: SourceFile) -> str | None:
        assert self._first is not None
        file.seek(0)
        sync = _first_sync(file.read(min(self._first, NUT_HEAD)))
        if self._first - sync <= NUT_BETWEEN:
            return None
        return f"damaged from byte {sync} on: {self._first - sync} bytes before the first packet are left out"

    def _end_of_nut(self, file: SourceFile) -> str | None:
        if self._last > 2 * self._longest + LONGER and self._longest:
            return f"damaged at byte {self._end - self._last}: what comes after it is left out"
        file.seek(self._end)
        rest = file.read(2 * NUT_BETWEEN)
        if len(rest) <= NUT_BETWEEN or INDEX in rest[:NUT_BETWEEN]:
            return None
        return f"damaged at byte {self._end}: what comes after it is left out"


def _first_sync(head: bytes) -> int:
    """Where the first one should be: after packets that tell their length, in groups of seven bits."""
    at = NUT_NAME
    while head[at : at + 1] == b"N" and not head.startswith(SYNC, at):
        place, size, more = at + len(SYNC), 0, True
        while more and place < len(head):
            size, more = size << 7 | head[place] & 127, head[place] > 127
            place += 1
        at = place + size + (NUT_CHECK if size > NUT_UNCHECKED else 0)
    return at
