"""Names and limits of audio formats, and conversion to the same samples as FFmpeg."""

from __future__ import annotations

import io
import re

import av
import numpy as np
import pytest

from conure.audio.formats import ENCODINGS, AudioFormat, parse_encoding, to_float
from conure.errors import BadOption

FFMPEG = {
    "pcm16": "s16le",
    "pcm8": "u8",
    "pcm24": "s24le",
    "pcm32": "s32le",
    "f32": "f32le",
    "mulaw": "mulaw",
    "alaw": "alaw",
}


def by_ffmpeg(data, encoding):
    """Samples [n] as decoded by FFmpeg's codec."""
    options = {"sample_rate": "16000", "ch_layout": "mono"}
    with av.open(io.BytesIO(data), "r", format=FFMPEG[encoding], options=options) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    if samples.dtype == np.float32:
        return samples
    if samples.dtype == np.uint8:
        return samples / np.float32(2**7) - 1
    return (samples / 2.0 ** (8 * samples.itemsize - 1)).astype(np.float32)


EVERY_VALUE = {  # or very many
    "pcm16": np.arange(-(2**15), 2**15).astype("<i2").tobytes(),
    "pcm8": bytes(range(256)),
    "pcm24": np.random.default_rng(1).bytes(3 * 4_000),
    "pcm32": np.random.default_rng(2).bytes(4 * 4_000),
    "f32": np.random.default_rng(0).normal(0, 2, 4_000).astype("<f4").tobytes(),
    "mulaw": bytes(range(256)),
    "alaw": bytes(range(256)),
}


@pytest.mark.parametrize("encoding", EVERY_VALUE)
def test_samples_equal_those_of_ffmpeg(encoding):
    samples = to_float(EVERY_VALUE[encoding], encoding)
    assert samples.dtype == np.float32
    assert samples.flags.writeable
    assert np.array_equal(samples, by_ffmpeg(EVERY_VALUE[encoding], encoding))


def test_aliases_are_unique():
    names = [name for encoding, aliases in ENCODINGS.items() for name in (encoding, *aliases)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in names)
    assert [parse_encoding(name) for name in names] == [
        encoding for encoding, aliases in ENCODINGS.items() for _ in (encoding, *aliases)
    ]


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("LINEAR_PCM", "pcm16"),
        ("audio/pcm", "pcm16"),
        ("pcm_s16le", "pcm16"),
        ("pcm_u8", "pcm8"),
        ("s24le", "pcm24"),
        ("int32", "pcm32"),
        ("f32le", "f32"),
        ("audio/PCMU", "mulaw"),
        ("g711_ulaw", "mulaw"),
        ("g711-alaw", "alaw"),
        ("ogg-opus", "container"),
        ("OGGOPUS", "container"),
        ("audio/webm;codecs=opus", "container"),
        (" audio/x-wav ", "container"),
    ],
)
def test_aliases_of_other_programs(name, encoding):
    assert parse_encoding(name) == encoding
    assert AudioFormat.from_name(name, 8_000, 2) == AudioFormat(encoding, 8_000, 2)


@pytest.mark.parametrize("name", ["", "g729", "pcm 16", "audio/", "s16be"])
def test_the_error_for_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(BadOption, match=re.escape(repr(name))) as raised:
        parse_encoding(name)
    assert all(encoding in raised.value.hint for encoding in ENCODINGS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoding": "linear16"}, "'linear16'"),  # an alias goes through `named`
        ({"sample_rate": 7_999}, "7999"),
        ({"sample_rate": 48_001}, "48001"),
        ({"sample_rate": -16_000}, "-16000"),
        ({"channels": 0}, "0 channels"),
        ({"channels": 9}, "9 channels"),
    ],
)
def test_limits(fields, message):
    with pytest.raises(BadOption, match=message) as raised:
        AudioFormat(**fields)
    assert raised.value.hint


def test_bytes_of_a_frame():
    assert AudioFormat("f32", channels=3).frame_bytes == 12
    assert AudioFormat("mulaw").frame_bytes == 1
