"""Structure check of Ogg: pages with a sequence number and a checksum."""

from __future__ import annotations

import zlib

from conure.audio.structure import DAMAGED, MORE, StructureCheck

__all__ = ["OggCheck"]


class OggCheck(StructureCheck):
    head = 27
    FIRST = 2
    REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    """Bytes with reversed bits: Ogg's CRC processes the highest bit of a byte first, zlib's the lowest."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[bytes, int] = {}
        """Next page number of each stream that has contained audio."""

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
        if self._checksum(page) != page[22:26] or (number != expected and not page[5] & self.FIRST):
            return DAMAGED
        if (any(page[6:14]) and page[6:14] != b"\xff" * 8) or stream in self._numbers:
            self._numbers[stream] = number + 1 & 0xFFFFFFFF
        return end - at

    def finish(self, length: int, is_cut: bool) -> None:
        if not self._is_over and not is_cut and self._held:
            self._end(self._base)

    def _checksum(self, page: bytes) -> bytes:
        reversed_page = (page[:22] + bytes(4) + page[26:]).translate(self.REVERSED)
        value = zlib.crc32(reversed_page, 0xFFFFFFFF) ^ 0xFFFFFFFF
        return value.to_bytes(4).translate(self.REVERSED)
