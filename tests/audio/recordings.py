"""Generated recordings: tones, encoded by FFmpeg in any container."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}


def tone(seconds=1.0, rate=16_000, hertz=440.0, level=0.25):
    """float32 [1, n]"""
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hertz * times)).astype(np.float32)[None]


def level_of(samples, hertz, rate=16_000):
    """Amplitude of one frequency in samples [n]."""
    times = np.arange(len(samples)) / rate
    return 2 * abs(np.mean(samples * np.exp(-2j * np.pi * hertz * times)))


def encode(samples, rate=16_000, container="wav", codec="pcm_s16le", **options):
    """Samples [channels, n] as the bytes of a file."""
    made = io.BytesIO()
    write(made, samples, rate, container, codec, **options)
    return made.getvalue()


def write(to, samples, rate=16_000, container="wav", codec="pcm_s16le", **options):
    with av.open(to, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout=LAYOUTS.get(len(samples), f"{len(samples)} channels"))
        for packet in encoded(stream, samples, rate):
            output.mux(packet)


def encoded(stream, samples, rate, start=0.0):
    """Packets of samples [channels, n] with time stamps from `start` seconds on."""
    for first in range(0, samples.shape[1], 960):
        part = np.ascontiguousarray(samples[:, first : first + 960].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(part, format="flt", layout=stream.layout.name)
        frame.rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate) + first
        yield from stream.encode(frame)
    yield from stream.encode(None)


def film(*sounds, container="matroska", codec="aac", rate=16_000, start=0.0):
    """Three seconds of grey video; each sound [channels, n] is an audio stream that begins at `start`."""
    made = io.BytesIO()
    with av.open(made, "w", format=container) as output:
        pictures = output.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        streams = [output.add_stream(codec, rate=rate, layout=LAYOUTS[len(sound)]) for sound in sounds]
        for packet in _grey(pictures, 30):
            output.mux(packet)
        for stream, sound in zip(streams, sounds, strict=True):
            for packet in encoded(stream, sound, rate, start):
                output.mux(packet)
    return made.getvalue()


def _grey(stream, count):
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((48, 32), 128, np.uint8), format="yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 10)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def flac_of_silence(hours):
    """16 kHz FLAC of zeros: a frame of 4 seconds has 14 bytes."""
    block = 65_535
    header = b"fLaC\x80\x00\x00\x22" + block.to_bytes(2) * 2 + bytes(6)
    header += (16_000 << 44 | 15 << 36).to_bytes(8) + bytes(16)
    frames = [_silent_frame(number, block) for number in range(128)]
    return header + b"".join(frames) * round(hours * 3600 * 16_000 / block / 128)


def _silent_frame(number, block):
    # sync, 16-bit block size, 16 kHz, mono, 16 bit, number, block size - 1, check; a constant of 0; check
    head = b"\xff\xf8\x75\x08" + bytes([number]) + (block - 1).to_bytes(2)
    frame = head + _crc(head, 0x107, 1) + bytes(3)
    return frame + _crc(frame, 0x18005, 2)


def _crc(content, polynomial, size):
    """Cyclic redundancy check, most significant bit first."""
    value = int.from_bytes(content) << 8 * size
    while (excess := value.bit_length() - polynomial.bit_length()) >= 0:
        value ^= polynomial << excess
    return value.to_bytes(size)
