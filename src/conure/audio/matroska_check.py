"""Structure check of Matroska and WebM: nested elements, each with an id and a length."""

from __future__ import annotations

import re

from conure.audio.structure import DAMAGED, MORE, StructureCheck

__all__ = ["MatroskaCheck"]

SEGMENT, CLUSTER, GROUP, TRACKS = 0x18538067, 0x1F43B675, 0xA0, 0x1654AE6B
ENTERED = (SEGMENT, CLUSTER, GROUP)
"""Elements whose children are checked."""
BLOCKS = (0xA3, 0xA1)
OF_SEGMENT = frozenset((CLUSTER, TRACKS, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367))
"""Children of a segment: cluster, tracks, seek head, info, cues, attachments, chapters and tags."""
ELSEWHERE = frozenset((0x1A45DFA3, SEGMENT, GROUP, 0xEC, 0xBF, 0xE7, 0xAB, 0xA7, 0x5854, 0xA3, 0xAF, 0xA1, 0x9B, 0xFB))
RARE = frozenset((0xFA, 0xFD, 0x75A1, 0x75A2, 0xA4, 0x8E, 0xA2, 0xC8, 0x1B538667))
KNOWN = OF_SEGMENT | ELSEWHERE | RARE
MAX_TRACKS_BYTES, TRACK_NUMBER = 1 << 20, re.compile(rb"\xd7\x81([\x01-\x7e])")
UNBOUNDED = 1 << 62


class MatroskaCheck(StructureCheck):
    head = 12

    def __init__(self) -> None:
        super().__init__()
        self._tracks: set[int] = set()
        """Track numbers as encoded in blocks; at a block with another number FFmpeg skips the rest of the cluster."""
        self._ends = [UNBOUNDED]
        """Ends of the open elements; one of unknown length extends to the next of its kind."""

    def step(self, held: bytearray, at: int) -> int:
        place = self._base + at
        while place >= self._ends[-1]:
            if place > self._ends.pop():
                return DAMAGED
        name_size = 9 - held[at].bit_length()
        if name_size > 4:
            return DAMAGED
        name = int.from_bytes(held[at : at + name_size])
        size_size = 9 - held[at + name_size].bit_length()
        if name not in KNOWN or size_size > 8:
            return DAMAGED
        head = name_size + size_size
        largest = (1 << 7 * size_size) - 1
        size = int.from_bytes(held[at + name_size : at + head]) & largest
        if name in OF_SEGMENT and len(self._ends) > 2:
            if self._ends[-1] != UNBOUNDED:
                return DAMAGED
            del self._ends[2:]
        if size == largest:
            return self._enter(head, UNBOUNDED) if name in (SEGMENT, CLUSTER) else DAMAGED
        if place + head + size > self._ends[-1]:
            return DAMAGED
        if name in ENTERED:
            return self._enter(head, place + head + size)
        return self._content(name, held, at + head, size, head)

    def _enter(self, head: int, end: int) -> int:
        self._ends.append(end)
        return head

    def _content(self, name: int, held: bytearray, at: int, size: int, head: int) -> int:
        """Length of an element without checked children, whose header has `head` bytes and ends at `at`."""
        if name in BLOCKS:
            return DAMAGED if self._tracks and held[at] not in self._tracks else head + size
        if name == TRACKS and size < MAX_TRACKS_BYTES:
            if len(held) < at + size:
                return MORE
            self._tracks = {found[1][0] | 0x80 for found in TRACK_NUMBER.finditer(held, at, at + size)}
        return head + size
