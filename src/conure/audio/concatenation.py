"""Files of several recordings, one glued to the other, of which FFmpeg would read the first.

A part is all up to where the next one begins. In a file that can seek it can, too: FFmpeg looks for an index.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from conure.audio.file_signatures import Signature, read_until
from conure.audio.peek_buffer import PeekBuffer
from conure.audio.source import SourceFile

__all__ = ["FRAGMENTED", "Kind", "PipedPart", "SeekingPart", "kind_of"]

PAGE_HEAD, FIRST_PAGE = 27, 2
"""Bytes of the head of a page of Ogg; the flag in its sixth byte that says it begins a stream."""
MOST_STREAMS = 64
PART = 1 << 16


@dataclass(frozen=True)
class Kind:
    """Of a container that nothing but its first bytes tells from the one before it."""

    signature: Signature
    is_paged: bool = False
    """Ogg: several streams that begin together are one recording."""


def _kind(pattern: bytes, begin: bytes, longest: int, **options: bool) -> Kind:
    return Kind(Signature(re.compile(pattern, re.DOTALL), (begin,), longest), **options)


FIRST_BLOCK = re.escape(bytes(flags for flags in range(256) if flags & 8))
"""Second byte of the flags of WavPack, in the first block of a frame."""

KINDS = (
    _kind(rb"fLaC[\x00\x80]\x00\x00\x22", b"fLaC", 8),
    _kind(rb"OggS\x00[\x02\x06]\x00{8}.{4}\x00{4}", b"OggS", 22, is_paged=True),
    _kind(rb"\x1a\x45\xdf\xa3.{1,48}?\x42\x82[\x84\x88\x88](?:webm|matroska)", b"\x1a\x45\xdf\xa3", 64),
    _kind(rb"RIFF.{4}AVI LIST", b"RIFF", 16),
    _kind(rb"nut/multimedia container\x00", b"nut/", 25),
    _kind(rb"\.RMF\x00\x00\x00\x12\x00[\x00\x01]", b".RMF", 10),
    _kind(rb"TTA1[\x01\x02]\x00.\x00.\x00", b"TTA1", 10),
    _kind(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09\x00{4}", b"FLV\x01", 13),
    _kind(rb"Creative Voice File\x1a\x1a\x00", b"Creative", 22),
    _kind(rb"wvpk.{4}[\x02-\x10]\x04\x00.{5}\x00{4}.{4}.[" + FIRST_BLOCK + rb"]", b"wvpk", 26),
    _kind(rb"#!AMR(?:-WB)?\n", b"#!AMR", 9),
    _kind(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", b"\x30\x26\xb2\x75", 16),
)


FRAGMENTED = _kind(rb"\x00{3}[\x10-\x40]ftyp[\w ]{4}", b"\x00\x00\x00", 12)
"""MP4 that arrives; in a file its boxes are gone through."""


def kind_of(head: bytes) -> Kind | None:
    """`head`: the first 64 bytes."""
    return next((kind for kind in KINDS if kind.signature.pattern.match(head)), None)


class SeekingPart:
    """From a place in the file to the next recording."""

    def __init__(self, file: SourceFile, start: int, kind: Kind | None, end: int | None = None) -> None:
        """Without a kind the end is known."""
        self.start = start
        self.end = end
        """Where the next one begins; None where none was found."""
        self._file = file
        self._signature = kind.signature if kind else None
        self._reached = start
        """How far the file was looked through."""
        file.seek(start)
        self._first = start + (_pages(PeekBuffer(file, start)) if kind and kind.is_paged else 1)
        """A place behind the part's own beginning."""
        file.seek(start)

    def read(self, size: int) -> bytes:
        here = self._file.tell()
        if self.end is not None or self._signature is None:
            left = size if self.end is None else max(0, self.end - here)
            return self._file.read(min(size, left)) if left else b""
        longest = self._signature.max_length - 1
        before = min(longest, here - self.start)
        self._file.seek(here - before)
        data = self._file.read(before + size + longest)
        for found in self._signature.pattern.finditer(data):
            if here - before + found.start() >= self._first:
                self.end = here - before + found.start()
                break
        part = data[before : before + size]
        if self.end is not None:
            part = part[: max(0, self.end - here)]
        self._file.seek(here + len(part))
        if here <= self._reached:
            self._reached = max(self._reached, here + len(part))
        return part

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            offset += self.start
        elif whence == os.SEEK_END and self.end is not None:
            offset, whence = self.end + offset, os.SEEK_SET
        at = self._file.seek(offset, whence)
        return at if at < 0 else at - self.start

    def tell(self) -> int:
        return self._file.tell() - self.start

    def skip_to_end(self) -> None:
        """What FFmpeg did not want."""
        self._file.seek(self._reached)
        while self.read(PART):
            pass


class PipedPart:
    """From where the window is to the next recording."""

    def __init__(self, window: PeekBuffer, kind: Kind) -> None:
        self._window = window
        self._ends = (kind.signature,)
        self._unread = 0
        self._kind = kind
        self._is_open = False

    def read(self, size: int) -> bytes:
        if not self._is_open:
            self._is_open = True
            self._window.ensure(1)
            self._unread = _pages(self._window) if self._kind.is_paged else self._kind.signature.max_length
        if self._unread:
            if not self._window.held and not self._window.read_more():
                return b""
            part = self._window.take(min(size, self._unread))
            self._unread -= len(part)
            return part
        return read_until(self._window, size, self._ends)

    def seekable(self) -> bool:
        return False


def _pages(window: PeekBuffer) -> int:
    """Bytes of the pages of Ogg that begin a stream, from the first one on."""
    size = 0
    for _ in range(MOST_STREAMS):
        if not window.ensure(size + PAGE_HEAD):
            break
        head = window.held[size : size + PAGE_HEAD]
        if not head.startswith(b"OggS") or not head[5] & FIRST_PAGE:
            break
        segments = head[26]
        if not window.ensure(size + PAGE_HEAD + segments):
            break
        size += PAGE_HEAD + segments + sum(window.held[size + PAGE_HEAD : size + PAGE_HEAD + segments])
    return max(1, size)
