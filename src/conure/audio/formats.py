"""Formats of audio in requests: encoding, sample rate, channels; conversion of raw bytes to samples.

An encoding is either raw samples (PCM, G.711) or a container, which declares its rate and channels itself. The aliases
of encodings in other programs are listed here, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from conure.errors import BadOption

__all__ = ["ENCODINGS", "AudioFormat", "Encoding", "parse_encoding", "to_float"]

Encoding = Literal["pcm16", "pcm8", "pcm24", "pcm32", "f32", "mulaw", "alaw", "container"]

ENCODINGS: dict[Encoding, tuple[str, ...]] = {
    "pcm16": ("linear16", "linear_pcm", "pcm", "pcm_16", "pcm_s16le", "s16le", "s16", "int16"),
    "pcm8": ("pcm_u8", "u8", "uint8"),
    "pcm24": ("pcm_s24le", "s24le", "s24", "int24"),
    "pcm32": ("pcm_s32le", "s32le", "s32", "int32"),
    "f32": ("linear32", "f32le", "float32", "pcm_f32le", "pcm_f32"),
    "mulaw": ("mu_law", "ulaw", "g711_ulaw", "g711_mulaw", "pcm_mulaw", "pcmu"),
    "alaw": ("a_law", "g711_alaw", "pcm_alaw", "pcma"),
    "container": (
        *("ogg", "opus", "ogg_opus", "oggopus", "webm", "webm_opus", "wav", "x_wav", "wave", "flac", "x_flac"),
        *("mp3", "mpeg", "aac", "adts", "mp4", "m4a", "x_m4a", "mka", "matroska", "x_matroska"),
    ),
}
"""Each encoding and its aliases. Samples are little-endian, and signed except for `pcm8`."""

MIN_RATE, MAX_RATE = 8_000, 48_000
MAX_CHANNELS = 8

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class AudioFormat:
    """Raises BadOption for unsupported values. For a container, rate and channels are ignored."""

    encoding: Encoding = "pcm16"
    sample_rate: int = 16_000
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise _unknown(self.encoding)
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            raise BadOption(
                f"sample rate {self.sample_rate} is not supported",
                f"send {MIN_RATE} to {MAX_RATE} samples a second, best 16000",
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise BadOption(f"{self.channels} channels are not supported", f"send 1 to {MAX_CHANNELS}, best 1")

    @classmethod
    def from_name(cls, encoding: str, sample_rate: int = 16_000, channels: int = 1) -> Self:
        """Like the constructor, with any alias of the encoding."""
        return cls(parse_encoding(encoding), sample_rate, channels)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of each channel; 1 for containers."""
        return self.channels * SAMPLE_BYTES[self.encoding] if self.encoding in SAMPLE_BYTES else 1


def parse_encoding(name: str) -> Encoding:
    """The encoding of a name, alias or MIME type such as "audio/webm;codecs=opus". Raises BadOption."""
    normalized = name.partition(";")[0].strip().lower().removeprefix("audio/").replace("-", "_")
    for encoding, aliases in ENCODINGS.items():
        if normalized == encoding or normalized in aliases:
            return encoding
    raise _unknown(name)


def to_float(data: bytes, encoding: Encoding) -> Samples:
    """Complete samples, channels interleaved, as a new float32 array [n]; full scale is 1.

    Raises KeyError for containers.
    """
    return DECODE[encoding](data)


def _unknown(name: str) -> BadOption:
    return BadOption(f"encoding {name!r} is not known", f"choose one of: {', '.join(ENCODINGS)}")


def _mulaw_levels() -> Samples:
    """The values of the 256 codes of ITU-T G.711's mu-law: 14 bits, a sign, 8 segments of 16 steps."""
    codes = np.arange(256) ^ 0xFF
    segment, step = codes >> 4 & 7, codes & 15
    magnitude = (2 * step + 33 << segment) - 33
    return (np.where(codes & 0x80, -magnitude, magnitude) / 2**13).astype(np.float32)


def _alaw_levels() -> Samples:
    """The values of A-law: 13 bits, every other bit of a code inverted; the first two segments have equal steps."""
    codes = np.arange(256) ^ 0x55
    segment, step = codes >> 4 & 7, codes & 15
    magnitude = np.where(segment, 2 * step + 33 << np.maximum(segment - 1, 0), 2 * step + 1)
    return (np.where(codes & 0x80, magnitude, -magnitude) / 2**12).astype(np.float32)


def _decode_pcm24(data: bytes) -> Samples:
    """Decodes 24 bits as the upper three bytes of 32."""
    padded = np.zeros((len(data) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return _decode_pcm32(padded.tobytes())


def _decode_pcm32(data: bytes) -> Samples:
    return np.frombuffer(data, "<i4").astype(np.float32) * PCM32_SCALE


PCM8_SCALE, PCM16_SCALE, PCM32_SCALE = np.float32(2.0**-7), np.float32(2.0**-15), np.float32(2.0**-31)
PCM8_ZERO = np.float32(128)
MULAW, ALAW = _mulaw_levels(), _alaw_levels()

DECODE: dict[Encoding, Callable[[bytes], Samples]] = {
    "pcm16": lambda data: np.frombuffer(data, "<i2") * PCM16_SCALE,
    "pcm8": lambda data: (np.frombuffer(data, np.uint8) - PCM8_ZERO) * PCM8_SCALE,
    "pcm24": _decode_pcm24,
    "pcm32": _decode_pcm32,
    "f32": lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    "mulaw": lambda data: MULAW[np.frombuffer(data, np.uint8)],
    "alaw": lambda data: ALAW[np.frombuffer(data, np.uint8)],
}
SAMPLE_BYTES: dict[Encoding, int] = {"pcm16": 2, "pcm8": 1, "pcm24": 3, "pcm32": 4, "f32": 4, "mulaw": 1, "alaw": 1}
