"""Detects truncated files by the lengths that their containers announce.

FFmpeg silently takes the end of the file as the end of the recording.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from conure.audio.pcm_file import SLACK, layout_of
from conure.audio.source import SourceFile

__all__ = ["missing_end"]

HEADER_BYTES = 1 << 14
"""First bytes, in which containers announce their length."""
MAX_PAGE, PAGE_HEADER, LAST_PAGE = 65_307, 27, 4
"""Bytes of an Ogg page and of its header; the flag in its sixth byte for the last page."""
STREAMED_SIZE = 0x7FFF0000
"""Larger RIFF sizes mean "unknown"; they occur in files written to a pipe."""
MAX_CHUNKS = 100_000
LAST_BLOCK = 9
"""Kinds of blocks of Creative's files."""
SWF_UNKNOWN_SIZE = 100 << 20
"""FFmpeg's size of SWF files written to a pipe."""
XING_BYTES = 200
"""First bytes of an MP3's first frame, which may contain the length."""


def missing_end(file: SourceFile, start: int, length: int) -> str | None:
    """The problem if the recording at `start` is truncated. `length`: of the file, whose position is kept."""
    head = file.read_at(start, HEADER_BYTES)
    announced_length, slack = next(
        ((function, slack) for pattern, function, slack in ANNOUNCED_LENGTHS if pattern.match(head)), (_chunks, 0)
    )
    announced = announced_length(head, file, start)
    if announced is not None and start + announced > length + slack:
        return f"cut off: {start + announced} bytes announced, {length} there"
    if head.startswith(b"OggS"):
        last = file.read_at(max(start, length - MAX_PAGE), MAX_PAGE)
        return _missing_page(last)
    return None


def _missing_page(last: bytes) -> str | None:
    page = last[max(0, last.rfind(b"OggS")) :]
    if len(page) < PAGE_HEADER or not page[5] & LAST_PAGE or len(page) < _page_length(page):
        return "cut off, or not finished: its last page is missing"
    return None


def _page_length(page: bytes) -> int:
    """Length of a page: header, table of segment lengths, segments."""
    segments = page[26]
    return PAGE_HEADER + segments + sum(page[PAGE_HEADER : PAGE_HEADER + segments])


def _riff(head: bytes, file: SourceFile, start: int) -> int | None:
    """AVI and other RIFF files."""
    size = int.from_bytes(head[4:8], "little") + 8
    return size if size < STREAMED_SIZE else None


def _segment(head: bytes, file: SourceFile, start: int) -> int | None:
    """Matroska and WebM: an EBML header, and a segment whose length may be unknown."""
    at = 0
    for _ in range(8):
        name_size = _ebml_size(head[at : at + 1])
        size_at = at + name_size
        size_size = _ebml_size(head[size_at : size_at + 1])
        number = head[size_at : size_at + size_size]
        if not name_size or not size_size or len(number) < size_size:
            return None
        bits = 7 * size_size
        size = int.from_bytes(number) & (1 << bits) - 1
        end = size_at + size_size + size
        if head[at : at + name_size] == b"\x18\x53\x80\x67":
            return end if size != (1 << bits) - 1 else None
        at = end
    return None


def _ebml_size(first: bytes) -> int:
    """Number of bytes of an EBML number, by its first byte."""
    return 9 - first[0].bit_length() if first and first[0] else 0


def _asf(head: bytes, file: SourceFile, start: int) -> int | None:
    """ASF: objects; the one with the packets is the last, or followed by an index."""
    at = 0
    for _ in range(8):
        name, size = head[at : at + 16], int.from_bytes(head[at + 16 : at + 24], "little")
        if len(head) < at + 24 or size < 24:
            return None
        at += size
        if name == ASF_DATA:
            return at
    return None


def _flv(head: bytes, file: SourceFile, start: int) -> int | None:
    found = re.search(rb"\x00\x08filesize\x00(.{8})", head, re.DOTALL)
    size = struct.unpack(">d", found[1])[0] if found else 0.0
    return int(size) if 0 < size < 2**62 else None


def _swf(head: bytes, file: SourceFile, start: int) -> int | None:
    size = int.from_bytes(head[4:8], "little")
    return size if size != SWF_UNKNOWN_SIZE else None


def _sox(head: bytes, file: SourceFile, start: int) -> int | None:
    """SoX: samples of four bytes after the header."""
    first, count = struct.unpack("<IQ", head[4:16]) if len(head) >= 16 else (0, 0)
    return 4 + first + 4 * count if 0 < count < 2**60 else None


def _dsf(head: bytes, file: SourceFile, start: int) -> int | None:
    size = int.from_bytes(head[12:20], "little")
    return size if 0 < size < 2**62 else None


