"""Files of several concatenated recordings: all are read."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.audio.formats import AudioFormat
from conure.audio.live_decoder import LiveDecoder
from conure.errors import UnsupportedAudio
from tests.audio.recordings import encode, level_of, tone
from tests.audio.test_containers import OneWay
from tests.audio.test_truncation import FRAGMENTED

KINDS = {
    "flac": ("flac", "flac", 16_000, 48_000, {}),
    "ogg opus": ("ogg", "libopus", 48_000, 48_000, {}),
    "ogg flac": ("ogg", "flac", 16_000, 44_100, {}),
    "webm": ("webm", "libopus", 48_000, 48_000, {}),
    "webm of a browser": ("webm", "libopus", 48_000, 48_000, {"live": "1"}),
    "mka": ("matroska", "pcm_s16le", 16_000, 48_000, {}),
    "m4a": ("ipod", "aac", 44_100, 16_000, {}),
    "fragmented mp4": ("mp4", "aac", 48_000, 22_050, FRAGMENTED),
    "asf": ("asf", "libmp3lame", 44_100, 16_000, {}),
    "flv": ("flv", "aac", 44_100, 22_050, {}),
    "avi": ("avi", "pcm_s16le", 16_000, 8_000, {}),
    "nut": ("nut", "pcm_s16le", 16_000, 48_000, {}),
    "tta": ("tta", "tta", 16_000, 8_000, {}),
    "voc": ("voc", "pcm_s16le", 16_000, 8_000, {}),
    "wavpack": ("wv", "wavpack", 16_000, 44_100, {}),
    "amr": ("amr", "libopencore_amrnb", 8_000, 8_000, {}),
    "rm": ("rm", "ac3", 48_000, 44_100, {}),
    "mp3": ("mp3", "libmp3lame", 44_100, 16_000, {}),
    "mp3 of frames alone": ("mp3", "libmp3lame", 16_000, 44_100, {"id3v2_version": "0", "write_xing": "0"}),
    "mp2": ("mp2", "mp2", 44_100, 48_000, {}),
    "adts": ("adts", "aac", 44_100, 48_000, {}),
    "adts, slower": ("adts", "aac", 48_000, 16_000, {}),
    "latm": ("latm", "aac", 44_100, 48_000, {}),
    "ac3": ("ac3", "ac3", 44_100, 48_000, {}),
    "mpeg-ts": ("mpegts", "aac", 44_100, 48_000, {}),
}


@cache
def concatenated(kind, channels=1):
    """Two seconds of one tone and two of another, which may differ in rate and channels."""
    container, codec, first, second, options = KINDS[kind]
    other = np.repeat(tone(2.0, second, 1_000), channels, axis=0)
    return encode(tone(2.0, first), first, container, codec, **options) + encode(
        other, second, container, codec, **options
    )


def read(source):
    with open_audio(source) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)[0], reader.problems


def assert_both(samples, problems):
    assert 4.0 <= len(samples) / 16_000 < 4.3
    assert level_of(samples[4_000:24_000], 440) == pytest.approx(0.25, rel=0.3)
    assert level_of(samples[-24_000:-8_000], 1_000) == pytest.approx(0.25, rel=0.3)
    assert not any("gap" in problem or "leap" in problem or "cut off" in problem for problem in problems)
    sounding = np.abs(samples[4_000:-8_000]).reshape(-1, 8).max(axis=1) if len(samples) % 8 == 0 else None
    assert sounding is None or np.count_nonzero(sounding == 0) * 8 < 1_600


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_both_are_read(kind, channels):
    if kind == "amr" and channels == 2:
        pytest.skip("AMR has one channel")
    assert_both(*read(concatenated(kind, channels)))


@pytest.mark.parametrize(
    "kind", ["flac", "ogg opus", "ogg flac", "webm of a browser", "mka", "tta", "adts", "mp2", "fragmented mp4"]
)
def test_both_are_read_from_a_pipe_and_live(kind):
    recording = concatenated(kind)
    assert_both(*read(OneWay(recording)))
    with LiveDecoder(AudioFormat("container")) as decoder:
        parts = [decoder.push(recording[at : at + 999]) for at in range(0, len(recording), 999)]
        assert_both(np.concatenate([*parts, decoder.finish()]), decoder.problems)


def test_a_truncated_second_recording_is_reported():
    first = encode(tone(2.0), container="flac", codec="flac")
    _, problems = read(first + first[: len(first) * 55 // 100])
    assert any("cut off" in problem for problem in problems)


def test_an_unreadable_second_recording_is_reported():
    first = encode(tone(2.0), container="ipod", codec="aac")
    samples, problems = read(first + b"\x00\x00\x00\x18ftypM4A " + bytes(12) + b"\x00\x00\x00\x20moov" + bytes(24))
    assert 2.0 <= len(samples) / 16_000 < 2.2
    assert any("cannot be read" in problem for problem in problems)


def test_a_recording_without_samples_does_not_hide_others():
    nothing = encode(tone(1.0)[:, :0], container="flac", codec="flac")
    assert len(read(nothing + encode(tone(2.0), container="flac", codec="flac"))[0]) == 32_000


def test_the_number_of_recordings_is_limited(monkeypatch):
    monkeypatch.setattr("conure.audio.decoder.MAX_RECORDINGS", 5)
    one, other = encode(tone(0.1)), encode(tone(0.1, 8_000), 8_000)
    samples, problems = read((one + other) * 4)
    assert len(samples) == 5 * 1_600
    assert any("more than 5 recordings" in problem for problem in problems)


def test_headers_without_samples_are_not_a_recording():
    with pytest.raises(UnsupportedAudio):
        read(encode(tone(1.0)[:, :0]) * 3)
