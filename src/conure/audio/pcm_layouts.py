"""Chunk layouts and headers of WAV, RF64, W64, AIFF, CAF and AU.

FFmpeg gets a rewritten header with unknown length: `pcm_file` finds the end of the samples, independent of the declared
sizes. Files whose samples are found by an index only are left to FFmpeg.
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

UNKNOWN_SIZE = 0xFFFFFFFF
UNKNOWN_SIZES = (range(0x7FFF0000, 0x80010000), range(0xFFFF0000, 0x100000000))
"""Sizes that mean "unknown" in files written to a pipe; some writers add the header to them."""
MAX_SIZE = 1 << 62
MAX_HEADER_BYTES = 1 << 24
"""Bytes before the samples, pictures included."""
DATA_HEADER_BYTES = 8
"""Bytes that may precede the samples in their chunk."""


@dataclass(frozen=True)
class ContainerChunk:
    name: bytes
    size: int | None
    """Bytes of its content; None if it extends to the end of the file."""


@dataclass(frozen=True)
class PcmHeader:
    """The header of one recording."""

    for_decoder: bytes
    """The rewritten header for FFmpeg."""
    sample_format: bytes
    """Description of the sample format: recordings with equal ones can be decoded as one."""
    size: int | None
    """Declared bytes of samples."""
    skipped: int
    """Bytes between the header of the chunk and the first sample."""
    block: int
    """Bytes of one sample of each channel, or of a packet."""
    rate: float | None
    """Bytes per second, if constant."""
    start: bytes = b""
    """The first bytes of the recording."""


def _printable(name: bytes) -> bool:
    return all(32 <= letter < 127 for letter in name) and name[:1] != b" "


def _known_size(size: int) -> int | None:
    """A declared size of 32 bits; None if it means "unknown"."""
    return None if any(size in sizes for sizes in UNKNOWN_SIZES) else size


def _signature(pattern: bytes, *prefixes: bytes, max_length: int, anchor: tuple[bytes, int] | None = None) -> Signature:
    return Signature(re.compile(pattern, re.DOTALL), prefixes, max_length, anchor)


def _names(text: bytes) -> frozenset[bytes]:
    """Names of four letters, separated by blanks."""
    return frozenset(text[at : at + 4] for at in range(0, len(text), 5))


class Layout(ABC):
    """The chunk layout of a file format."""

    start: ClassVar[Signature]
    """The beginning of a recording."""
    first: ClassVar[int]
    """Offset of the first chunk."""
    head: ClassVar[int] = 8
    """Bytes of a chunk header."""
    align: ClassVar[int] = 2
    data_name: ClassVar[bytes] = b"data"
    """Name of the chunk with the samples."""
    kept: ClassVar[frozenset[bytes]]
    """Chunks before the samples that are needed to decode them."""
    known: ClassVar[frozenset[bytes]] = frozenset()
    """Chunks without samples, which may follow them."""
    tail: ClassVar[Signature | None] = None
    """The beginning of a chunk without samples."""

    @abstractmethod
    def chunk(self, head: bytes) -> ContainerChunk | None:
        """Parses a chunk header of `self.head` bytes; None if it is invalid."""

    @abstractmethod
    def parse_header(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        """Builds the header from the `kept` chunks and the first bytes of the chunk with the samples. None if the file
        is left to FFmpeg."""

    def knows(self, name: bytes) -> bool:
        """Whether a chunk with this name is known to have no samples."""
        return name in self.known

    def announced(self, start: bytes) -> int | None:
        """Bytes of the whole recording as declared at its beginning; None if unknown."""
        return None

    def read_head(self, window: PeekBuffer) -> PcmHeader | None:
        """Reads up to the first sample. None, with an unchanged window, if the file is left to FFmpeg."""
        place, chunks = self.first, dict[bytes, bytes]()
        while window.ensure(place + self.head):
            chunk = self.chunk(bytes(window.held[place : place + self.head]))
            place += self.head
            if chunk is None:
                return None
            if chunk.name == self.data_name:
                window.ensure(place + DATA_HEADER_BYTES)
                head = self.parse_header(chunks, chunk, bytes(window.held[place : place + DATA_HEADER_BYTES]))
                if head is None:
                    return None
                start = bytes(window.held[: self.start.max_length])
                window.skip(place + head.skipped)
                return replace(head, start=start)
            if chunk.size is None or place + chunk.size > MAX_HEADER_BYTES or not window.ensure(place + chunk.size):
                return None
            if chunk.name in self.kept:
                chunks[chunk.name] = bytes(window.held[place : place + chunk.size])
            place += chunk.size + -chunk.size % self.align
        return None


class Riff(Layout):
    """WAV, RF64 and BW64."""

    start = _signature(rb"(?:RIFF|RF64|BW64).{4}WAVE", b"RIFF", b"RF64", b"BW64", max_length=12, anchor=(b"WAVE", 8))
    first = 12
    kept = frozenset((b"fmt ", b"ds64"))
    known = _names(
        b"LIST JUNK junk FLLR PAD  id3  ID3  bext iXML axml chna cue  plst smpl inst fact PEAK cart levl umid link"
        b" _PMX DISP acid strc afsp r64m minf elm1 regn ovwf muma AFAn SAUR LGWV CDif SyLp Cr8r ResU SMED MXrt dbmd"
        b" mext slnt wvlk tlst DGDA bpm  clm  LPHY aXML ltxt note labl ds64 FAKE Fake GUAN XMP  Xtra fmt "
    )
    tail = _signature(rb"LIST.{4}(?:INFO|adtl)|(?:id3 |ID3 ).{4}ID3", b"LIST", b"id3 ", b"ID3 ", max_length=12)

    def chunk(self, head: bytes) -> ContainerChunk | None:
        name, size = struct.unpack("<4sI", head)
        return ContainerChunk(name, _known_size(size)) if _printable(name) else None

    def parse_header(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        layout = chunks.get(b"fmt ", b"")
        size = chunk.size
        if size is None and len(large := chunks.get(b"ds64", b"")) >= 16:
            declared = struct.unpack("<Q", large[8:16])[0]
            size = declared if declared < MAX_SIZE else None
        return _as_wav(layout, size)

    def announced(self, start: bytes) -> int | None:
        size = _known_size(struct.unpack("<I", start[4:8])[0])
        return None if size is None or not start.startswith(b"RIFF") else size + 8


def _as_wav(layout: bytes, size: int | None) -> PcmHeader | None:
    if len(layout) < 14:
        return None
    second, block = struct.unpack("<IH", layout[8:14])
    unknown = struct.pack("<I", UNKNOWN_SIZE)
    head = b"RIFF" + unknown + b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + bytes(len(layout) % 2)
    return PcmHeader(head + b"data" + unknown, layout, size, 0, max(1, block), second or None)


class Wave64(Layout):
    """Sony's W64: names are GUIDs, and sizes include the chunk header."""

    NAME_END = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    """The last bytes of all names but the first."""
    FILE = bytes.fromhex("726966662e91cf11a5d628db04c10000")
    """The name of the file chunk."""
    start = _signature(re.escape(FILE) + rb".{8}" + re.escape(b"wave" + NAME_END), FILE, max_length=40)
    first = 40
    head = 24
    align = 8
    data_name = b"data" + NAME_END
    kept = frozenset((b"fmt " + NAME_END,))

    def knows(self, name: bytes) -> bool:
        return name.endswith(self.NAME_END)

    def chunk(self, head: bytes) -> ContainerChunk | None:
        name, size = struct.unpack("<16sQ", head)
        if not name.endswith(self.NAME_END):
            return None
        return ContainerChunk(name, size - 24 if 24 <= size < MAX_SIZE else None)

    def parse_header(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        return _as_wav(chunks.get(b"fmt " + self.NAME_END, b""), chunk.size)


class Aiff(Layout):
    """AIFF and AIFF-C."""

    start = _signature(rb"FORM.{4}AIF[FC]", b"FORM", max_length=12)
    first = 12
    data_name = b"SSND"
    kept = frozenset((b"COMM", b"FVER", b"wave"))
    known = _names(b"MARK INST MIDI AESD APPL COMT NAME AUTH (c)  ANNO ID3  FVER SAXL CHAN basc trns cate LGWV COMM")
    tail = _signature(rb"ID3 .{4}ID3", b"ID3 ", max_length=12)
    MAX_CHUNK = 0x7FFFFFFF
    WIDTHS: ClassVar[Mapping[bytes, int]] = {b"ulaw": 1, b"alaw": 1, b"fl32": 4, b"fl64": 8}
    PCM_KINDS = (b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32")

    def chunk(self, head: bytes) -> ContainerChunk | None:
        name, size = struct.unpack(">4sI", head)
        return ContainerChunk(name, _known_size(size)) if _printable(name) else None

    def parse_header(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        layout = chunks.get(b"COMM", b"")
        if len(layout) < 18 or len(content) < 8:
            return None
        skipped = struct.unpack(">I", content[:4])[0] + 8
        size = None if chunk.size is None else max(0, chunk.size - skipped)
        kind = b"AIFC" if len(layout) >= 22 else b"AIFF"
        parts = [name + struct.pack(">I", len(held)) + held + bytes(len(held) % 2) for name, held in chunks.items()]
        unknown = struct.pack(">I", self.MAX_CHUNK)
        head = b"FORM" + unknown + kind + b"".join(parts) + b"SSND" + unknown + bytes(8)
        block, rate = self._layout(layout)
        return PcmHeader(head, layout[:2] + layout[6:], size, skipped, block, rate)

    def _layout(self, layout: bytes) -> tuple[int, float | None]:
        channels, _, bits, exponent, mantissa = struct.unpack(">HIHHQ", layout[:18])
        kind = layout[18:22] or b"NONE"
        if kind in self.PCM_KINDS:
            width = (bits + 7) // 8
        elif kind.lower() in self.WIDTHS:
            width = self.WIDTHS[kind.lower()]
        else:
            return 1, None
        block = max(1, channels * width)
        shift = (exponent & 0x7FFF) - 16383 - 63  # the rate is a float of 80 bits
        return block, block * mantissa * 2.0**shift or None if shift < 0 else None


class Caf(Layout):
    """Apple's Core Audio Format with packets of constant size."""

    start = _signature(rb"caff\x00\x01.{2}desc", b"caff", max_length=12)
    first = 8
    head = 12
    align = 1
    kept = frozenset((b"desc", b"chan", b"kuki"))
    known = _names(b"strg mark regn inst midi ovvw peak edct info umid uuid free chan kuki pakt")

    def chunk(self, head: bytes) -> ContainerChunk | None:
        name, size = struct.unpack(">4sq", head)
        return ContainerChunk(name, size if 0 <= size < MAX_SIZE else None) if _printable(name) else None

    def parse_header(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        layout = chunks.get(b"desc", b"")
        if len(layout) != 32:
            return None
        rate, _, _, packet, frames, _, _ = struct.unpack(">d4sIIIII", layout)
        if not packet or not frames:
            return None
        parts = [name + struct.pack(">q", len(held)) + held for name, held in chunks.items()]
        head = b"caff\x00\x01\x00\x00" + b"".join(parts) + b"data" + struct.pack(">q", -1) + bytes(4)
        size = None if chunk.size is None else max(0, chunk.size - 4)
        sample_format = layout + chunks.get(b"kuki", b"")
        return PcmHeader(head, sample_format, size, 4, packet, rate * packet / frames if 0 < rate < 1e9 else None)


class Au(Layout):
    """Sun's AU: one header, then samples."""

    start = _signature(
        rb"\.snd\x00\x00.{2}.{4}\x00{3}[\x01-\x1d]\x00[\x00-\x0b].{2}\x00{3}[\x01-\x40]", b".snd", max_length=24
    )
    first = 0
    kept = frozenset()
    WIDTHS: ClassVar[Mapping[int, int]] = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}

    def chunk(self, head: bytes) -> ContainerChunk | None:
        return None

    def parse_header(self, chunks: Mapping[bytes, bytes], chunk: ContainerChunk, content: bytes) -> PcmHeader | None:
        raise NotImplementedError

    def read_head(self, window: PeekBuffer) -> PcmHeader | None:
        if not window.ensure(self.start.max_length):
            return None
        head = bytes(window.held[: self.start.max_length])
        first, size, encoding, rate, channels = struct.unpack(">IIIII", head[4:])
        if not self.start.pattern.match(head) or first < len(head) or not window.ensure(first):
            return None
        block = channels * self.WIDTHS.get(encoding, 0)
        for_decoder = head[:8] + struct.pack(">I", UNKNOWN_SIZE) + bytes(window.held[12:first])
        window.skip(first)
        return PcmHeader(for_decoder, head[12:], _known_size(size), 0, max(1, block), block * rate or None)


LAYOUTS: tuple[Layout, ...] = (Riff(), Wave64(), Aiff(), Caf(), Au())
