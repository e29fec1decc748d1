"""Sources of recordings: a path, bytes, a file object, or a pipe with live audio.

Only the source itself is opened: FFmpeg gets a file object, never a name, so a path is never taken as a URL or as one
of FFmpeg's protocols.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from conure.errors import AudioNotFound, UnsupportedAudio
from conure.printable import printable_name

__all__ = ["CONVERT", "HEAD", "INDEX_LAST", "RETRY", "Source", "SourceFile", "open_pipe", "open_source"]

Source = Path | str | BinaryIO | bytes
"""A string is a path, never a URL."""

HEAD = 64
"""Bytes that identify a container."""
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]")
INDEX_LAST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""Bytes 4 to 8 of MP4 and QuickTime, whose index may follow the samples."""

CONVERT = "check that it plays, or convert it: ffmpeg -i INPUT -ar 16000 OUTPUT.wav"
RETRY = "check the disk or the connection, and try again"


class SourceFile:
    """A source for FFmpeg. An error of the disk or the pipe becomes the end of the file and is stored in `error`."""

    def __init__(self, name: str, file: BinaryIO, head: bytes) -> None:
        """`head`: the first bytes, which were already read from files that are not seekable."""
        self.name = name
        self.head = head
        self.error: OSError | None = None
        self._file = file
        self._unread_head = b"" if file.seekable() else head

    def read(self, size: int) -> bytes:
        if self._unread_head:
            part, self._unread_head = self._unread_head[:size], self._unread_head[size:]
            return part
        try:
            return self._file.read(size)
        except OSError as error:
            self.error = error
            return b""

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):  # an invalid position in a damaged index
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def length(self) -> int | None:
        """None if the file is not seekable."""
        if not self.seekable():
            return None
        position = self.tell()
        length = self.seek(0, os.SEEK_END)
        self.seek(position)
        return length

    def read_at(self, place: int, size: int) -> bytes:
        """Bytes at any position of a seekable file, whose position is kept."""
        position = self.tell()
        self.seek(place)
        data = self.read(size)
        self.seek(position)
        return data


def open_source(source: Source, stack: ExitStack) -> SourceFile:
    """The source at its first byte. Files that are opened here are closed by the stack."""
    if isinstance(source, bytes):
        name, file = "the audio", cast(BinaryIO, io.BytesIO(source))
    elif isinstance(source, str | Path):
        name, file = printable_name(str(source)), stack.enter_context(_open_path(str(source)))
    else:
        file_name = getattr(source, "name", None)  # an integer if the file was opened by a descriptor
        name, file = printable_name(file_name) if isinstance(file_name, str) else "the audio", source
    try:
        opened = _at_start(name, file, stack)
    except OSError as error:
        raise AudioNotFound(f"{name}: cannot be read: {error.strerror or error}", RETRY) from error
    return _checked(opened)


def _checked(file: SourceFile) -> SourceFile:
    if not file.head:
        raise UnsupportedAudio(f"{file.name}: is empty", "record or copy it again")
    if file.head.startswith(PLAYLISTS):
        raise UnsupportedAudio(f"{file.name}: is a playlist, not audio", "pass the audio files that it lists")
    return file


def open_pipe(pipe: BinaryIO) -> SourceFile:
    """Live audio at its first byte; `pipe` is not seekable, and its `read` may block."""
    return _checked(SourceFile("the audio", pipe, _read_head(pipe)))


def _open_path(name: str) -> BinaryIO:
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _not_found(name, error) from error
    if stat.S_ISDIR(mode):
        raise AudioNotFound(f"{printable_name(name)}: is a folder, not a file", "name the files in it")
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise AudioNotFound(
            f"{printable_name(name)}: is a device, not a file", "record to a file, or pipe the audio in"
        )
    try:
        return open(name, "rb")
    except OSError as error:
        raise _not_found(name, error) from error


def _not_found(name: str, error: OSError | ValueError) -> AudioNotFound:
    hint = "check the path"
    if isinstance(error, PermissionError):
        hint = "make it readable for this user (chmod u+r)"
    elif re.match(r"\w+://", name):
        hint = "only files are supported: download it first"
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return AudioNotFound(f"{printable_name(name)}: {reason}", hint)


def _at_start(name: str, file: BinaryIO, stack: ExitStack) -> SourceFile:
    """The file at its first byte. A pipe whose index may come last is copied to a temporary file first."""
    if not file.seekable():
        head = _read_head(file)
        if head[4:8] not in INDEX_LAST:
            return SourceFile(name, file, head)
        file = _spool(head, file, stack)
    file.seek(0)
    head = _read_head(file)
    file.seek(0)
    return SourceFile(name, file, head)


def _read_head(file: BinaryIO) -> bytes:
    head = b""
    while len(head) < HEAD and (part := file.read(HEAD - len(head))):
        head += part
    return head


def _spool(head: bytes, file: BinaryIO, stack: ExitStack) -> BinaryIO:
    spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    spool.write(head)
    shutil.copyfileobj(file, spool)
    return spool
