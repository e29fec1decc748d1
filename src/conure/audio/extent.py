"""Finds lost packets by their positions in the file, for formats whose structure does not reveal damage."""

from __future__ import annotations

from typing import Any, cast

from av.packet import Packet

from conure.audio.parts import SourcePart
from conure.audio.source import SourceFile

__all__ = ["Extent", "has_extent"]

SYNC, INDEX = b"NK\xe4\xad\xee\xca\x45\x69", b"NX\xdd\x67\x2f\x23\xe6\x4e"
"""Start codes of NUT: of a sync point, which precedes all packets, and of the index, which may follow the last one."""
NUT_NAME = 25
"""Bytes of the file id."""
NUT_CHECKSUM, MAX_UNCHECKED = 4, 4_096
"""Bytes of the checksum in the header of packets that are longer than the second number."""
LENGTH_MARGIN = 512
"""Bytes by which the last packet may exceed twice the length of any other; a longer one has swallowed others."""
MAX_NUT_HEADER = 1 << 16
"""Bytes before the first packet that are searched."""
MAX_NUT_GAP = 64
"""Most bytes of a sync point and a packet's header."""


def has_extent(part: SourcePart, kind: str) -> bool:
    """Whether the packets of all streams have to be recorded; `kind`: the container's name."""
    return part.fragments > 0 or (kind == "nut" and part.file.seekable())


class Extent:
    def __init__(self) -> None:
        self._first: int | None = None
        self._end = 0
        self._size = 0
        self._last = self._max_length = 0
        """Bytes of the last packet, and of the longest one before it."""

    def add(self, packet: Packet[Any]) -> None:
        size, place = packet.size, packet.pos
        self._size += size
        if place is not None and size:
            if self._first is None:
                self._first = place
            self._end = place + size
            self._max_length, self._last = max(self._max_length, self._last), size

    def problem(self, part: SourcePart) -> str | None:
        """The problem, after all packets were added. Moves the position of the file."""
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
        sync = _first_sync(file.read(min(self._first, MAX_NUT_HEADER)))
        if self._first - sync <= MAX_NUT_GAP:
            return None
        return f"damaged from byte {sync} on: {self._first - sync} bytes before the first packet are left out"

    def _end_of_nut(self, file: SourceFile) -> str | None:
        if self._last > 2 * self._max_length + LENGTH_MARGIN and self._max_length:
            return f"damaged at byte {self._end - self._last}: what comes after it is left out"
        file.seek(self._end)
        rest = file.read(2 * MAX_NUT_GAP)
        if len(rest) <= MAX_NUT_GAP or INDEX in rest[:MAX_NUT_GAP]:
            return None
        return f"damaged at byte {self._end}: what comes after it is left out"


def _first_sync(head: bytes) -> int:
    """Expected position of the first sync point: after header packets, whose length is in groups of seven bits."""
    at = NUT_NAME
    while head[at : at + 1] == b"N" and not head.startswith(SYNC, at):
        place, size, more = at + len(SYNC), 0, True
        while more and place < len(head):
            size, more = size << 7 | head[place] & 127, head[place] > 127
            place += 1
        at = place + size + (NUT_CHECKSUM if size > MAX_UNCHECKED else 0)
    return at
