"""Surveys the boxes of MP4 and QuickTime: the start of a further recording, truncation, damage, repairs of headers.

FFmpeg walks boxes by their lengths. After a box with a wrong length it would lose all following fragments, so headers
are repaired while the file is read.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from conure.audio.concatenation import SeekingPart
from conure.audio.source import SourceFile
from conure.audio.structure import DAMAGED, StructureCheck

__all__ = ["BoxCheck", "BoxedFile", "Boxes", "survey_boxes"]

HEADER = 16
"""Bytes of a box header: length, kind, and the long form of the length."""
MAX_JUNK = 1 << 12
"""Bytes after the last box that are not reported."""
MAX_JUNK_AFTER_FRAGMENTS = 64
"""The same in fragmented files, where these bytes may have been fragments."""
MAX_BOXES = 1_000_000
FRAGMENT = re.compile(rb"moof\x00\x00\x00\x10mfhd")
"""The beginning of every fragment, after its length."""
FRAGMENT_SIZE = 12
MAX_INDEX_SEARCH = 1 << 20
"""Bytes of an index that are searched; the index of a fragmented file is small."""
KNOWN = frozenset(rb"moof mdat sidx styp mfra free skip wide emsg prft ftyp moov udta uuid meta ssix pdin mfro".split())
"""Boxes that occur before or after those of a fragment."""
READ_SIZE = 1 << 18


@dataclass
class Boxes:
    """The boxes of one recording."""

    end: int
    """Position of its end."""
    readable_end: int
    """Position up to which FFmpeg should read: a truncated fragment header would make it fail."""
    missing: str | None = None
    """Problem: the end is missing."""
    damage: str | None = None
    """Problem: a box is damaged."""
    fragments: int = 0
    """Bytes of samples in fragments; 0 if the last one is truncated."""
    repairs: dict[int, bytes] = field(default_factory=dict)
    """Corrected bytes of box headers, by their offset from the start of the recording."""


def survey_boxes(file: SourceFile, start: int, length: int) -> Boxes:
    """Surveys the recording at `start`; the file's position is set to `start` again.

    In a file of several recordings each begins with `ftyp`. Other bytes than a box end the survey, unless a fragment
    follows.
    """
    boxes, place, is_fragmented = Boxes(length, length), start, False
    for _ in range(MAX_BOXES):
        if place >= length:
            break
        head = file.read_at(place, HEADER)
        if head[4:8] == b"ftyp" and place > start:
            boxes.end = boxes.readable_end = place
            return boxes
        size = _size(head)
        is_fragmented |= head[4:8] == b"moof" or (head[4:8] == b"moov" and _announces_fragments(file, place, size))
        if is_fragmented:
            size = _repaired(file, boxes, start, place, head, size, length)
        if size is None:
            max_junk = MAX_JUNK_AFTER_FRAGMENTS if is_fragmented else MAX_JUNK
            boxes.missing = _junk(place, length, max_junk) if place > start else None
            break
        if is_fragmented and head[4:8] == b"mdat":
            boxes.fragments += (size or length - place) - (16 if head[:4] == b"\0\0\0\1" else 8)
        if is_fragmented and head[4:8] != b"mdat" and place + size > length:
            boxes.readable_end = place
        place += size or length - place
    if place > length:
        boxes.fragments = 0
        boxes.missing = f"cut off: {place} bytes announced, {length} there"
    return boxes


def _repaired(
    file: SourceFile, boxes: Boxes, start: int, place: int, head: bytes, size: int | None, length: int
) -> int | None:
    """The true size of a box in a fragment; if its header has another one, that is noted and repaired."""
    if not size and head[4:8] != b"mdat":
        size = None
    end, begin = place + size if size else length, None
    if head[4:8] == b"mdat":
        begin = _next_fragment(file, place + 8, min(end, length))
    if begin is None and (
        size is None or end > length or (end < length and file.read_at(end, HEADER)[4:8] not in KNOWN)
    ):
        begin = _next_fragment(file, place + 8, length)
    if begin is None:
        return size
    true = begin - place
    if true < 8 or true >= 1 << 32:
        return size
    if boxes.damage is None:
        boxes.damage = f"the box at byte {place} has a wrong length or is damaged: parts of it may be left out"
    if head[4:8] != b"mdat":
        boxes.repairs[place - start] = true.to_bytes(4) + b"free"
    elif head[:4] == b"\0\0\0\1":
        boxes.repairs[place - start + 8] = true.to_bytes(8)
    else:
        boxes.repairs[place - start] = true.to_bytes(4)
    return true


def _announces_fragments(file: SourceFile, place: int, size: int | None) -> bool:
    return b"mvex" in file.read_at(place, min(size or 0, MAX_INDEX_SEARCH))


def _next_fragment(file: SourceFile, place: int, end: int) -> int | None:
    """Position of the first fragment that begins in [place, end)."""
    while place < end:
        data = file.read_at(place, min(READ_SIZE, end - place) + FRAGMENT_SIZE)
        found = FRAGMENT.search(data)
        if found and place + found.start() < end:
            return place + found.start() - 4
        place += READ_SIZE
    return None


def _size(head: bytes) -> int | None:
    """Size of a box by its header; 0 if it extends to the end of the file, None if the bytes are no box header."""
    kind = head[4:8]
    if len(kind) < 4 or not (kind == bytes(4) or all(32 <= letter < 127 or letter == 0xA9 for letter in kind)):
        return None
    size = int.from_bytes(head[:4])
    if size == 1:
        size = int.from_bytes(head[8:16])
    return size if size == 0 or size >= 8 else None


def _junk(place: int, length: int, max_junk: int) -> str | None:
    if length - place < 8:
        return f"cut off in the header of a box, at byte {place}"
    if length - place > max_junk:
        return f"{length - place} bytes from byte {place} on are not a valid box, and may be left out"
    return None


class BoxedFile:
    """A recording with repaired box headers."""

    def __init__(self, file: SeekingPart, repairs: dict[int, bytes]) -> None:
        self._file = file
        self._repairs = repairs

    def read(self, size: int) -> bytes:
        position = self._file.tell()
        data = self._file.read(size)
        for place, repair in self._repairs.items():
            if position - len(repair) < place < position + len(data):
                first, last = max(place, position), min(place + len(repair), position + len(data))
                repaired = bytearray(data)
                repaired[first - position : last - position] = repair[first - place : last - place]
                data = bytes(repaired)
        return data

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class BoxCheck(StructureCheck):
    """Check of fragments in a pipe, where headers cannot be repaired."""

    head = HEADER

    def step(self, held: bytearray, at: int) -> int:
        return (_size(bytes(held[at : at + HEADER])) or DAMAGED) if bytes(held[at + 4 : at + 8]) in KNOWN else DAMAGED
