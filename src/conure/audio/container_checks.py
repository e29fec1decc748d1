"""Structure of containers: elements with a head that tells their kind and length."""

from __future__ import annotations

import re
import zlib

from conure.audio.structure import DAMAGED, MORE, OVER, StructureCheck

__all__ = ["CONTAINER_CHECKS"]


class SwfCheck(StructureCheck):
    """Flash, not packed: tags up to an empty one, after which FFmpeg reads nothing."""

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
    """Tags, each followed by its length."""

    head = 11

    def step(self, held: bytearray, at: int) -> int:
        if held.startswith(b"FLV", at):
            return int.from_bytes(held[at + 5 : at + 9]) + 4
        known = held[at] & 0xDF in (8, 9, 18) and not any(held[at + 8 : at + 11])
        return 15 + int.from_bytes(held[at + 1 : at + 4]) if known else DAMAGED


class RealCheck(StructureCheck):
    """Chunks, of which the one with the packets is gone through."""

    head = 8
    CHUNK = re.compile(rb"\.RMF|PROP|MDPR|CONT|INDX|DATA|RMMD|RMJE|RJMD|RMMD")
    DATA_HEAD = 18

    def step(self, held: bytearray, at: int) -> int:
        if self.CHUNK.match(held, at):
            size = int.from_bytes(held[at + 4 : at + 8])
            return self.DATA_HEAD if held.startswith(b"DATA", at) else max(size, 8)
        size = int.from_bytes(held[at + 2 : at + 4])
        return size if held[at] == 0 and held[at + 1] < 2 and size >= 12 else DAMAGED


class VocCheck(StructureCheck):
    """Blocks up to an empty one, after which FFmpeg reads nothing."""

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
    """Chunks; lists are gone through."""

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
    """Keys, lengths and values."""

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
        return 1  # zero bytes may come before any start code


class TransportStreamCheck(StructureCheck):
    """MPEG-TS: packets of one size, each with the same byte at its start, or after a time."""

    SIZES = ((188, 0), (192, 4), (204, 0))
    SYNC = 0x47
    FIRST = 5
    """Packets by which their size is found."""
    LATER = re.compile(rb"\x47(?:.{187}\x47){4}|\x47(?:.{191}\x47){4}|\x47(?:.{203}\x47){4}", re.DOTALL)
    LOOKED_THROUGH = 1 << 14
    """Bytes among which packets are looked for that do not begin at once."""
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
            if not self._size and len(held) < self.LOOKED_THROUGH:
                return MORE
            if not self._size:
                return DAMAGED if self.LATER.search(held) else OVER
        syncs = held[at + self._sync_at :: self._size]
        if len(syncs) < 1:
            return MORE
        good = len(syncs) - len(syncs.lstrip(b"\x47"))
        return good * self._size or DAMAGED


class MatroskaCheck(StructureCheck):
    """Matroska and WebM: elements in elements."""

    head = 12
    SEGMENT, CLUSTER, GROUP = 0x18538067, 0x1F43B675, 0xA0
    ENTERED = (SEGMENT, CLUSTER, GROUP)
    OF_SEGMENT = frozenset(
        (CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367)
    )
    """With the seek head, info, tracks, cues, attachments, chapters, tags."""
    KNOWN = OF_SEGMENT | frozenset(
        (0x1A45DFA3, SEGMENT, GROUP, 0xEC, 0xBF, 0xE7, 0xAB, 0xA7, 0x5854, 0xA3, 0xAF, 0xA1, 0x9B, 0xFB, 0xFA, 0xFD)
    )
    KNOWN |= frozenset((0x75A1, 0x75A2, 0xA4, 0x8E, 0xA2, 0xC8, 0x1B538667))
    FOREVER = 1 << 62

    def __init__(self) -> None:
        super().__init__()
        self._ends = [self.FOREVER]
        """Of the elements that are gone through; a length that is not known lasts until the next one of its kind."""

    def step(self, held: bytearray, at: int) -> int:
        place = self._base + at
        while place >= self._ends[-1]:
            if place > self._ends.pop():
                return DAMAGED
        first = held[at]
        name_size = 9 - first.bit_length()
        if name_size > 4:
            return DAMAGED
        name = first if name_size == 1 else int.from_bytes(held[at : at + name_size])
        size_first = held[at + name_size]
        size_size = 9 - size_first.bit_length()
        if name not in self.KNOWN or size_size > 8:
            return DAMAGED
        head = name_size + size_size
        size = int.from_bytes(held[at + name_size : at + head]) & (1 << 7 * size_size) - 1
        is_known = size != (1 << 7 * size_size) - 1
        if name in self.OF_SEGMENT and len(self._ends) > 2:
            if self._ends[-1] != self.FOREVER:
                return DAMAGED
            del self._ends[2:]
        if not is_known and name not in (self.SEGMENT, self.CLUSTER):
            return DAMAGED
        end = place + head + size if is_known else self.FOREVER
        if end > self._ends[-1] and is_known:
            return DAMAGED
        if name in self.ENTERED:
            self._ends.append(end)
            return head
        return head + size


class OggCheck(StructureCheck):
    """Pages with a number and a check each."""

    head = 27
    FIRST = 2
    REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    """Ogg's check begins with the highest bit of a byte, zlib's with the lowest."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[bytes, int] = {}
        """Of the last page of each stream that held sound."""

    @property
    def problem(self) -> str | None:
        place = self.damaged_at
        return None if place is None else f"the page at byte {place} is damaged or missing, and left out"

    def step(self, held: bytearray, at: int) -> int:
        if not held.startswith(b"OggS", at):
            return DAMAGED
        table = at + self.head
        content = table + held[at + 26]
        if len(held) < content:
            return MORE
        end = content + sum(held[table:content])
        if len(held) < end:
            return MORE
        page = bytes(held[at:end])
        stream, number = page[14:18], int.from_bytes(page[18:22], "little")
        expected = self._numbers.get(stream, number)
        if self._check_of(page) != page[22:26] or (number != expected and not page[5] & self.FIRST):
            return DAMAGED
        if (any(page[6:14]) and page[6:14] != b"\xff" * 8) or stream in self._numbers:
            self._numbers[stream] = number + 1 & 0xFFFFFFFF
        return end - at

    def finish(self, length: int, is_cut: bool) -> None:
        if not self._is_over and not is_cut and self._held:
            self._end(self._base)

    def _check_of(self, page: bytes) -> bytes:
        reversed_page = (page[:22] + bytes(4) + page[26:]).translate(self.REVERSED)
        value = zlib.crc32(reversed_page, 0xFFFFFFFF) ^ 0xFFFFFFFF
        return value.to_bytes(4).translate(self.REVERSED)


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
        (rb"\0\0\x01\xba", ProgramStreamCheck),
        (rb"\x47|.{4}\x47", TransportStreamCheck),
    )
)
"""By the first bytes."""
