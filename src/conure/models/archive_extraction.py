"""Compressed archives, unpacked where there is room: in memory, where it is plenty, else in a nameless file.

Nothing is left behind, and no archive is unpacked beyond a few times its size.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from conure.errors import BadCheckpoint, ModelError
from conure.models.disk_space import is_disk_full, no_space_message

__all__ = ["open_uncompressed"]

MAX_INFLATION = 16
"""An archive may unpack to so many times its size; weights hardly shrink at all."""
GRACE = 2**20
LIKELY_INFLATION, SPARE = 2, 3
"""What an archive of weights is expected to unpack to, and how many times that must be free to do it in memory: what
is read of it is there beside it for a moment."""
BLOCK = 2**20

Codec = Callable[[IO[bytes]], Any]
CODECS: dict[bytes, Codec] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}


@contextmanager
def open_uncompressed(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file itself, or what it holds compressed. Raises ModelError where there is no room for that."""
    head = file.read(8)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    for magic, name in OTHERS.items():
        if head.startswith(magic):
            raise BadCheckpoint(f"it is compressed with {name}", f"unpack it with {name} first")
    codec = next((codec for magic, codec in CODECS.items() if head.startswith(magic)), None)
    if codec is None:
        yield file
        return
    with codec(file) as source, _room(size) as plain:
        _unpack(source, plain, size)
        yield plain


def _unpack(source: IO[bytes], plain: IO[bytes], size: int) -> None:
    limit, unpacked = size * MAX_INFLATION + GRACE, 0
    while block := source.read(BLOCK):
        unpacked += len(block)
        if unpacked > limit:
            raise BadCheckpoint(f"it unpacks to more than {MAX_INFLATION} times its {size:,} bytes: a gzip bomb")
        try:
            plain.write(block)
            plain.flush()
        except OSError as error:
            if not is_disk_full(error):
                raise
            reason = no_space_message(Path(tempfile.gettempdir()), max(unpacked, size * LIKELY_INFLATION))
            raise ModelError(f"it is compressed and cannot be unpacked: {reason}", HINT) from error


HINT = "TMPDIR names another folder to unpack in; `conure models convert` makes a folder that need not be unpacked"


def _room(size: int) -> IO[bytes]:
    """A file that is gone when it is closed."""
    wanted = size * LIKELY_INFLATION * SPARE
    if hasattr(os, "memfd_create") and psutil.virtual_memory().available > wanted:
        return os.fdopen(os.memfd_create("conure"), "w+b")
    try:
        return tempfile.TemporaryFile(prefix="conure-")
    except OSError as error:
        raise ModelError(f"it is compressed and cannot be unpacked: {error.strerror or error}", HINT) from error
