"""WAV and similar files are read as far as there are samples, independent of their size fields."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.audio.formats import AudioFormat
from conure.audio.live_decoder import LiveDecoder
from tests.audio.recordings import encode, tone
from tests.audio.test_containers import OneWay

RNG = np.random.default_rng(0)
NOISE = (RNG.normal(0, 0.1, (1, 16_000)) * 32_768).astype("<i2")
"""A second, int16 [1, n]"""
PCM = NOISE.tobytes()
INFO = b"LIST" + struct.pack("<I", 18) + b"INFOISFT" + struct.pack("<I", 5) + b"Lavf\x00\x00"
ID3 = b"id3 " + struct.pack("<I", 20) + b"ID3\x03\x00\x00\x00\x00\x00\x0a" + bytes(10)
ODD = b"what" + struct.pack("<I", 2_000) + RNG.bytes(2_000)
"""A chunk that nobody knows."""


def wav(data=PCM, size=None, riff=None, after=b"", before=b"", rate=16_000, channels=1):
    size = len(data) if size is None else size
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * channels * 2, channels * 2, 16)
    chunks = b"WAVE" + before + fmt + b"data" + struct.pack("<I", size) + data + after
    return b"RIFF" + struct.pack("<I", len(chunks) if riff is None else riff) + chunks


def rf64(data=PCM, size=None, after=b""):
    sizes = len(data) if size is None else size
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, 0, sizes, 0, 0)
    plain = wav(data, 0xFFFFFFFF, 0xFFFFFFFF, after, ds64)
    return b"RF64" + plain[4:]


def w64(data=PCM, size=None, after=b""):
    more = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    fmt = struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16)
    head = bytes.fromhex("726966662e91cf11a5d628db04c10000") + bytes(8) + b"wave" + more
    chunks = b"fmt " + more + struct.pack("<Q", 24 + len(fmt)) + fmt
    return head + chunks + b"data" + more + struct.pack("<Q", 24 + (len(data) if size is None else size)) + data + after


def aiff(data=PCM, size=None, after=b""):
    comm = struct.pack(">4sIHIHH", b"COMM", 18, 1, 0, 16, 0x400C) + bytes.fromhex("fa00000000000000")
    sound = struct.pack(">4sIII", b"SSND", 8 + (len(data) if size is None else size), 0, 0)
    swapped = np.frombuffer(data, "<i2").astype(">i2").tobytes()
    return b"FORM" + struct.pack(">I", 46 + len(data)) + b"AIFF" + comm + sound + swapped + after


def caf(data=PCM, size=None, after=b""):
    desc = struct.pack(">4sqd4sIIIII", b"desc", 32, 16_000.0, b"lpcm", 2, 2, 1, 1, 16)
    sizes = 4 + (len(data) if size is None else size)
    return b"caff\x00\x01\x00\x00" + desc + struct.pack(">4sqI", b"data", sizes, 0) + data + after


def au(data=PCM, size=None, after=b""):
    sizes = len(data) if size is None else size
    swapped = np.frombuffer(data, "<i2").astype(">i2").tobytes()
    return struct.pack(">4sIIIII4x", b".snd", 28, sizes, 3, 16_000, 1) + swapped + after


FAMILY = {"wav": wav, "rf64": rf64, "w64": w64, "aiff": aiff, "caf": caf, "au": au}


def filed(recording):
    with open_audio(recording, channels="split") as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        return samples, reader.problems


def piped(recording):
    return filed(OneWay(recording))


def live(recording):
    with LiveDecoder(AudioFormat("container")) as decoder:
        parts = [decoder.push(recording[at : at + 1_001]) for at in range(0, len(recording), 1_001)]
        return np.concatenate([*parts, decoder.finish()])[None], decoder.problems


WAYS = pytest.mark.parametrize("way", [filed, piped, live])


def assert_tone(found, *parts):
    samples, problems = found
    expected = np.concatenate([np.frombuffer(part, "<i2") for part in parts]) / 32_768
    assert samples.shape == (1, len(expected))
    np.testing.assert_allclose(samples[0], expected, atol=1e-6)
    assert problems == []


@WAYS
@pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY)
@pytest.mark.parametrize("size", [0, 44, 3_200, 3_201, 8_000, 31_998])
def test_a_size_that_is_too_small(make, size, way):
    assert_tone(way(make(size=size)), PCM)


@WAYS
@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_size_that_means_unknown(size, way):
    assert_tone(way(wav(size=size, riff=size)), PCM)


@WAYS
def test_silence_is_not_taken_for_a_chunk(way):
    quiet = bytes(16_000) + PCM
    assert_tone(way(wav(quiet, 44, 36)), quiet)
    blank = b"    " * 4_000 + PCM  # all of them printable
    assert_tone(way(wav(blank, 44, 36)), blank)


@WAYS
@pytest.mark.parametrize("after", [INFO, ID3, INFO + ID3, b"bext" + struct.pack("<I", 602) + bytes(602)])
def test_chunks_after_the_samples_are_not_read_as_samples(after, way):
    assert_tone(way(wav(after=after)), PCM)
    assert_tone(way(wav(after=after) + wav(after=after)), PCM, PCM)


@WAYS
@pytest.mark.parametrize("size", [0, 44, 0xFFFFFFFF])
@pytest.mark.parametrize("after", [INFO, ID3])
def test_chunks_after_a_wrong_size_are_not_read_as_samples(size, after, way):
    assert_tone(way(wav(size=size, riff=size, after=after)), PCM)


def test_an_unknown_chunk_is_recognised_by_what_follows_it():
    assert_tone(filed(wav(after=ODD)), PCM)
    assert_tone(filed(wav(after=ODD + INFO) + wav()), PCM, PCM)


@WAYS
def test_samples_of_an_odd_number_of_bytes(way):
    data = RNG.integers(0, 256, 8_001, np.uint8).tobytes()
    for padding in (b"", b"\x00"):
        recording = bytearray(wav(data, after=padding + INFO))
        fmt = recording.index(b"fmt ") + 8
        recording[fmt : fmt + 16] = struct.pack("<HHIIHH", 1, 1, 16_000, 16_000, 1, 8)
        samples, problems = way(bytes(recording))
        assert samples.shape[1] == 8_001
        assert problems == []


@WAYS
def test_several_chunks_of_samples(way):
    second = b"data" + struct.pack("<I", len(PCM)) + PCM
    assert_tone(way(wav(after=INFO + second)), PCM, PCM)


@WAYS
@pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY)
@pytest.mark.parametrize("size", [None, 100])
def test_concatenated_files(make, size, way):
    """Files of one format, with any declared sizes, are read as one."""
    assert_tone(way(make(size=size) + make() + make(size=size)), PCM, PCM, PCM)


@WAYS
def test_concatenated_files_with_chunks_between(way):
    padded, garbage = bytes(512), np.arange(300, dtype="<i2").tobytes()
    assert_tone(way(wav(after=padded) + wav()), PCM, padded, PCM)
    assert_tone(way(wav(after=garbage) + wav(after=INFO)), PCM, garbage, PCM)


@WAYS
def test_a_header_before_each_packet(way):
    """Some clients send each packet as a WAV file."""
    packets = [PCM[at : at + 640] for at in range(0, len(PCM), 640)]
    assert_tone(way(b"".join(wav(packet) for packet in packets)), PCM)


@WAYS
@pytest.mark.parametrize("container", ["wav", "w64", "aiff", "caf", "au"])
def test_concatenated_files_of_different_rates_and_channels(container, way):
    codec = "pcm_s16be" if container in ("aiff", "au") else "pcm_s16le"
    stereo = np.repeat(tone(1.0, 48_000, 1_000), 2, axis=0)
    recording = encode(tone(1.0), 16_000, container, codec) + encode(stereo, 48_000, container, codec)
    samples, problems = way(recording)
    assert samples.shape == (1, 32_000)
    assert all("channels" in problem for problem in problems)
    times = np.arange(12_000) / 16_000
    for at, hertz in ((2_000, 440), (18_000, 1_000)):
        wave = samples[0, at : at + 12_000]
        assert 2 * abs(np.mean(wave * np.exp(-2j * np.pi * hertz * times))) == pytest.approx(0.25, rel=0.05)


@WAYS
@pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY)
def test_the_missing_end_of_a_truncated_file_is_reported(make, way):
    whole = make()
    samples, problems = way(whole[: len(whole) * 55 // 100])
    assert 8_000 < samples.shape[1] < 9_000
    assert len(problems) == 1
    assert "cut off" in problems[0]


@WAYS
def test_a_file_truncated_in_the_header_of_the_second_recording(way):
    first = wav(after=INFO)
    for cut in (4, 12, 20, 44):
        samples, problems = way(first + wav()[:cut])
        assert samples.shape[1] - 16_000 in range(12)
        assert cut < 12 or "damaged from its start" in problems[0] or "cut off" in problems[0]


def test_an_empty_first_recording_does_not_hide_the_second():
    assert_tone(filed(wav(b"") + wav()), PCM)


def test_the_duration_is_that_of_the_available_samples():
    for recording in (wav(), wav(size=44), wav(size=0xFFFFFFFF), rf64(size=0), w64(size=10), io.BytesIO(aiff(size=0))):
        with open_audio(recording) as reader:
            assert reader.duration_hint == pytest.approx(1.0, abs=0.01)


@WAYS
@pytest.mark.parametrize("size", [0, 44, 0xFFFFFFFF])
def test_samples_that_look_like_a_chunk(size, way):
    """The header of a chunk of maximal length, among samples."""
    data = PCM + b"LIST" + b"\xff" * 4 + b"INFO" + PCM + b"id3 " + b"\xff" * 4 + b"ID3" + b"\x03" + PCM
    assert_tone(way(wav(data, size, size)), data)
