"""Structure checks of containers: elements with a header that gives their kind and length."""

from __future__ import annotations

import re

from conure.audio.matroska_check import MatroskaCheck
from conure.audio.ogg_check import OggCheck
from conure.audio.structure import DAMAGED, MORE, OVER, StructureCheck

__all__ = ["CONTAINER_CHECKS"]


class SwfCheck(StructureCheck):
    """Uncompressed Flash: tags up to an empty one, at which FFmpeg stops."""

    head = 6
    LAST_KIND = 94
    EDITING = (253, 777, 1023)
    FIRST = 8

    def __init__(self) -> None:
        super().__init__()
        self._has_begun = False
        self._has_ended = False

    def step(self, held: bytearray, at: int) -> int:
        if not self._has_begun:
            if len(held) <= self.FIRST:
                return MORE
            self._has_begun = True
            return self.FIRST + (5 + 4 * (held[self.FIRST] >> 3) + 7) // 8 + 4
        kind = (held[at] | held[at + 1] << 8) >> 6
        if self._has_ended or (kind > self.LAST_KIND and kind not in self.EDITING):
            return DAMAGED
        self._has_ended = kind == 0
        size = held[at] & 63
        return 2 + size if size < 63 else 6 + int.from_bytes(held[at + 2 : at + 6], "little")

    def finish(self, length: int, is_cut: bool) -> None:
        super().finish(length, is_cut)
        is_whole = self._has_ended or self._padding_at is not None or self._held.endswith(b"\0\0")
        if not (self._is_over or is_cut or is_whole):
            self._end(self._base)


class FlvCheck(StructureCheck):
    """FLV: tags, each followed by its length."""

    head = 11

    def step(self, held: bytearray, at: int) -> int:
        if held.startswith(b"FLV", at):
            return int.from_bytes(held[at + 5 : at + 9]) + 4
        known = held[at] & 0xDF in (8, 9, 15, 18) and not any(held[at + 8 : at + 11])
        return 15 + int.from_bytes(held[at + 1 : at + 4]) if known else DAMAGED


class RealCheck(StructureCheck):
    """RealMedia: chunks; the packets in the data chunk are checked, too."""

    head = 8
    CHUNK = re.compile(rb"\.RMF|PROP|MDPR|CONT|INDX|DATA|RMMD|RMJE|RJMD")
    DATA_HEAD = 18

    def step(self, held: bytearray, at: int) -> int:
        if self.CHUNK.match(held, at):
            size = int.from_bytes(held[at + 4 : at + 8])
            return self.DATA_HEAD if held.startswith(b"DATA", at) else max(size, 8)
        size = int.from_bytes(held[at + 2 : at + 4])
        return size if held[at] == 0 and held[at + 1] < 2 and size >= 12 else DAMAGED


class VocCheck(StructureCheck):
    """Creative Voice: blocks up to an empty one, at which FFmpeg stops."""

    head = 1
    LAST_KIND = 9
    FILE_HEAD = 26

    def __init__(self) -> None:
        super().__init__()
        self._has_begun = False

    def step(self, held: bytearray, at: int) -> int:
        if not self._has_begun:
            if len(held) < self.FILE_HEAD:
                return MORE
            self._has_begun = True
            return max(self.FILE_HEAD, int.from_bytes(held[20:22], "little"))
        if held[at] > self.LAST_KIND:
            return DAMAGED
        return 4 + int.from_bytes(held[at + 1 : at + 4], "little") if len(held) >= at + 4 else MORE


class AviCheck(StructureCheck):
    """AVI: chunks; those in lists are checked, too."""

    head = 12
    NAME = re.compile(rb"[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z_ ][0-9A-Za-z_ ]")

    def step(self, held: bytearray, at: int) -> int:
        if held.startswith((b"RIFF", b"LIST"), at):
            return 12
        if not self.NAME.match(held, at):
            return DAMAGED
        size = int.from_bytes(held[at + 4 : at + 8], "little")
        return 8 + size + size % 2


