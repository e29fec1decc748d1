"""Decoded frames of FFmpeg as float samples; full scale is 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame

from conure.audio.resample import Samples
from conure.audio.source import CONVERT
from conure.errors import UnsupportedAudio

__all__ = ["MAX_LEVEL", "check_shape", "shape_of", "to_float"]

MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64
MAX_LEVEL = 1e6
"""Limit of a sample's absolute value; far above full scale (1) the power spectrum would overflow float32."""

FORMATS: dict[str, tuple[type[np.generic], int, float]] = {
    "u8": (np.uint8, 128, 2.0**-7),
    "s16": (np.int16, 0, 2.0**-15),
    "s32": (np.int32, 0, 2.0**-31),
    "s64": (np.int64, 0, 2.0**-63),
    "flt": (np.float32, 0, 1.0),
    "dbl": (np.float64, 0, 1.0),
}
"""FFmpeg's sample formats: type, value of silence, scale. The names of planar ones end with "p"."""


def shape_of(frame: AudioFrame) -> tuple[str, str, int]:
    """Sample format, channel layout and rate: frames with equal ones can be converted together."""
    return frame.format.name, frame.layout.name, frame.sample_rate


def check_shape(name: str, frame: AudioFrame) -> None:
    """Raises UnsupportedAudio if the rate or the number of channels is out of range."""
    if not MIN_RATE <= frame.sample_rate <= MAX_RATE:
        raise UnsupportedAudio(
            f"{name}: has {frame.sample_rate} samples a second; supported are {MIN_RATE} to {MAX_RATE}", CONVERT
        )
    if frame.layout.nb_channels > MAX_CHANNELS:
        raise UnsupportedAudio(f"{name}: has {frame.layout.nb_channels} channels; the limit is {MAX_CHANNELS}", CONVERT)


def to_float(frames: Sequence[AudioFrame]) -> Samples:
    """Frames of one shape -> samples [channels, n]."""
    if frames[0].format.is_planar and frames[0].layout.nb_channels > 8:
        frames = _interleaved(frames)
    kind, silence, scale = FORMATS[frames[0].format.name.removesuffix("p")]
    samples = np.empty((frames[0].layout.nb_channels, sum(frame.samples for frame in frames)), np.float32)
    start = 0
    with np.errstate(over="ignore"):
        for frame in frames:
            _copy(frame, kind, samples[:, start : start + frame.samples])
            start += frame.samples
    if silence:
        samples -= silence
    if scale != 1:
        samples *= scale
    return samples


def _copy(frame: AudioFrame, kind: type[np.generic], to: Samples) -> None:
    channels, count = to.shape
    planes: tuple[Any, ...] = frame.planes  # buffers, although their types do not say so; there may be a surplus one
    if frame.format.is_planar:
        for channel in range(channels):
            to[channel] = np.frombuffer(planes[channel], kind, count)
    else:
        to[:] = np.frombuffer(planes[0], kind, count * channels).reshape(count, channels).T


def _interleaved(frames: Sequence[AudioFrame]) -> list[AudioFrame]:
    """The frames with interleaved samples: PyAV reads out of bounds with more than eight planes."""
    converter = av.AudioResampler(format=frames[0].format.packed)
    return [converted for frame in [*frames, None] for converted in converter.resample(frame)]
