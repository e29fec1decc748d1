"""Decompression of archives: in memory if there is plenty, otherwise in an unlinked temporary file.

Temporary data is removed when the file is closed. The decompressed size is bounded by a multiple of the archive's size.
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
"""Limit of the decompressed size as a multiple of the archive's size; weights hardly compress."""
MIN_LIMIT = 2**20
"""Bytes that any archive may decompress to."""
EXPECTED_INFLATION, MEMORY_FACTOR = 2, 3
"""Expected decompressed size of an archive of weights, as a multiple of its size, and how many times that must be free
to decompress it in memory: the tensors that are read from it need memory at the same time."""
BLOCK = 2**20

Codec = Callable[[IO[bytes]], Any]
CODECS: dict[bytes, Codec] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
UNSUPPORTED_CODECS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}


@contextmanager
def open_uncompressed(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The file itself, or its decompressed content. Raises ModelError if there is no space to decompress it."""
    head = file.read(8)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    for magic, name in UNSUPPORTED_CODECS.items():
        if head.startswith(magic):
            raise BadCheckpoint(f"it is compressed with {name}", f"unpack it with {name} first")
    codec = next((codec for magic, codec in CODECS.items() if head.startswith(magic)), None)
    if codec is None:
        yield file
        return
    with codec(file) as source, _temporary_file(size) as decompressed:
        _unpack(source, decompressed, size)
        yield decompressed


def _unpack(source: IO[bytes], decompressed: IO[bytes], size: int) -> None:
    limit, unpacked = size * MAX_INFLATION + MIN_LIMIT, 0
    while block := source.read(BLOCK):
        unpacked += len(block)
        if unpacked > limit:
            raise BadCheckpoint(f"it unpacks to more than {MAX_INFLATION} times its {size:,} bytes: a gzip bomb")
        try:
            decompressed.write(block)
            decompressed.flush()
        except OSError as error:
            if not is_disk_full(error):
                raise
            reason = no_space_message(Path(tempfile.gettempdir()), max(unpacked, size * EXPECTED_INFLATION))
            raise ModelError(f"it is compressed and cannot be unpacked: {reason}", HINT) from error


HINT = "TMPDIR names another folder to unpack in; `conure models convert` makes a folder that need not be unpacked"


def _temporary_file(size: int) -> IO[bytes]:
    """A file in memory or on disk that is deleted when it is closed."""
    needed = size * EXPECTED_INFLATION * MEMORY_FACTOR
    if hasattr(os, "memfd_create") and psutil.virtual_memory().available > needed:
        return os.fdopen(os.memfd_create("conure"), "w+b")
    try:
        return tempfile.TemporaryFile(prefix="conure-")
    except OSError as error:
        raise ModelError(f"it is compressed and cannot be unpacked: {error.strerror or error}", HINT) from error
