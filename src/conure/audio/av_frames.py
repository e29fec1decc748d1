"""Frames that FFmpeg decoded, as float samples; full scale is 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame

from conure.audio.resample import Samples
from conure.audio.source import CONVERT
from conure.errors import UnsupportedAudio

__all__ = ["LOUDEST", "check_shape", "shape_of", "to_float"]

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
MOST_CHANNELS = 64
LOUDEST = 1e6
"""Full scale is 1; far above it the power spectrum would overflow float32."""

FORMATS: dict[str, tuple[type[np.generic], int, float]] = {
    "u8": (np.uint8, 128, 2.0**-7),
    "s16": (np.int16, 0, 2.0**-15),
    "s32": (np.int32, 0, 2.0**-31),
    "s64": (np.int64, 0, 2.0**-63),
    "flt": (np.float32, 0, 1.0),
    "dbl": (np.float64, 0, 1.0),
}
"""FFmpeg's sample formats: type, silence, scale. Planar ones have a "p" behind their name."""


def shape_of(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def check_shape(name: str, frame: AudioFrame) -> None:
    if not LOWEST_RATE <= frame.sample_rate <= HIGHEST_RATE:
        raise UnsupportedAudio(
            f"{name}: has {frame.sample_rate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} are read", CONVERT
        )
    if frame.layout.nb_channels > MOST_CHANNELS:
        raise UnsupportedAudio(f"{name}: has {frame.layout.nb_channels} channels; {MOST_CHANNELS} are read", CONVERT)


def to_float(frames: Sequence[AudioFrame]) -> Samples:
    """Frames of one shape -> [channels, n]."""
    if frames[0].format.is_planar and frames[0].layout.nb_channels > 8:
        frames = _packed(frames)
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
    planes: tuple[Any, ...] = frame.planes  # buffers, though their types do not say so; at times one too many
    if frame.format.is_planar:
        for channel in range(channels):
            to[channel] = np.frombuffer(planes[channel], kind, count)
    else:
        to[:] = np.frombuffer(planes[0], kind, count * channels).reshape(count, channels).T


def _packed(frames: Sequence[AudioFrame]) -> list[AudioFrame]:
    """The same samples interleaved: PyAV reads past the end of a list of more than eight planes."""
    packer = av.AudioResampler(format=frames[0].format.packed)
    return [packed for frame in [*frames, None] for packed in packer.resample(frame)]
