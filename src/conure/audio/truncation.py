"""What the end of a file lacks, by the lengths that its containers announce.

FFmpeg takes the end of the file for the end of the recording, without a word.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from conure.audio.pcm_file import SLACK, layout_of
from conure.audio.source import SourceFile

__all__ = ["missing_end"]

HEAD = 1 << 14
"""Bytes at the beginning in which containers tell their length."""
LONGEST_PAGE, PAGE_HEAD, LAST_PAGE = 65_307, 27, 4
"""Bytes of a page of Ogg and of its head; the flag in its sixth byte that says it is the last."""
STREAMED_SIZE = 0x7FFF0000
"""A RIFF size from here on stands for "unknown" in files that were written to a pipe."""
MOST_CHUNKS = 100_000
LAST_BLOCK = 9
"""Kinds of blocks of Creative's files."""
SWF_NOT_KNOWN = 100 << 20
"""FFmpeg writes it to a pipe."""
XING_BEFORE = 200
"""Bytes of an MP3's first frame among which the length is told."""


def missing_end(file: SourceFile, start: int, length: int) -> str | None:
    """`length`: of the file, which is left at `start`, where the recording begins."""
    head = file.read_at(start, HEAD)
    told, slack = next(((told, slack) for begin, told, slack in ANNOUNCED if begin.match(head)), (_chunks, 0))
    announced = told(head, file, start)
    if announced is not None and start + announced > length + slack:
        return f"cut off: {start + announced} bytes announced, {length} there"
    if head.startswith(b"OggS"):
        last = file.read_at(max(start, length - LONGEST_PAGE), LONGEST_PAGE)
        return _missing_page(last)
    return None


def _missing_page(last: bytes) -> str | None:
    page = last[max(0, last.rfind(b"OggS")) :]
    if len(page) < PAGE_HEAD or not page[5] & LAST_PAGE or len(page) < _page_length(page):
        return "cut off, or not finished: its last page is missing"
    return None


def _page_length(page: bytes) -> int:
    """Head, table of segment lengths, segments."""
    segments = page[26]
    return PAGE_HEAD + segments + sum(page[PAGE_HEAD : PAGE_HEAD + segments])


def _riff(head: bytes, file: SourceFile, start: int) -> int | None:
    """AVI and others."""
    size = int.from_bytes(head[4:8], "little") + 8
    return size if size < STREAMED_SIZE else None


def _segment(head: bytes, file: SourceFile, start: int) -> int | None:
    """Matroska and WebM: a head, and a segment whose length may not be known."""
    at = 0
    for _ in range(8):
        name_size = _bytes_of_number(head[at : at + 1])
        size_at = at + name_size
        size_size = _bytes_of_number(head[size_at : size_at + 1])
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


def _bytes_of_number(first: bytes) -> int:
    """How many bytes a number of EBML has, by its first one."""
    return 9 - first[0].bit_length() if first and first[0] else 0


def _asf(head: bytes, file: SourceFile, start: int) -> int | None:
    """The object with the packets comes last, or an index behind it."""
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
    return size if size != SWF_NOT_KNOWN else None


def _sox(head: bytes, file: SourceFile, start: int) -> int | None:
    """Samples of four bytes after the head."""
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
    if len(head) < AVR_HEAD:
        return None
    channels, bits, count = 2 if head[12:14] != b"\0\0" else 1, int.from_bytes(head[14:16]), int.from_bytes(head[26:30])
    return AVR_HEAD + count * channels * (bits // 8) if count else None


def _form(head: bytes, file: SourceFile, start: int) -> int | None:
    """8SVX and others of IFF."""
    size = int.from_bytes(head[4:8]) + 8
    return size if size < STREAMED_SIZE else None


def _real(head: bytes, file: SourceFile, start: int) -> int | None:
    """RealMedia: parts with a name and a length each, up to the packets."""
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
    """Creative's: blocks, and an empty one at the end."""
    place = start + int.from_bytes(head[20:22], "little")
    for _ in range(MOST_CHUNKS):
        block = file.read_at(place, 4)
        if len(block) < 4 or not block[0]:
            return place + 1 - start
        if block[0] > LAST_BLOCK:
            return None
        place += 4 + int.from_bytes(block[1:], "little")
    return None


def _mp3(head: bytes, file: SourceFile, start: int) -> int | None:
    """Where the first frame holds no sound, but the length."""
    place = start
    if head.startswith(b"ID3") and len(head) > 9:
        sevens = head[6:10]
        tag = sevens[0] << 21 | sevens[1] << 14 | sevens[2] << 7 | sevens[3]
        place += 10 + tag + (10 if head[5] & 16 else 0)
    frame = file.read_at(place, XING_BEFORE)
    if frame[36:40] == b"VBRI":
        return place - start + int.from_bytes(frame[46:50])
    found = re.search(rb"(?:Xing|Info)\x00\x00\x00(.)", frame, re.DOTALL)
    if not found or not found[1][0] & 2:
        return None
    at = found.end() + (4 if found[1][0] & 1 else 0)
    size = int.from_bytes(frame[at : at + 4])
    return place - start + size if len(frame) >= at + 4 else None


def _chunks(head: bytes, file: SourceFile, start: int) -> int | None:
    """Of AIFF and CAF whose samples FFmpeg finds: one chunk after the other, up to the end of the file or beyond."""
    layout = layout_of(head)
    if layout is None:
        return None
    place, end = start + layout.first, None
    for _ in range(MOST_CHUNKS):
        head = file.read_at(place, layout.head)
        chunk = layout.chunk(head) if len(head) == layout.head else None
        if chunk is None or chunk.size is None:
            return end
        end = place + layout.head + chunk.size - start
        place = start + end + -chunk.size % layout.align
    return None


AVR_HEAD = 128
ASF_HEAD = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")

Told = Callable[[bytes, SourceFile, int], int | None]
ANNOUNCED: tuple[tuple[re.Pattern[bytes], Told, int], ...] = (
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
"""By the first bytes: how many there are in all, as they tell, and by how many more that may be wrong."""
