"""Files of several concatenated recordings, of which FFmpeg would read the first only.

A part extends to the beginning of the next recording. Parts of seekable files are seekable: FFmpeg looks for an index.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from conure.audio.file_signatures import Signature, read_until
from conure.audio.peek_buffer import PeekBuffer
from conure.audio.source import SourceFile

__all__ = ["FRAGMENTED", "Kind", "PipedPart", "SeekingPart", "kind_of"]

PAGE_HEADER, FIRST_PAGE = 27, 2
"""Bytes of an Ogg page header; the flag in its sixth byte for the first page of a stream."""
MAX_STREAMS = 64
READ_SIZE = 1 << 16


@dataclass(frozen=True)
class Kind:
    """A kind of container whose beginning within a file is found by its signature."""

    signature: Signature
    is_paged: bool = False
    """Ogg: several streams that begin together are one recording, so their first pages are skipped together."""


def _kind(pattern: bytes, prefix: bytes, max_length: int, **options: bool) -> Kind:
    return Kind(Signature(re.compile(pattern, re.DOTALL), (prefix,), max_length), **options)


FIRST_BLOCK = re.escape(bytes(flags for flags in range(256) if flags & 8))
"""Second byte of WavPack's flags, in the first block of a frame."""

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
"""MP4 in a pipe; in files the boxes are walked instead."""


def kind_of(head: bytes) -> Kind | None:
    """The kind of container by the first 64 bytes."""
    return next((kind for kind in KINDS if kind.signature.pattern.match(head)), None)


class SeekingPart:
    """A part of a seekable file: from `start` to the next recording."""

    def __init__(self, file: SourceFile, start: int, kind: Kind | None, end: int | None = None) -> None:
        """`end` is given if it is known; otherwise the next recording is searched by the signature of `kind`."""
        self.start = start
        self.end = end
        """Start of the next recording; None while none is found."""
        self._file = file
        self._signature = kind.signature if kind else None
        self._searched_to = start
        """Position up to which the file was searched."""
        file.seek(start)
        self._first = start + (_pages(PeekBuffer(file, start)) if kind and kind.is_paged else 1)
        """First position at which another recording may begin."""
        file.seek(start)

    def read(self, size: int) -> bytes:
        position = self._file.tell()
        if self.end is not None or self._signature is None:
            remaining = size if self.end is None else max(0, self.end - position)
            return self._file.read(min(size, remaining)) if remaining else b""
        margin = self._signature.max_length - 1
        before = min(margin, position - self.start)
        self._file.seek(position - before)
        data = self._file.read(before + size + margin)
        for found in self._signature.pattern.finditer(data):
            if position - before + found.start() >= self._first:
                self.end = position - before + found.start()
                break
        part = data[before : before + size]
        if self.end is not None:
            part = part[: max(0, self.end - position)]
        self._file.seek(position + len(part))
        if position <= self._searched_to:
            self._searched_to = max(self._searched_to, position + len(part))
        return part

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET:
            offset += self.start
        elif whence == os.SEEK_END and self.end is not None:
            offset, whence = self.end + offset, os.SEEK_SET
        position = self._file.seek(offset, whence)
        return position if position < 0 else position - self.start

    def tell(self) -> int:
        return self._file.tell() - self.start

    def skip_to_end(self) -> None:
        """Reads the bytes that FFmpeg left unread, to find the next recording."""
        self._file.seek(self._searched_to)
        while self.read(READ_SIZE):
            pass


class PipedPart:
    """A part of a pipe: from the window's position to the next recording."""

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
    """Bytes of the Ogg pages at the window's position that begin a stream."""
    size = 0
    for _ in range(MAX_STREAMS):
        if not window.ensure(size + PAGE_HEADER):
            break
        head = window.held[size : size + PAGE_HEADER]
        if not head.startswith(b"OggS") or not head[5] & FIRST_PAGE:
            break
        segments = head[26]
        if not window.ensure(size + PAGE_HEADER + segments):
            break
        size += PAGE_HEADER + segments + sum(window.held[size + PAGE_HEADER : size + PAGE_HEADER + segments])
    return max(1, size)
