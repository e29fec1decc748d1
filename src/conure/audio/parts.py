"""A source as the recordings that are in it, most often one: each as a file that FFmpeg may read to its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from conure.audio.concatenation import FRAGMENTED, Kind, PipedPart, SeekingPart, kind_of
from conure.audio.container_checks import CONTAINER_CHECKS
from conure.audio.frame_checks import FRAME_CHECKS
from conure.audio.mp4_boxes import BoxCheck, BoxedFile, survey_boxes
from conure.audio.pcm_file import layout_of, pcm_files
from conure.audio.peek_buffer import PeekBuffer
from conure.audio.source import HEAD, INDEX_LAST, SourceFile
from conure.audio.structure import CheckedFile, Readable
from conure.audio.truncation import missing_end

__all__ = ["SourcePart", "parts_of", "rewind"]


@dataclass
class SourcePart:
    """One recording. It is read to its end before the next one is asked for."""

    file: Readable
    head: bytes
    """Its first bytes."""
    seconds: float | None = None
    """As its head tells them, where FFmpeg is not told."""
    missing: str | None = None
    """What its end lacks; of some it is known only when the next one was asked for."""
    damage: str | None = None
    """Where its structure is broken; known when the next one was asked for."""
    fragments: int = 0
    """Bytes of samples in fragments of MP4."""


def rewind(file: Readable) -> None:
    """To its first byte, if it can seek."""
    cast(SourceFile, file).seek(0)


def parts_of(file: SourceFile) -> Iterator[SourcePart]:
    """From the first byte on."""
    kind, layout, length = kind_of(file.head), layout_of(file.head), file.length()
    window = PeekBuffer(file)
    if layout:
        is_read = False
        for sound in pcm_files(window, layout):
            is_read = True
            part = SourcePart(sound, sound.head, sound.seconds)
            yield part
            sound.skip_to_end()
            part.missing = sound.missing
        if is_read:
            return
        kind = Kind(layout.start)
    if length is None:
        if FRAGMENTED.signature.pattern.match(file.head):
            kind = FRAGMENTED
        yield from _piped(window, kind) if kind else _whole(file, None)
        return
    file.seek(0)
    if file.head[4:8] in INDEX_LAST:
        yield from _boxed(file, length)
    elif kind:
        yield from _seeking(file, kind, length)
    else:
        yield from _whole(file, missing_end(file, 0, length))


def _checked(file: Readable, head: bytes) -> CheckedFile:
    found = next((check for begin, check in (*CONTAINER_CHECKS, *FRAME_CHECKS) if begin.match(head)), None)
    return CheckedFile(file, found() if found else None)


def _whole(file: SourceFile, missing: str | None) -> Iterator[SourcePart]:
    checked = _checked(file, file.head)
    part = SourcePart(checked, file.head, missing=missing)
    yield part
    checked.pass_over(missing is not None)
    part.damage = checked.problem


def _boxed(file: SourceFile, length: int) -> Iterator[SourcePart]:
    """MP4 and QuickTime, each with an index of its own."""
    start = 0
    while start < length:
        boxes = survey_boxes(file, start, length)
        is_all = not boxes.repairs and boxes.readable_end - start == length
        part = file if is_all else BoxedFile(SeekingPart(file, start, None, boxes.readable_end), boxes.repairs)
        head = file.read_at(start, len(file.head))
        yield SourcePart(part, head, missing=boxes.missing, damage=boxes.damage, fragments=boxes.fragments)
        start = boxes.end


def _seeking(file: SourceFile, kind: Kind, length: int) -> Iterator[SourcePart]:
    start: int | None = 0
    while start is not None:
        seeking, head = SeekingPart(file, start, kind), file.read_at(start, len(file.head))
        checked = _checked(seeking, head)
        part = SourcePart(checked, head, missing=missing_end(file, start, length))
        yield part
        checked.pass_over(part.missing is not None)
        part.damage = checked.problem
        seeking.skip_to_end()
        start = seeking.end
        if start is not None:
            part.missing = None


def _piped(window: PeekBuffer, kind: Kind) -> Iterator[SourcePart]:
    while window.ensure(1):
        piped, head = PipedPart(window, kind), bytes(window.held[:HEAD])
        checked = CheckedFile(piped, BoxCheck()) if kind is FRAGMENTED else _checked(piped, head)
        part = SourcePart(checked, head)
        yield part
        left = checked.pass_over(is_cut=False)
        part.damage = checked.problem
        if left and not window.held:
            part.missing = f"{left} bytes or more after its end are left out"
