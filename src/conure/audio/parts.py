"""Splits a source into its recordings, usually one: each is a file that FFmpeg reads to its end."""

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
    """One recording. It must be read to its end before the next one is requested."""

    file: Readable
    head: bytes
    """The first bytes."""
    seconds: float | None = None
    """Declared duration, if FFmpeg does not see the original header."""
    missing: str | None = None
    """Problem: the end is missing. For some formats it is set when the next part is requested."""
    damage: str | None = None
    """Problem: the structure is damaged. It is set when the next part is requested."""
    fragments: int = 0
    """Bytes of samples in fragments of MP4."""


def rewind(file: Readable) -> None:
    """Seeks a seekable file to its first byte."""
    cast(SourceFile, file).seek(0)


def parts_of(file: SourceFile) -> Iterator[SourcePart]:
    """The recordings of a source in order."""
    kind, layout, length = kind_of(file.head), layout_of(file.head), file.length()
    window = PeekBuffer(file)
    if layout:
        has_parts = False
        for pcm in pcm_files(window, layout):
            has_parts = True
            part = SourcePart(pcm, pcm.head, pcm.seconds)
            yield part
            pcm.skip_to_end()
            part.missing = pcm.missing
        if has_parts:
            return
        kind = Kind(layout.start)
    if length is None:
        if FRAGMENTED.signature.pattern.match(file.head):
            kind = FRAGMENTED
        yield from _piped(window, kind) if kind else _single(file, None)
        return
    file.seek(0)
    if file.head[4:8] in INDEX_LAST:
        yield from _boxed(file, length)
    elif kind:
        yield from _seeking(file, kind, length)
    else:
        yield from _single(file, missing_end(file, 0, length))


def _checked(file: Readable, head: bytes) -> CheckedFile:
    found = next((check for begin, check in (*CONTAINER_CHECKS, *FRAME_CHECKS) if begin.match(head)), None)
    return CheckedFile(file, found() if found else None)


def _single(file: SourceFile, missing: str | None) -> Iterator[SourcePart]:
    checked = _checked(file, file.head)
    part = SourcePart(checked, file.head, missing=missing)
    yield part
    checked.skip_to_end(missing is not None)
    part.damage = checked.problem


def _boxed(file: SourceFile, length: int) -> Iterator[SourcePart]:
    """Recordings in MP4 and QuickTime, each with its own index."""
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
        checked.skip_to_end(part.missing is not None)
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
        left = checked.skip_to_end(is_cut=False)
        part.damage = checked.problem
        if left and not window.held:
            part.missing = f"{left} bytes or more after its end are left out"
