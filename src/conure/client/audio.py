"""Audio as the bytes that go to the server."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from conure.client.errors import BadInput

__all__ = ["Encoding", "bytes_per_second", "packets", "to_bytes"]

Encoding = Literal["pcm16", "f32", "mulaw", "alaw", "container"]

WIDTHS: dict[str, int] = {"pcm16": 2, "f32": 4, "mulaw": 1, "alaw": 1, "container": 2}
"""Bytes a sample. A container has fewer, unless it holds plain samples."""
PACKET = 1 << 15
"""Most bytes that are sent at a time."""


def bytes_per_second(encoding: Encoding, sample_rate: int, channels: int) -> int:
    return WIDTHS[encoding] * sample_rate * channels


def packets(audio: bytes, encoding: Encoding, channels: int) -> list[bytes]:
    """The audio in packets of whole samples."""
    size = PACKET - PACKET % (WIDTHS[encoding] * channels)
    return [audio[start : start + size] for start in range(0, len(audio), size)]


def to_bytes(audio: bytes | bytearray | memoryview | NDArray[Any], encoding: Encoding, channels: int) -> bytes:
    """Bytes as they are; arrays [n] or [channels, n] of float (-1 to 1) or int16 in the encoding of the stream.

    Raises BadInput.
    """
    if not isinstance(audio, np.ndarray):
        return bytes(audio)
    if (1 if audio.ndim == 1 else len(audio)) != channels or audio.ndim > 2:
        raise BadInput(f"an array of shape {audio.shape} is not audio of {channels} channels", "[n] or [channels, n]")
    samples = audio.T if audio.ndim == 2 else audio  # [n, channels]: those of one moment lie together
    if samples.dtype == np.int16 and encoding == "pcm16":
        return samples.astype("<i2").tobytes()
    if not np.issubdtype(samples.dtype, np.floating) or encoding not in ("pcm16", "f32"):
        raise BadInput(
            f"an array of {samples.dtype} cannot be sent as {encoding}", "send bytes, or floats as pcm16 or f32"
        )
    if not np.isfinite(samples).all():
        raise BadInput("the array holds samples that are not finite numbers (NaN or infinity)")
    if encoding == "f32":
        return samples.astype("<f4").tobytes()
    scaled: NDArray[Any] = (np.clip(samples, -1, 1) * 32767).round()
    return scaled.astype("<i2").tobytes()