class MxfCheck(StructureCheck):
    """MXF: keys, lengths and values."""

    head = 25

    def step(self, held: bytearray, at: int) -> int:
        if not held.startswith(b"\x06\x0e\x2b\x34", at):
            return DAMAGED
        first = held[at + 16]
        if first < 128:
            return 17 + first
        count = first - 128
        return 17 + count + int.from_bytes(held[at + 17 : at + 17 + count]) if 0 < count <= 8 else DAMAGED


class GxfCheck(StructureCheck):
    head = 16

    def step(self, held: bytearray, at: int) -> int:
        known = held.startswith(b"\0\0\0\0\x01", at) and held.startswith(b"\xe1\xe2", at + 14)
        return max(16, int.from_bytes(held[at + 6 : at + 10])) if known else DAMAGED


class MusepackCheck(StructureCheck):
    """Musepack, stream version 8: packets with two letters and a length in groups of seven bits."""

    head = 12
    FIRST, NAME = 4, re.compile(rb"[A-Z]{2}")

    def step(self, held: bytearray, at: int) -> int:
        if held.startswith(b"MPCK", at):
            return self.FIRST
        size, place, more = 0, at + 2, True
        while more and place < at + self.head:
            size, more = size << 7 | held[place] & 127, held[place] > 127
            place += 1
        return size if self.NAME.match(held, at) and not more and size > 2 else DAMAGED


class ProgramStreamCheck(StructureCheck):
    """MPEG-PS: packs and packets."""

    head = 14
    END, PACK = 0xB9, 0xBA

    def step(self, held: bytearray, at: int) -> int:
        kind = held[at + 3]
        if held.startswith(bytes(3), at):
            return 1
        if not held.startswith(b"\0\0\x01", at) or kind < self.END:
            return DAMAGED
        if kind == self.END:
            return 4
        if kind == self.PACK:
            return 14 + (held[at + 13] & 7) if held[at + 4] >> 6 == 1 else 12
        return 6 + (held[at + 4] << 8 | held[at + 5])

    def _padding(self, at: int) -> int:
        return 1  # zero bytes may precede any start code


class TransportStreamCheck(StructureCheck):
    """MPEG-TS: packets of one size with a sync byte at their start or, with a time stamp, at byte 4."""

    SIZES = ((188, 0), (192, 4), (204, 0))
    SYNC = 0x47
    FIRST = 5
    """Number of packets by which their size is detected."""
    LATER_SYNC = re.compile(rb"\x47(?:.{187}\x47){4}|\x47(?:.{191}\x47){4}|\x47(?:.{203}\x47){4}", re.DOTALL)
    SEARCHED = 1 << 14
    """Bytes that are searched for the first packet."""
    head = 1

    def __init__(self) -> None:
        super().__init__()
        self._size = self._sync_at = 0

    def step(self, held: bytearray, at: int) -> int:
        if not self._size:
            if len(held) < self.FIRST * 204:
                return MORE
            found = (pair for pair in self.SIZES if all(held[pair[1] + i * pair[0]] == self.SYNC for i in range(5)))
            self._size, self._sync_at = next(found, (0, 0))
            if not self._size and len(held) < self.SEARCHED:
                return MORE
            if not self._size:
                return DAMAGED if self.LATER_SYNC.search(held) else OVER
        syncs = held[at + self._sync_at :: self._size]
        if len(syncs) < 1:
            return MORE
        good = len(syncs) - len(syncs.lstrip(b"\x47"))
        return good * self._size or DAMAGED


CONTAINER_CHECKS: tuple[tuple[re.Pattern[bytes], type[StructureCheck]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), check)
    for pattern, check in (
        (rb"OggS", OggCheck),
        (rb"\x1a\x45\xdf\xa3", MatroskaCheck),
        (rb"FWS", SwfCheck),
        (rb"FLV\x01", FlvCheck),
        (rb"\.RMF", RealCheck),
        (rb"Creative Voice File\x1a", VocCheck),
        (rb"RIFF.{4}AVI ", AviCheck),
        (rb"\x06\x0e\x2b\x34", MxfCheck),
        (rb"\0\0\0\0\x01.{8}..\xe1\xe2", GxfCheck),
        (rb"MPCK", MusepackCheck),
        (rb"\0\0\x01\xba", ProgramStreamCheck),
        (rb"\x47|.{4}\x47", TransportStreamCheck),
    )
)
"""Checks by the first bytes of a recording."""
