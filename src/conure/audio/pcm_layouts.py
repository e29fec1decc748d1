"""How WAV, RF64, W64, AIFF, CAF and AU lay out their chunks, and the head of a recording in each of them.

A head is given to FFmpeg anew, with a length that is not known: how far the samples go is found out in
`chunked.py`, whatever sizes the file tells. Samples that FFmpeg can only find with an index are left to it.
"""

from __future__ import annotations

import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from conure.audio.file_signatures import Signature
from conure.audio.peek_buffer import PeekBuffer

__all__ = ["LAYOUTS", "ContainerChunk", "Layout", "PcmHeader"]

NOT_KNOWN = 0xFFFFFFFF
STREAMED = (range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 0x100000000))
"""Sizes that stand for "not known" in files that were written to a pipe; many a writer counts its head, too."""
FOREVER = 1 << 62
LONGEST_HEAD = 1 << 24
"""Bytes before the samples, pictures included."""
SOUND_HEAD = 8
"""Bytes of the chunk with the samples that may come before them."""


@dataclass(frozen=True)
class ContainerChunk:
    name: bytes
    size: int | None
    """Bytes of its content; None where it goes on to the end of the file."""


@dataclass(frozen=True)
class PcmHeader:
    """What comes before the samples of one recording."""

    for_decoder: bytes
    same: bytes
    """What must be equal where the samples of two recordings are to be decoded as one."""
    size: int | None
    """Bytes of samples, as the file tells."""
    skipped: int
    """Bytes between the head of the chunk and the first sample."""
    block: int
    """Bytes that belong together: a sample of each channel, or a packet."""
    rate: float | None
    """Bytes per second, where that is fixed."""
    start: bytes = b""
    """The first bytes of the recording."""


def _printable(name: bytes) -> bool:
    return all(32 <= letter < 127 for letter in name) and name[:1] != b" "


def _told(size: int) -> int | None:
    """A size of 32 bits."""
    return None if any(size in sizes for sizes in STREAMED) else size


def _signature(pattern: bytes, *begins: bytes, longest: int, anchor: tuple[bytes, int] | None = None) -> Signature:
    return Signature(re.compile(pattern, re.DOTALL), begins, longest, anchor)


def _names(text: bytes) -> frozenset[bytes]:
    """Of four letters each, a blank between them."""
    return frozenset(text[at : at + 4] for at in range(0, len(text), 5))


