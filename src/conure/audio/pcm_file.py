"""Reads WAV and similar files as far as there are samples, independent of the declared sizes.

Sizes are wrong in many files: they have only 32 bits, were written for the first buffer or never, or the file was
concatenated from others. So the announced samples may be followed by:

    the end of the file          the size is right
    the start of a recording     reading continues with that one
    chunks without samples       they are skipped
    anything else                samples: the size was too small
"""

from __future__ import annotations

from collections.abc import Iterator

from conure.audio.file_signatures import read_until
from conure.audio.pcm_layouts import LAYOUTS, ContainerChunk, Layout, PcmHeader
from conure.audio.peek_buffer import PeekBuffer

__all__ = ["PcmFile", "pcm_files", "layout_of"]

MAX_CHUNKS = 1_000
"""Chunks after the samples that are followed to see whether they lead to the end of the file."""
SLACK = 64
"""Bytes that may be missing: some writers include the header in the size."""
READ_SIZE = 1 << 16


def layout_of(head: bytes) -> Layout | None:
    return next((layout for layout in LAYOUTS if layout.start.pattern.match(head)), None)


def pcm_files(window: PeekBuffer, layout: Layout) -> Iterator[PcmFile]:
    """The recordings of a file in order; each must be read to its end before the next one is requested.

    If FFmpeg has to find the samples by itself, there are none and the window is unchanged.
    """
    start, head = window.position, layout.read_head(window)
    while head:
        pcm = PcmFile(window, layout, head, start)
        yield pcm
        start, head = pcm.next_start, pcm.next_head


class PcmFile:
    """The bytes that FFmpeg reads of one recording, or of consecutive ones with the same sample format."""

    def __init__(self, window: PeekBuffer, layout: Layout, head: PcmHeader, start: int) -> None:
        """`start`: position of the recording in the file; the window is at its first sample."""
        self.missing: str | None = None
        """Problem: announced samples are missing. Set at the end."""
        self.next_start = 0
        self.next_head: PcmHeader | None = None
        """Header of a following recording with another sample format. Set at the end."""
        self.head = head.for_decoder
        self.seconds = _seconds(window, head)
        """Duration, as declared or by the size of the file."""
        self._window = window
        self._layout = layout
        self._head = head
        self._unread = head.for_decoder
        self._has_ended = False
        self._announced: int | None = None
        self._remaining: int | None = None
        """Announced bytes of samples that are not yet read; None if the size is unknown."""
        self._begin(head, start)

    def read(self, size: int) -> bytes:
        if self._unread:
            part, self._unread = self._unread[:size], self._unread[size:]
            return part
        while not self._has_ended:
            if self._remaining == 0 and not self._find_more():
                break
            part = self._read_samples(size)
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
        """At the signature of a chunk without samples: a byte if it turns out to be a sample, else none."""
        self._remaining = 0
        if self._find_more() and self._remaining is None:
            return self._window.take(1)
        return b""

    def seekable(self) -> bool:
        return False

    def skip_to_end(self) -> None:
        """Reads the bytes that FFmpeg left unread."""
        self._unread = b""
        while self.read(READ_SIZE):
            pass

    def _begin(self, head: PcmHeader, start: int) -> None:
        self._start, self._first = start, self._window.position
        self._announced = self._remaining = head.size
        self._padding = -((head.size or 0) + head.skipped) % self._layout.align
        self._start_bytes = head.start

    def _read_samples(self, size: int) -> bytes:
        ends = [self._layout.start]
        if self._remaining is None and self._layout.tail:
            ends.append(self._layout.tail)
        part = read_until(self._window, size if self._remaining is None else min(size, self._remaining), ends)
        if self._remaining is not None:
            self._remaining -= len(part)
        return part

    def _find_more(self) -> bool:
        """At the announced end: whether more samples follow, possibly after chunks without any."""
        while self._window.ensure(1):
            paddings = dict.fromkeys((self._padding, 0))
            padding = next((padding for padding in paddings if self._starts_recording(padding)), None)
            if padding is not None:
                return self._restart(padding)
            chunk = next((chunk for padding in paddings if (chunk := self._skip_chunk(padding))), None)
            if chunk is None:
                self._remaining = None
                return True
            if chunk.name == self._layout.data_name:
                self._remaining = self._announced = chunk.size
                self._first = self._window.position
                return True
        self._end()
        return False

    def _starts_recording(self, padding: int) -> bool:
        max_length = self._layout.start.max_length
        return self._window.ensure(padding + max_length) and bool(
            self._layout.start.pattern.match(self._window.held, padding)
        )

    def _restart(self, padding: int) -> bool:
        """Another recording begins: whether its samples continue those of this one."""
        is_aligned = (self._window.position - self._first) % self._head.block == 0
        self._window.skip(padding)
        start, head = self._window.position, self._layout.read_head(self._window)
        if head is None:
            self.missing = f"the recording at byte {start} is cut off, or damaged from its start"
            self._has_ended = True
            return False
        if is_aligned and head.sample_format == self._head.sample_format:
            self._begin(head, start)
            return True
        self.next_start, self.next_head = start, head
        self._has_ended = True
        return False

    def _skip_chunk(self, padding: int) -> ContainerChunk | None:
        """Skips a chunk without samples, or the header of one with samples. None if the bytes are no chunk."""
        window, layout = self._window, self._layout
        if not window.ensure(padding + layout.head):
            return None
        chunk = layout.chunk(bytes(window.held[padding : padding + layout.head]))
        if chunk is None:
            return None
        if chunk.name == layout.data_name:
            window.skip(padding + layout.head + self._head.skipped)
            size = None if chunk.size is None else max(0, chunk.size - self._head.skipped)
            return ContainerChunk(chunk.name, size)
        if chunk.size is None or not (layout.knows(chunk.name) or self._leads_to_end(window.position + padding)):
            return None
        size = padding + layout.head + chunk.size
        if window.skip(size) < size:
            self.missing = f"cut off in the chunk {chunk.name[:4].decode()!r} after the samples"
        self._padding = -chunk.size % layout.align
        return chunk

    def _leads_to_end(self, place: int) -> bool:
        """Whether a sequence of chunks leads from `place` exactly to the end of the file or to another recording."""
        length, layout = self._window.length(), self._layout
        if length is None:
            return False
        for _ in range(MAX_CHUNKS):
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
        self._has_ended = True
        position, announced = self._window.position, None
        if self._remaining:
            announced = self._first + (self._announced or 0)
        elif self._remaining is None and self._announced is None and self._start_bytes:
            announced = self._layout.announced(self._start_bytes)
            announced = None if announced is None else announced + self._start
        if announced and announced > position + SLACK:
            self.missing = f"cut off: {announced} bytes announced, {position} there"


def _seconds(window: PeekBuffer, head: PcmHeader) -> float | None:
    if not head.rate:
        return None
    length = window.length()
    available = None if length is None else max(0, length - window.position)
    size = available if head.size is None or (available and head.size < available * 0.9) else head.size
    return size / head.rate if size else None
