"""Presents raw samples as a WAV file, by a header with rate and channels."""

from __future__ import annotations

import io
import os
import struct
from typing import BinaryIO, cast

from conure.audio.formats import AudioFormat, Encoding

__all__ = ["with_wav_header"]

TAGS: dict[Encoding, tuple[int, int]] = {"pcm16": (1, 16), "f32": (3, 32), "alaw": (6, 8), "mulaw": (7, 8)}
"""WAV format code and bits per sample of each encoding."""
UNKNOWN_SIZE = 2**32 - 1
"""Means: up to the end of the file."""


def with_wav_header(file: BinaryIO, audio: AudioFormat) -> BinaryIO:
    """A file object that reads a header and then the file; nothing is copied. The caller closes the file.

    Raises KeyError for containers, which have their own header.
    """
    return cast(BinaryIO, _FileWithHeader(_head(audio, file.seek(0, os.SEEK_END)), file))


def _head(audio: AudioFormat, size: int) -> bytes:
    kind, bits = TAGS[audio.encoding]
    frame, second = audio.frame_bytes, audio.frame_bytes * audio.sample_rate
    layout = struct.pack("<HHIIHHH", kind, audio.channels, audio.sample_rate, second, frame, bits, 0)
    chunks = b"WAVE" + b"fmt " + struct.pack("<I", len(layout)) + layout + b"data"
    whole = len(chunks) + 4 + size
    sizes = (whole, size) if whole < UNKNOWN_SIZE else (UNKNOWN_SIZE, UNKNOWN_SIZE)
    return b"RIFF" + struct.pack("<I", sizes[0]) + chunks + struct.pack("<I", sizes[1])


class _FileWithHeader(io.RawIOBase):
    """A header followed by a file, whose position is always that of the next read."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head, self._file, self._at = head, file, 0
        file.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += len(self._head) + self._file.seek(0, os.SEEK_END)
        self._at = max(offset, 0)
        self._file.seek(max(self._at - len(self._head), 0))
        return self._at

    def read(self, size: int = -1) -> bytes:
        """May return fewer bytes than requested at the end of the header."""
        size = size if size >= 0 else UNKNOWN_SIZE
        part = self._head[self._at : self._at + size] or self._file.read(size)
        self._at += len(part)
        return part
