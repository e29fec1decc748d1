"""The boxes of MP4 and QuickTime: where a second recording begins, and whether the last box is whole."""

from __future__ import annotations

from conure.audio.source import SourceFile

__all__ = ["survey_boxes"]

HEAD = 16
"""Bytes that tell a box's length and kind."""
MOST_JUNK = 1 << 12
"""Bytes behind the last box that are not worth a word."""
MOST_BOXES = 1_000_000


def survey_boxes(file: SourceFile, start: int, length: int) -> tuple[int, str | None]:
    """From `start`: the place where the recording ends, and what it lacks. Leaves the file at `start`.

    A file of several recordings on end has an `ftyp` before each. What is no box ends the survey.
    """
    place, missing = start, None
    for _ in range(MOST_BOXES):
        if place >= length:
            break
        head = file.part(place, HEAD)
        if head[4:8] == b"ftyp" and place > start:
            return place, None
        size = _size(head)
        if size is None:
            missing = _junk(place, length) if place > start else None
            break
        place += size or length - place
    if place > length:
        missing = f"cut off: {place} bytes announced, {length} there"
    return length, missing


def _size(head: bytes) -> int | None:
    """Of a box; 0 where it goes on to the end, None where it is none."""
    kind = head[4:8]
    if len(kind) < 4 or not (kind == bytes(4) or all(32 <= letter < 127 or letter == 0xA9 for letter in kind)):
        return None
    size = int.from_bytes(head[:4])
    if size == 1:
        size = int.from_bytes(head[8:16])
    return size if size == 0 or size >= 8 else None


def _junk(place: int, length: int) -> str | None:
    if length - place < 8:
        return f"cut off in the head of a box, at byte {place}"
    if length - place > MOST_JUNK:
        return f"{length - place} bytes from byte {place} on are no box, and may be left out"
    return None
