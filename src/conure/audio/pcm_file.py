"""Recordings in chunks (WAV and its like), read as far as there are samples, whatever sizes they tell.

Sizes are wrong in many files: they hold 32 bits, were written for the first buffer or never, or the file was glued
together of others. So after the samples that are announced comes one of these:

    the end of the file          all is well
    the start of a recording     it goes on with that one
    chunks without samples       they are passed over
    anything else                samples: the size was too small
"""

from __future__ import annotations

from collections.abc import Iterator

from conure.audio.file_signatures import read_until
from conure.audio.pcm_layouts import LAYOUTS, ContainerChunk, Layout, PcmHeader
from conure.audio.peek_buffer import PeekBuffer

__all__ = ["PcmFile", "pcm_files", "layout_of"]

MOST_CHUNKS = 1_000
"""That are looked at after the samples, to see whether they lead to the end of the file."""
SLACK = 64
"""Bytes: many a writer counts its head once too often."""
PART = 1 << 16


def layout_of(head: bytes) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.start.pattern.match(head)), None)


def pcm_files(window: PeekBuffer, layout: Layout) -> Iterator[PcmFile]:
    """One after the other; each is read to its end before the next one comes.

    None comes, and nothing is taken from the window, where FFmpeg has to find the samples by itself.
    """
    start, head = window.position, layout.read_head(window)
    while head:
        sound = PcmFile(window, layout, head, start)
        yield sound
        start, head = sound.next_start, sound.next_head


class PcmFile:
    """What FFmpeg reads of one recording, or of several on end whose samples are of the same kind."""

    def __init__(self, window: PeekBuffer, layout: Layout, head: PcmHeader, start: int) -> None:
        """`start`: place of the recording in the file; the window is at its first sample."""
        self.missing: str | None = None
        """What was announced and is not there; known at the end."""
        self.next_start = 0
        self.next_head: PcmHeader | None = None
        """Of a recording of another kind that comes after it; known at the end."""
        self.head = head.for_decoder
        self.seconds = _seconds(window, head)
        """As they are told, or of what is there."""
        self._window = window
        self._layout = layout
        self._head = head
        self._unread = head.for_decoder
        self._is_over = False
        self._announced: int | None = None
        self._left: int | None = None
        """Bytes of samples up to where something else may come; None where that is not known."""
        self._begin(head, start)

    def read(self, size: int) -> bytes:
        if self._unread:
            part, self._unread = self._unread[:size], self._unread[size:]
            return part
        while not self._is_over:
            if self._left == 0 and not self._find_more():
                break
            part = self._samples(size)
            if part:
                return part
            if not self._window.ensure(1):
                self._end()
            elif self._layout.start.pattern.match(self._window.held):
                self._restart(0)
            elif part := self._beyond_tail():
                return part
        return b""

    def _beyond_tail(self) -> bytes:
        """Where chunks without samples seem to begin: samples that are there after all, if it is known at once."""
        self._left = 0
        if self._find_more() and self._left is None:
            return self._window.take(1)
        return b""

    def seekable(self) -> bool:
        return False

    def skip_to_end(self) -> None:
        """What FFmpeg did not want."""
        self._unread = b""
        while self.read(PART):
            pass

    def _begin(self, head: PcmHeader, start: int) -> None:
        self._start, self._first = start, self._window.position
        self._announced = self._left = head.size
        self._padding = -((head.size or 0) + head.skipped) % self._layout.align
        self._start_bytes = head.start

    def _samples(self, size: int) -> bytes:
        ends = [self._layout.start]
        if self._left is None and self._layout.tail:
            ends.append(self._layout.tail)
        part = read_until(self._window, size if self._left is None else min(size, self._left), ends)
        if self._left is not None:
            self._left -= len(part)
        return part

    def _find_more(self) -> bool:
        """At the announced end: whether samples follow, perhaps after chunks without any."""
        while self._window.ensure(1):
            paddings = dict.fromkeys((self._padding, 0))
            padding = next((padding for padding in paddings if self._starts(padding)), None)
            if padding is not None:
                return self._restart(padding)
            chunk = next((chunk for padding in paddings if (chunk := self._chunk(padding))), None)
            if chunk is None:
                self._left = None
                return True
            if chunk.name == self._layout.sound:
                self._left = self._announced = chunk.size
                self._first = self._window.position
                return True
        self._end()
        return False

    def _starts(self, padding: int) -> bool:
        longest = self._layout.start.max_length
        return self._window.ensure(padding + longest) and bool(
            self._layout.start.pattern.match(self._window.held, padding)
        )

    def _restart(self, padding: int) -> bool:
        """Another recording begins: whether its samples go on here."""
        whole = (self._window.position - self._first) % self._head.block == 0
        self._window.skip(padding)
        start, head = self._window.position, self._layout.read_head(self._window)
        if head is None:
            self.missing = f"what begins at byte {start} is cut off, or damaged from its start"
            self._is_over = True
            return False
        if whole and head.same == self._head.same:
            self._begin(head, start)
            return True
        self.next_start, self.next_head = start, head
        self._is_over = True
        return False

    def _chunk(self, padding: int) -> ContainerChunk | None:
        """Passes over a chunk, or over the head of one with samples; None where there is none."""
        window, layout = self._window, self._layout
        if not window.ensure(padding + layout.head):
            return None
        chunk = layout.chunk(bytes(window.held[padding : padding + layout.head]))
        if chunk is None:
            return None
        if chunk.name == layout.sound:
            window.skip(padding + layout.head + self._head.skipped)
            size = None if chunk.size is None else max(0, chunk.size - self._head.skipped)
            return ContainerChunk(chunk.name, size)
        if chunk.size is None or not (layout.knows(chunk.name) or self._leads_to_end(window.position + padding)):
            return None
        size = padding + layout.head + chunk.size
        if window.skip(size) < size:
            self.missing = f"cut off in the chunk {chunk.name[:4].decode()!r} that comes after the samples"
        self._padding = -chunk.size % layout.align
        return chunk

    def _leads_to_end(self, place: int) -> bool:
        """Whether from there chunk follows on chunk, up to the very end of the file or to another recording."""
        length, layout = self._window.length(), self._layout
        if length is None:
            return False
        for _ in range(MOST_CHUNKS):
            head = self._window.peek_at(place, layout.start.max_length) or b""
            if layout.start.pattern.match(head):
                return True
            chunk = layout.chunk(head[: layout.head]) if len(head) >= layout.head else None
            if chunk is None or chunk.size is None:
                return False
            place += layout.head + chunk.size
            if place == length:
                return True
            place += -chunk.size % layout.align
            if place >= length:
                return place == length
        return False

    def _end(self) -> None:
        self._is_over = True
        there, announced = self._window.position, None
        if self._left:
            announced = self._first + (self._announced or 0)
        elif self._left is None and self._announced is None and self._start_bytes:
            announced = self._layout.announced(self._start_bytes)
            announced = None if announced is None else announced + self._start
        if announced and announced > there + SLACK:
            self.missing = f"cut off: {announced} bytes announced, {there} there"


def _seconds(window: PeekBuffer, head: PcmHeader) -> float | None:
    if not head.rate:
        return None
    length = window.length()
    there = None if length is None else max(0, length - window.position)
    size = there if head.size is None or (there and head.size < there * 0.9) else head.size
    return size / head.rate if size else None
