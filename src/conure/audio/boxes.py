"""The boxes of MP4 and QuickTime: where a second recording begins, and whether the last box is whole."""

from __future__ import annotations

from conure.audio.source import SourceFile

__all__ = ["survey_boxes"]

HEAD = 16
"""Bytes that tell a box's length and kind."""
MOST_BOXES = 1_000_000


def survey_boxes(file: SourceFile, start: int, length: int) -> tuple[int, str | None]:
    """From `start`: the place where the recording ends, and what it lacks. Leaves the file at `start`.

    A file of several recordings on end has an `ftyp` before each. What is no box ends the survey.
    """
    place, missing = start, None
    for _ in range(MOST_BOXES):
        if place >= length:
            break
        file.seek(place)
        head = file.read(HEAD)
        kind = head[4:8]
        if len(head) < 8 or not all(32 <= letter < 127 or letter == 0xA9 for letter in kind):
            if len(head) < 8 and place > start:
                missing = f"cut off in the head of a box, at byte {place}"
            break
        if kind == b"ftyp" and place > start:
            file.seek(start)
            return place, None
        size = int.from_bytes(head[:4])
        if size == 1:
            size = int.from_bytes(head[8:16])
        elif size == 0:
            break
        if size < 8:
            break
        place += size
    if place > length:
        missing = f"cut off: {place} bytes announced, {length} there"
    file.seek(start)
    return length, missing
