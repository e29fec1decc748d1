"""A source as the recordings that are in it, most often one: each as a file that FFmpeg may read to its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, cast

from conure.audio.boxes import survey_boxes
from conure.audio.chunked import chunked_sounds, layout_of
from conure.audio.endings import missing_end
from conure.audio.restarts import FRAGMENTED, Kind, PipedPart, SeekingPart, kind_of
from conure.audio.source import HEAD, INDEX_LAST, SourceFile
from conure.audio.window import Window

__all__ = ["Part", "Readable", "parts_of", "rewind"]


class Readable(Protocol):
    """What FFmpeg reads; it has `seek` and `tell`, too, if it can seek."""

    def read(self, size: int) -> bytes: ...

    def seekable(self) -> bool: ...


@dataclass
class Part:
    """One recording. It is read to its end before the next one is asked for."""

    file: Readable
    head: bytes
    """Its first bytes."""
    seconds: float | None = None
    """As its head tells them, where FFmpeg is not told."""
    missing: str | None = None
    """What its end lacks; of some it is known only when the next one was asked for."""


def rewind(file: Readable) -> None:
    """To its first byte, if it can seek."""
    cast(SourceFile, file).seek(0)


def parts_of(file: SourceFile) -> Iterator[Part]:
    """From the first byte on."""
    kind, layout, length = kind_of(file.head), layout_of(file.head), file.length()
    window = Window(file)
    if layout:
        is_read = False
        for sound in chunked_sounds(window, layout):
            is_read = True
            part = Part(sound, sound.head, sound.seconds)
            yield part
            sound.pass_over()
            part.missing = sound.missing
        if is_read:
            return
        kind = Kind(layout.start)
    if length is None:
        if FRAGMENTED.signature.pattern.match(file.head):
            kind = FRAGMENTED
        yield from _piped(window, kind) if kind else [Part(file, file.head)]
        return
    file.seek(0)
    if file.head[4:8] in INDEX_LAST:
        yield from _boxed(file, length)
    elif kind:
        yield from _seeking(file, kind, length)
    else:
        yield Part(file, file.head, missing=missing_end(file, 0, length))


def _boxed(file: SourceFile, length: int) -> Iterator[Part]:
    """MP4 and QuickTime, each with an index of its own."""
    start = 0
    while start < length:
        end, missing = survey_boxes(file, start, length)
        part = file if end - start == length else SeekingPart(file, start, None, end)
        yield Part(part, file.part(start, len(file.head)), missing=missing)
        start = end


def _seeking(file: SourceFile, kind: Kind, length: int) -> Iterator[Part]:
    start: int | None = 0
    while start is not None:
        seeking = SeekingPart(file, start, kind)
        part = Part(seeking, file.part(start, len(file.head)), missing=missing_end(file, start, length))
        yield part
        seeking.pass_over()
        start = seeking.end
        if start is not None:
            part.missing = None


def _piped(window: Window, kind: Kind) -> Iterator[Part]:
    while window.has(1):
        piped = PipedPart(window, kind)
        part = Part(piped, bytes(window.held[:HEAD]))
        yield part
        left = piped.pass_over()
        if left and not window.held:
            part.missing = f"{left} bytes or more after its end are left out"
