"""Raw samples with a WAV header are read like a WAV file and like live audio."""

from __future__ import annotations

import io
import os
import wave

import numpy as np
import pytest

from conure.audio.containers import is_container
from conure.audio.files import open_audio
from conure.audio.formats import AudioFormat, Encoding, to_float
from conure.audio.wav_header import with_wav_header
from conure.errors import UnsupportedAudio


@pytest.mark.parametrize("encoding", ["pcm16", "f32", "mulaw", "alaw"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_encoding(encoding: Encoding, channels: int) -> None:
    rng = np.random.default_rng(channels)
    samples = rng.uniform(-1, 1, 4000 * channels).astype("<f4")
    data = samples.tobytes() if encoding == "f32" else rng.integers(0, 256, 8000 * channels, np.uint8).tobytes()
    file = with_wav_header(io.BytesIO(data), AudioFormat(encoding, 8000, channels))
    with open_audio(file, rate=8000, channels="split") as reader:
        read = np.concatenate(list(reader.blocks()), axis=1)
        assert reader.problems == []
    np.testing.assert_allclose(read, to_float(data, encoding).reshape(-1, channels).T, atol=1e-4)


def test_the_file_equals_those_of_other_writers() -> None:
    data = np.arange(-3000, 3000, dtype="<i2").tobytes()
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(data)
    headed = with_wav_header(io.BytesIO(data), AudioFormat("pcm16", 44_100, 2))
    with wave.open(headed) as file:
        assert file.getparams()[:4] == (2, 2, 44_100, 3000)
        assert file.readframes(3000) == data
    assert headed.seek(0, os.SEEK_END) == len(written.getvalue()) + 2  # this header declares its end


def test_an_incomplete_sample_at_the_end_is_left_out() -> None:
    with open_audio(with_wav_header(io.BytesIO(bytes(801)), AudioFormat("pcm16", 8000)), rate=8000) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 400


def test_an_empty_file_is_not_audio() -> None:
    with pytest.raises(UnsupportedAudio):
        open_audio(with_wav_header(io.BytesIO(), AudioFormat("mulaw", 8000)))


@pytest.mark.parametrize(
    "head", [b"RIFF\0\0\0\0WAVEfmt ", b"fLaC\0\0\0\x22", b"OggS\0\2", b"\0\0\0\x18ftypM4A ", b"\x1aE\xdf\xa3"]
)
def test_containers_are_distinguished_from_samples(head: bytes) -> None:
    assert is_container(head)
    assert not is_container(head[1:])


@pytest.mark.parametrize("head", [b"", bytes(16), b"\xff" * 16, b"\xff\xfb\x90\x64" * 4, b"RIFF\0\0\0\0AVI LIST"])
def test_bytes_that_may_be_samples(head: bytes) -> None:
    assert not is_container(head)
