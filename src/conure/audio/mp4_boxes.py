"""The boxes of MP4 and QuickTime: where a second recording begins, whether all boxes are whole, and what mends them.

FFmpeg goes from box to box by their lengths. Where a fragment's length is wrong, all that comes after would be lost.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from conure.audio.concatenation import SeekingPart
from conure.audio.source import SourceFile
from conure.audio.structure import DAMAGED, StructureCheck

__all__ = ["BoxCheck", "BoxedFile", "Boxes", "survey_boxes"]

HEAD = 16
"""Bytes that tell a box's length and kind."""
MOST_JUNK = 1 << 12
"""Bytes behind the last box that are not worth a word."""
MOST_JUNK_OF_FRAGMENTS = 64
"""Where what is behind the last box may have been fragments."""
MOST_BOXES = 1_000_000
FRAGMENT = re.compile(rb"moof\x00\x00\x00\x10mfhd")
"""With which every fragment begins, after its length."""
FRAGMENT_SIZE = 12
LONGEST_INDEX = 1 << 20
"""Bytes of an index that are looked through; of a file in fragments it has hardly any."""
KNOWN = frozenset(rb"moof mdat sidx styp mfra free skip wide emsg prft ftyp moov udta uuid meta ssix pdin mfro".split())
"""Boxes that come before or after those of a fragment."""
PART = 1 << 18


@dataclass
class Boxes:
    """Of one recording."""

    end: int
    """Place where it ends."""
    readable_end: int
    """Place up to which FFmpeg should read: of a fragment whose description is cut off it would read nothing at all."""
    missing: str | None = None
    """What its end lacks."""
    damage: str | None = None
    fragments: int = 0
    """Bytes of samples in fragments; 0 where the last is cut off."""
    repairs: dict[int, bytes] = field(default_factory=dict)
    """What should be written in the head of a box: place from the start of the recording -> bytes."""


def survey_boxes(file: SourceFile, start: int, length: int) -> Boxes:
    """From `start` on, where it leaves the file.

    A file of several recordings on end has an `ftyp` before each. What is no box ends the survey, unless a fragment
    comes after it.
    """
    boxes, place, is_fragmented = Boxes(length, length), start, False
    for _ in range(MOST_BOXES):
        if place >= length:
            break
        head = file.read_at(place, HEAD)
        if head[4:8] == b"ftyp" and place > start:
            boxes.end = boxes.readable_end = place
            return boxes
        size = _size(head)
        is_fragmented |= head[4:8] == b"moof" or (head[4:8] == b"moov" and _announces_fragments(file, place, size))
        if is_fragmented:
            size = _repaired(file, boxes, start, place, head, size, length)
        if size is None:
            most = MOST_JUNK_OF_FRAGMENTS if is_fragmented else MOST_JUNK
            boxes.missing = _junk(place, length, most) if place > start else None
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
    """The true size of a box in a fragment; where it differs from that in its head, it is told and repaired."""
    if not size and head[4:8] != b"mdat":
        size = None
    end, begin = place + size if size else length, None
    if head[4:8] == b"mdat":
        begin = _next_fragment(file, place + 8, min(end, length))
    if begin is None and (size is None or end > length or (end < length and file.read_at(end, HEAD)[4:8] not in KNOWN)):
        begin = _next_fragment(file, place + 8, length)
    if begin is None:
        return size
    true = begin - place
    if true < 8 or true >= 1 << 32:
        return size
    if boxes.damage is None:
        boxes.damage = f"the box at byte {place} has a wrong length, or is none: what is there may be left out"
    if head[4:8] != b"mdat":
        boxes.repairs[place - start] = true.to_bytes(4) + b"free"
    elif head[:4] == b"\0\0\0\1":
        boxes.repairs[place - start + 8] = true.to_bytes(8)
    else:
        boxes.repairs[place - start] = true.to_bytes(4)
    return true


def _announces_fragments(file: SourceFile, place: int, size: int | None) -> bool:
    return b"mvex" in file.read_at(place, min(size or 0, LONGEST_INDEX))


def _next_fragment(file: SourceFile, place: int, end: int) -> int | None:
    """Where one begins within these bytes."""
    while place < end:
        data = file.read_at(place, min(PART, end - place) + FRAGMENT_SIZE)
        found = FRAGMENT.search(data)
        if found and place + found.start() < end:
            return place + found.start() - 4
        place += PART
    return None


def _size(head: bytes) -> int | None:
    """Of a box; 0 where it goes on to the end, None where it is none."""
    kind = head[4:8]
    if len(kind) < 4 or not (kind == bytes(4) or all(32 <= letter < 127 or letter == 0xA9 for letter in kind)):
        return None
    size = int.from_bytes(head[:4])
    if size == 1:
        size = int.from_bytes(head[8:16])
    return size if size == 0 or size >= 8 else None


def _junk(place: int, length: int, most: int) -> str | None:
    if length - place < 8:
        return f"cut off in the head of a box, at byte {place}"
    if length - place > most:
        return f"{length - place} bytes from byte {place} on are no box, and may be left out"
    return None


class BoxedFile:
    """A recording whose boxes have the heads that they should have."""

    def __init__(self, file: SeekingPart, repairs: dict[int, bytes]) -> None:
        self._file = file
        self._repairs = repairs

    def read(self, size: int) -> bytes:
        here = self._file.tell()
        data = self._file.read(size)
        for place, repair in self._repairs.items():
            if here - len(repair) < place < here + len(data):
                first, last = max(place, here), min(place + len(repair), here + len(data))
                made = bytearray(data)
                made[first - here : last - here] = repair[first - place : last - place]
                data = bytes(made)
        return data

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class BoxCheck(StructureCheck):
    """Of fragments that arrive, where nothing can be repaired."""

    head = HEAD

    def step(self, held: bytearray, at: int) -> int:
        return (_size(bytes(held[at : at + HEAD])) or DAMAGED) if bytes(held[at + 4 : at + 8]) in KNOWN else DAMAGED
