"""Structure checks of formats without a container: MPEG audio, ADTS, LOAS, AC-3, DTS, AMR."""

from __future__ import annotations

import re
from abc import abstractmethod

from conure.audio.structure import DAMAGED, MORE, OVER, StructureCheck

__all__ = ["FRAME_CHECKS"]

TAGS_AT_THE_END = (b"TAG", b"APETAG", b"LYRICS", b"3DI")


class FrameCheck(StructureCheck):
    """A sequence of frames. ID3 tags may occur anywhere, other tags only at the end."""

    head = 10

    def step(self, held: bytearray, at: int) -> int:
        size = self.frame(held, at)
        if size != DAMAGED:
            return size
        if held.startswith(b"ID3", at):
            a, b, c, d = held[at + 6 : at + 10]
            return 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if held[at + 5] & 16 else 0)
        return OVER if held.startswith(TAGS_AT_THE_END, at) else DAMAGED

    @abstractmethod
    def frame(self, held: bytearray, at: int) -> int:
        """Length of the frame at `at`, or a code like `step`."""


class MpegCheck(FrameCheck):
    """MPEG audio, layers 1 to 3."""

    RATES = ((11_025, 12_000, 8_000), (0, 0, 0), (22_050, 24_000, 16_000), (44_100, 48_000, 32_000))
    """By version: 2.5, reserved, 2, 1."""
    KBITS = (
        (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
        (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
        (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    )
    KBITS_OF_2 = (
        (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
        (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
        (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    )

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[tuple[int, int], int] = {}

    def frame(self, held: bytearray, at: int) -> int:
        if held[at] != 0xFF:
            return DAMAGED
        key = held[at + 1], held[at + 2]
        size = self._sizes.get(key)
        if size is None:
            size = self._sizes[key] = self._size(*key)
        return size

    def _size(self, second: int, third: int) -> int:
        version, layer = second >> 3 & 3, 3 - (second >> 1 & 3)
        kbits, rate, padding = third >> 4, third >> 2 & 3, third >> 1 & 1
        if second < 0xE0 or version == 1 or layer == 3 or kbits == 15 or rate == 3:
            return DAMAGED
        if not kbits:
            return OVER  # free format: only the next frame would reveal the length
        bits = 1_000 * (self.KBITS if version == 3 else self.KBITS_OF_2)[layer][kbits - 1]
        hertz = self.RATES[version][rate]
        if layer == 0:
            return (12 * bits // hertz + padding) * 4
        return (72 if layer == 2 and version != 3 else 144) * bits // hertz + padding


class AdtsCheck(FrameCheck):
    def frame(self, held: bytearray, at: int) -> int:
        size = (held[at + 3] & 3) << 11 | held[at + 4] << 3 | held[at + 5] >> 5
        return size if held[at] == 0xFF and held[at + 1] & 0xF6 == 0xF0 and size > 7 else DAMAGED


class LoasCheck(FrameCheck):
    def frame(self, held: bytearray, at: int) -> int:
        if held[at] != 0x56 or held[at + 1] & 0xE0 != 0xE0:
            return DAMAGED
        return 3 + ((held[at + 1] & 31) << 8 | held[at + 2])


class Ac3Check(FrameCheck):
    """AC-3 and E-AC-3."""

    KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)

    def frame(self, held: bytearray, at: int) -> int:
        if held[at] != 0x0B or held[at + 1] != 0x77:
            return DAMAGED
        kind = held[at + 5] >> 3
        if kind > 16:
            return DAMAGED
        if kind > 10:
            return 2 * ((held[at + 2] & 7) << 8 | held[at + 3]) + 2
        rate, code = held[at + 4] >> 6, held[at + 4] & 63
        if rate == 3 or code >= 2 * len(self.KBITS):
            return DAMAGED
        kbits = self.KBITS[code >> 1]
        if rate == 1:
            return 2 * (kbits * 96_000 // 44_100 + (code & 1))
        return kbits * (4 if rate == 0 else 6)


class DtsCheck(FrameCheck):
    """The DTS core; the check ends at an extension."""

    def frame(self, held: bytearray, at: int) -> int:
        if held.startswith(b"\x7f\xfe\x80\x01", at):
            return 1 + ((held[at + 5] & 3) << 12 | held[at + 6] << 4 | held[at + 7] >> 4)
        return OVER if held.startswith(b"\x64\x58\x20\x25", at) else DAMAGED


class AmrCheck(StructureCheck):
    head = 1
    SIZES = (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 0, 1)
    WIDE = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self._sizes: tuple[int, ...] = ()

    def step(self, held: bytearray, at: int) -> int:
        if not self._sizes:
            if len(held) < 9:
                return MORE
            wide = held.startswith(b"#!AMR-WB\n")
            self._sizes = self.WIDE if wide else self.SIZES
            return 9 if wide else 6
        return self._sizes[held[at] >> 3 & 15] or DAMAGED if not held[at] & 0x83 else DAMAGED

    def _padding(self, at: int) -> int:
        return self.step(self._held, at)  # zero is the header of a frame of the lowest rate


class TaggedCheck(FrameCheck):
    """Frames after an ID3 tag; the first one determines their format."""

    def __init__(self) -> None:
        super().__init__()
        self._frames: FrameCheck | None = None

    def frame(self, held: bytearray, at: int) -> int:
        if self._frames is None:
            if held.startswith(b"ID3", at):
                return DAMAGED
            found = next((check for begin, check in FRAMES if begin.match(held, at)), None)
            if found is None:
                return OVER
            self._frames = found()
        return self._frames.frame(held, at)


FRAMES: tuple[tuple[re.Pattern[bytes], type[FrameCheck]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), check)
    for pattern, check in (
        (rb"\xff[\xf0\xf1\xf8\xf9]", AdtsCheck),
        (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb\xfc\xfd\xf4\xf5]", MpegCheck),
        (rb"\x56[\xe0-\xff]", LoasCheck),
        (rb"\x0b\x77", Ac3Check),
        (rb"\x7f\xfe\x80\x01", DtsCheck),
    )
)
FRAME_CHECKS: tuple[tuple[re.Pattern[bytes], type[StructureCheck]], ...] = (
    *FRAMES,
    (re.compile(rb"ID3"), TaggedCheck),
    (re.compile(rb"#!AMR(?:-WB)?\n"), AmrCheck),
)
"""Checks by the first bytes of a recording."""