def _dff(head: bytes, file: SourceFile, start: int) -> int | None:
    """DSDIFF."""
    size = int.from_bytes(head[4:12])
    return 12 + size if 0 < size < 2**62 else None


def _avr(head: bytes, file: SourceFile, start: int) -> int | None:
    """Audio Visual Research: samples of each channel, after a head."""
    if len(head) < AVR_HEADER:
        return None
    channels, bits, count = 2 if head[12:14] != b"\0\0" else 1, int.from_bytes(head[14:16]), int.from_bytes(head[26:30])
    return AVR_HEADER + count * channels * (bits // 8) if count else None


def _form(head: bytes, file: SourceFile, start: int) -> int | None:
    """8SVX and other IFF files."""
    size = int.from_bytes(head[4:8]) + 8
    return size if size < STREAMED_SIZE else None


def _real(head: bytes, file: SourceFile, start: int) -> int | None:
    """RealMedia: chunks with a name and a length, up to the packets."""
    place = start
    for _ in range(64):
        part = file.read_at(place, 8)
        size = int.from_bytes(part[4:8])
        if len(part) < 8 or size < 8:
            return None
        place += size
        if part.startswith(b"DATA"):
            return place - start
    return None


def _voc(head: bytes, file: SourceFile, start: int) -> int | None:
    """Creative Voice: blocks, and an empty one at the end."""
    place = start + int.from_bytes(head[20:22], "little")
    for _ in range(MAX_CHUNKS):
        block = file.read_at(place, 4)
        if len(block) < 4 or not block[0]:
            return place + 1 - start
        if block[0] > LAST_BLOCK:
            return None
        place += 4 + int.from_bytes(block[1:], "little")
    return None


def _mp3(head: bytes, file: SourceFile, start: int) -> int | None:
    """MP3 with a first frame that contains the length instead of audio."""
    place = start
    if head.startswith(b"ID3") and len(head) > 9:
        sevens = head[6:10]
        tag = sevens[0] << 21 | sevens[1] << 14 | sevens[2] << 7 | sevens[3]
        place += 10 + tag + (10 if head[5] & 16 else 0)
    frame = file.read_at(place, XING_BYTES)
    if frame[36:40] == b"VBRI":
        return place - start + int.from_bytes(frame[46:50])
    found = re.search(rb"(?:Xing|Info)\x00\x00\x00(.)", frame, re.DOTALL)
    if not found or not found[1][0] & 2:
        return None
    at = found.end() + (4 if found[1][0] & 1 else 0)
    size = int.from_bytes(frame[at : at + 4])
    return place - start + size if len(frame) >= at + 4 else None


def _chunks(head: bytes, file: SourceFile, start: int) -> int | None:
    """AIFF and CAF that are left to FFmpeg: the end of the last chunk, which may be beyond the end of the file."""
    layout = layout_of(head)
    if layout is None:
        return None
    place, end = start + layout.first, None
    for _ in range(MAX_CHUNKS):
        head = file.read_at(place, layout.head)
        chunk = layout.chunk(head) if len(head) == layout.head else None
        if chunk is None or chunk.size is None:
            return end
        end = place + layout.head + chunk.size - start
        place = start + end + -chunk.size % layout.align
    return None


AVR_HEADER = 128
ASF_HEAD = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")

LengthFunction = Callable[[bytes, SourceFile, int], int | None]
ANNOUNCED_LENGTHS: tuple[tuple[re.Pattern[bytes], LengthFunction, int], ...] = (
    (re.compile(rb"RIFF.{4}(?!WAVE)", re.DOTALL), _riff, SLACK),
    (re.compile(rb"\x1a\x45\xdf\xa3"), _segment, 0),
    (re.compile(re.escape(ASF_HEAD)), _asf, 0),
    (re.compile(rb"FLV\x01"), _flv, SLACK),
    (re.compile(rb"FWS"), _swf, SLACK),
    (re.compile(rb"\.SoX"), _sox, 0),
    (re.compile(rb"2BIT"), _avr, SLACK),
    (re.compile(rb"DSD \x1c\0{7}"), _dsf, SLACK),
    (re.compile(rb"FRM8.{8}DSD ", re.DOTALL), _dff, SLACK),
    (re.compile(rb"FORM.{4}(?!AIF)", re.DOTALL), _form, SLACK),
    (re.compile(rb"\.RMF"), _real, SLACK),
    (re.compile(rb"Creative Voice File\x1a"), _voc, 0),
    (re.compile(rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"), _mp3, SLACK),
)
"""By the first bytes: a function that returns the announced length, and the bytes by which it may be too large."""
