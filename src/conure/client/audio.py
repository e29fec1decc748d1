"""Converts audio to the bytes that are sent to the server."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from conure.client.errors import BadInput

__all__ = ["Encoding", "bytes_per_second", "packets", "to_bytes"]

Encoding = Literal["pcm16", "f32", "mulaw", "alaw", "container"]

WIDTHS: dict[str, int] = {"pcm16": 2, "f32": 4, "mulaw": 1, "alaw": 1, "container": 2}
"""Bytes per sample. For a container this is an upper bound: that of uncompressed samples."""
MAX_PACKET = 1 << 15
"""Bytes per message."""


def bytes_per_second(encoding: Encoding, sample_rate: int, channels: int) -> int:
    return WIDTHS[encoding] * sample_rate * channels


def packets(audio: bytes, encoding: Encoding, channels: int) -> list[bytes]:
    """Splits the audio into packets of whole samples."""
    size = MAX_PACKET - MAX_PACKET % (WIDTHS[encoding] * channels)
    return [audio[start : start + size] for start in range(0, len(audio), size)]


def to_bytes(audio: bytes | bytearray | memoryview | NDArray[Any], encoding: Encoding, channels: int) -> bytes:
    """Converts arrays [n] or [channels, n] of float (-1 to 1) or int16 to the stream's encoding; bytes stay unchanged.

    Raises BadInput.
    """
    if not isinstance(audio, np.ndarray):
        return bytes(audio)
    if (1 if audio.ndim == 1 else len(audio)) != channels or audio.ndim > 2:
        raise BadInput(
            f"an array of shape {audio.shape} is not audio with {channels} channels", "use [n] or [channels, n]"
        )
    samples = audio.T if audio.ndim == 2 else audio  # [n, channels]: interleaved
    if samples.dtype == np.int16 and encoding == "pcm16":
        return samples.astype("<i2").tobytes()
    if not np.issubdtype(samples.dtype, np.floating) or encoding not in ("pcm16", "f32"):
        raise BadInput(
            f"an array of {samples.dtype} cannot be sent as {encoding}", "send bytes, or floats as pcm16 or f32"
        )
    if not np.isfinite(samples).all():
        raise BadInput("the array contains samples that are not finite (NaN or infinity)")
    if encoding == "f32":
        return samples.astype("<f4").tobytes()
    scaled: NDArray[Any] = (np.clip(samples, -1, 1) * 32767).round()
    return scaled.astype("<i2").tobytes()