class Layout(ABC):
    start: ClassVar[Signature]
    """With which a recording begins."""
    first: ClassVar[int]
    """Place of the first chunk."""
    head: ClassVar[int] = 8
    """Bytes before the content of a chunk."""
    align: ClassVar[int] = 2
    sound: ClassVar[bytes] = b"data"
    kept: ClassVar[frozenset[bytes]]
    """Chunks before the samples that are needed to decode them."""
    known: ClassVar[frozenset[bytes]] = frozenset()
    """Chunks that hold no samples, and may come after them."""
    tail: ClassVar[Signature | None] = None
    """The beginning of a chunk without samples."""

    @abstractmethod
    def chunk(self, head: bytes) -> ContainerChunk | None:
        """`head`: so many bytes as `head` says. None where it is none."""

    @abstractmethod
    def sound_head(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        """`chunks`: those that are kept; `content`: the first bytes of the one with the samples. None: not known."""

    def knows(self, name: bytes) -> bool:
        """Whether the chunk of that name holds no samples."""
        return name in self.known

    def announced(self, start: bytes) -> int | None:
        """Bytes of the whole recording as its first ones tell; None where they do not."""
        return None

    def read_head(self, window: PeekBuffer) -> PcmHeader | None:
        """Leaves the window before the first sample; or, where the recording is left to FFmpeg, as it is: None."""
        place, chunks = self.first, dict[bytes, bytes]()
        while window.ensure(place + self.head):
            chunk = self.chunk(bytes(window.held[place : place + self.head]))
            place += self.head
            if chunk is None:
                return None
            if chunk.name == self.sound:
                window.ensure(place + SOUND_HEAD)
                head = self.sound_head(chunks, chunk, bytes(window.held[place : place + SOUND_HEAD]))
                if head is None:
                    return None
                start = bytes(window.held[: self.start.max_length])
                window.skip(place + head.skipped)
                return replace(head, start=start)
            if chunk.size is None or place + chunk.size > LONGEST_HEAD or not window.ensure(place + chunk.size):
                return None
            if chunk.name in self.kept:
                chunks[chunk.name] = bytes(window.held[place : place + chunk.size])
            place += chunk.size + -chunk.size % self.align
        return None


class Riff(Layout):
    """WAV, RF64 and BW64."""

    start = _signature(rb"(?:RIFF|RF64|BW64).{4}WAVE", b"RIFF", b"RF64", b"BW64", longest=12, anchor=(b"WAVE", 8))
    first = 12
    kept = frozenset((b"fmt ", b"ds64"))
    known = _names(
        b"LIST JUNK junk FLLR PAD  id3  ID3  bext iXML axml chna cue  plst smpl inst fact PEAK cart levl umid link"
        b" _PMX DISP acid strc afsp r64m minf elm1 regn ovwf muma AFAn SAUR LGWV CDif SyLp Cr8r ResU SMED MXrt dbmd"
        b" mext slnt wvlk tlst DGDA bpm  clm  LPHY aXML ltxt note labl ds64 FAKE Fake GUAN XMP  Xtra fmt "
    )
    tail = _signature(rb"LIST.{4}(?:INFO|adtl)|(?:id3 |ID3 ).{4}ID3", b"LIST", b"id3 ", b"ID3 ", longest=12)

    def chunk(self, head: bytes) -> ContainerChunk | None:
        name, size = struct.unpack("<4sI", head)
        return ContainerChunk(name, _told(size)) if _printable(name) else None

    def sound_head(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        layout = chunks.get(b"fmt ", b"")
        size = chunk.size
        if size is None and len(large := chunks.get(b"ds64", b"")) >= 16:
            told = struct.unpack("<Q", large[8:16])[0]
            size = told if told < FOREVER else None
        return _as_wav(layout, size)

    def announced(self, start: bytes) -> int | None:
        size = _told(struct.unpack("<I", start[4:8])[0])
        return None if size is None or not start.startswith(b"RIFF") else size + 8


def _as_wav(layout: bytes, size: int | None) -> PcmHeader | None:
    if len(layout) < 14:
        return None
    second, block = struct.unpack("<IH", layout[8:14])
    unknown = struct.pack("<I", NOT_KNOWN)
    head = b"RIFF" + unknown + b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + bytes(len(layout) % 2)
    return PcmHeader(head + b"data" + unknown, layout, size, 0, max(1, block), second or None)


class Wave64(Layout):
    """Sony's W64: names are GUIDs, and sizes count the head of the chunk."""

    MORE = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    """The end of all names but the first."""
    FILE = bytes.fromhex("726966662e91cf11a5d628db04c10000")
    """The name of the whole."""
    start = _signature(re.escape(FILE) + rb".{8}" + re.escape(b"wave" + MORE), FILE, longest=40)
    first = 40
    head = 24
    align = 8
    sound = b"data" + MORE
    kept = frozenset((b"fmt " + MORE,))

    def knows(self, name: bytes) -> bool:
        return name.endswith(self.MORE)

    def chunk(self, head: bytes) -> ContainerChunk | None:
        name, size = struct.unpack("<16sQ", head)
        if not name.endswith(self.MORE):
            return None
        return ContainerChunk(name, size - 24 if 24 <= size < FOREVER else None)

    def sound_head(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        return _as_wav(chunks.get(b"fmt " + self.MORE, b""), chunk.size)


class Aiff(Layout):
    """AIFF and AIFF-C."""

    start = _signature(rb"FORM.{4}AIF[FC]", b"FORM", longest=12)
    first = 12
    sound = b"SSND"
    kept = frozenset((b"COMM", b"FVER", b"wave"))
    known = _names(b"MARK INST MIDI AESD APPL COMT NAME AUTH (c)  ANNO ID3  FVER SAXL CHAN basc trns cate LGWV COMM")
    tail = _signature(rb"ID3 .{4}ID3", b"ID3 ", longest=12)
    LONGEST = 0x7FFFFFFF
    WIDTHS: ClassVar[Mapping[bytes, int]] = {b"ulaw": 1, b"alaw": 1, b"fl32": 4, b"fl64": 8}
    PLAIN = (b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32")

    def chunk(self, head: bytes) -> ContainerChunk | None:
        name, size = struct.unpack(">4sI", head)
        return ContainerChunk(name, _told(size)) if _printable(name) else None

    def sound_head(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        layout = chunks.get(b"COMM", b"")
        if len(layout) < 18 or len(content) < 8:
            return None
        skipped = struct.unpack(">I", content[:4])[0] + 8
        size = None if chunk.size is None else max(0, chunk.size - skipped)
        kind = b"AIFC" if len(layout) >= 22 else b"AIFF"
        parts = [name + struct.pack(">I", len(held)) + held + bytes(len(held) % 2) for name, held in chunks.items()]
        unknown = struct.pack(">I", self.LONGEST)
        head = b"FORM" + unknown + kind + b"".join(parts) + b"SSND" + unknown + bytes(8)
        block, rate = self._layout(layout)
        return PcmHeader(head, layout[:2] + layout[6:], size, skipped, block, rate)

    def _layout(self, layout: bytes) -> tuple[int, float | None]:
        channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", layout[:18])
        kind = layout[18:22] or b"NONE"
        if kind in self.PLAIN:
            width = (bits + 7) // 8
        elif kind.lower() in self.WIDTHS:
            width = self.WIDTHS[kind.lower()]
        else:
            return 1, None
        block = max(1, channels * width)
        shift = (exponent & 0x7FFF) - 16383 - 63  # the rate is a number of 80 bits
        return block, block * mantissa * 2.0**shift or None if shift < 0 else None


class Caf(Layout):
    """Apple's Core Audio Format, where all packets are of one size."""

    start = _signature(rb"caff\x00\x01.{2}desc", b"caff", longest=12)
    first = 8
    head = 12
    align = 1
    kept = frozenset((b"desc", b"chan", b"kuki"))
    known = _names(b"strg mark regn inst midi ovvw peak edct info umid uuid free chan kuki pakt")

    def chunk(self, head: bytes) -> ContainerChunk | None:
        name, size = struct.unpack(">4sq", head)
        return ContainerChunk(name, size if 0 <= size < FOREVER else None) if _printable(name) else None

    def sound_head(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        layout = chunks.get(b"desc", b"")
        if len(layout) != 32:
            return None
        rate, _, _, packet, frames, _, _ = struct.unpack(">d4sIIIII", layout)
        if not packet or not frames:
            return None
        parts = [name + struct.pack(">q", len(held)) + held for name, held in chunks.items()]
        head = b"caff\x00\x01\x00\x00" + b"".join(parts) + b"data" + struct.pack(">q", -1) + bytes(4)
        size = None if chunk.size is None else max(0, chunk.size - 4)
        same = layout + chunks.get(b"kuki", b"")
        return PcmHeader(head, same, size, 4, packet, rate * packet / frames if 0 < rate < 1e9 else None)


class Au(Layout):
    """Sun's: one head, and samples."""

    start = _signature(
        rb"\.snd\x00\x00.{2}.{4}\x00{3}[\x01-\x1d]\x00[\x00-\x0b].{2}\x00{3}[\x01-\x40]", b".snd", longest=24
    )
    first = 0
    kept = frozenset()
    WIDTHS: ClassVar[Mapping[int, int]] = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}

    def chunk(self, head: bytes) -> ContainerChunk | None:
        return None

    def sound_head(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        raise NotImplementedError

    def read_head(self, window: PeekBuffer) -> PcmHeader | None:
        if not window.ensure(self.start.max_length):
            return None
        head = bytes(window.held[: self.start.max_length])
        first, size, encoding, rate, channels = struct.unpack(">IIIII", head[4:])
        if not self.start.pattern.match(head) or first < len(head) or not window.ensure(first):
            return None
        block = channels * self.WIDTHS.get(encoding, 0)
        for_decoder = head[:8] + struct.pack(">I", NOT_KNOWN) + bytes(window.held[12:first])
        window.skip(first)
        return PcmHeader(for_decoder, head[12:], _told(size), 0, max(1, block), block * rate or None)


LAYOUTS: tuple[Layout, ...] = (Riff(), Wave64(), Aiff(), Caf(), Au())
