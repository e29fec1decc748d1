"""Truncated files are reported if their container announces a length; for complete ones nothing is reported."""

from __future__ import annotations

import io
import struct
from functools import cache

import av
import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.errors import UnsupportedAudio
from tests.audio.recordings import encode, encoded, film, tone

FRAGMENTED = {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"}
ANNOUNCING = {
    "wav": ("wav", "pcm_s16le", 16_000, {}),
    "wav of adpcm": ("wav", "adpcm_ms", 16_000, {}),
    "wav of mp3": ("wav", "libmp3lame", 16_000, {}),
    "rf64": ("wav", "pcm_s16le", 16_000, {"rf64": "always"}),
    "w64": ("w64", "pcm_s16le", 16_000, {}),
    "aiff": ("aiff", "pcm_s16be", 16_000, {}),
    "aiff-c": ("aiff", "pcm_mulaw", 8_000, {}),
    "caf": ("caf", "pcm_s16le", 16_000, {}),
    "caf of alac": ("caf", "alac", 16_000, {}),
    "au": ("au", "pcm_s16be", 16_000, {}),
    "flac": ("flac", "flac", 16_000, {}),
    "ogg opus": ("ogg", "libopus", 48_000, {}),
    "ogg flac": ("ogg", "flac", 16_000, {}),
    "mp3": ("mp3", "libmp3lame", 16_000, {}),
    "m4a": ("ipod", "aac", 16_000, {}),
    "mp4 of alac": ("mp4", "alac", 16_000, {}),
    "fragmented mp4": ("mp4", "aac", 16_000, FRAGMENTED),
    "mov": ("mov", "pcm_s16le", 16_000, {}),
    "3gp": ("3gp", "aac", 16_000, {}),
    "mka": ("matroska", "pcm_s16le", 16_000, {}),
    "mka of opus": ("matroska", "libopus", 48_000, {}),
    "webm": ("webm", "libopus", 48_000, {}),
    "avi": ("avi", "pcm_s16le", 16_000, {}),
    "asf": ("asf", "libmp3lame", 44_100, {}),
    "flv": ("flv", "aac", 16_000, {}),
    "tta": ("tta", "tta", 16_000, {}),
    "wavpack": ("wv", "wavpack", 16_000, {}),
    "voc": ("voc", "pcm_s16le", 16_000, {}),
    "sox": ("sox", "pcm_s32le", 16_000, {}),
    "rm": ("rm", "ac3", 48_000, {}),
}
SILENT = {
    "adts": ("adts", "aac", 16_000, {}),
    "latm": ("latm", "aac", 16_000, {}),
    "ac3": ("ac3", "ac3", 48_000, {}),
    "mp2": ("mp2", "mp2", 16_000, {}),
    "mp3 of frames alone": ("mp3", "libmp3lame", 16_000, {"id3v2_version": "0", "write_xing": "0"}),
    "webm of a browser": ("webm", "libopus", 48_000, {"live": "1"}),
    "mpeg-ts": ("mpegts", "aac", 16_000, {}),
    "mpeg": ("mpeg", "mp2", 16_000, {}),
    "nut": ("nut", "pcm_s16le", 16_000, {}),
    "swf": ("swf", "libmp3lame", 44_100, {}),
    "amr": ("amr", "libopencore_amrnb", 8_000, {}),
}
"""They announce no length."""
SECONDS = 3.0


@cache
def recording_of(kind):
    container, codec, rate, options = (ANNOUNCING | SILENT)[kind]
    noise = np.random.default_rng(0).normal(0, 0.1, (1, round(SECONDS * rate))).astype(np.float32)
    return encode(noise, rate, container, codec, **options)


def read_problems(recording):
    """Seconds that were read, and the problems."""
    try:
        with open_audio(recording) as reader:
            seconds = sum(block.shape[1] for block in reader.blocks()) / reader.rate
            return seconds, reader.problems
    except UnsupportedAudio as error:
        return 0.0, [error.message]


@pytest.mark.parametrize("kind", ANNOUNCING | SILENT)
def test_complete_files_have_no_problems(kind):
    seconds, problems = read_problems(recording_of(kind))
    assert problems == []
    assert SECONDS <= seconds < SECONDS + 0.13


@pytest.mark.parametrize("part", [0.3, 0.55, 0.9])
@pytest.mark.parametrize("kind", ANNOUNCING)
def test_truncated_files_are_reported(kind, part):
    recording = recording_of(kind)
    _, problems = read_problems(recording[: round(len(recording) * part)])
    assert any("cut off" in problem for problem in problems), problems


@pytest.mark.parametrize("kind", SILENT)
def test_other_truncated_files_are_read(kind):
    recording = recording_of(kind)
    seconds, problems = read_problems(recording[: round(len(recording) * 0.55)])
    assert 0.5 * SECONDS < seconds < 0.6 * SECONDS
    assert not any("cut off" in problem for problem in problems)


@pytest.mark.parametrize("kind", ANNOUNCING | SILENT)
def test_files_truncated_in_their_header_are_refused_or_reported(kind):
    recording = recording_of(kind)
    for size in (*range(1, 64, 3), 90, 200, 500):
        seconds, problems = read_problems(recording[:size])
        assert seconds < 1
        assert seconds or problems


def test_a_truncated_film():
    for container in ("matroska", "mp4", "avi"):
        recording = film(tone(3.0), container=container)
        assert read_problems(recording)[1] == []
        assert "cut off" in read_problems(recording[: len(recording) * 55 // 100])[1][0]


def remuxed(recording, container, start, **options):
    """The packets from `start` seconds on, with their original time stamps."""
    to = io.BytesIO()
    with av.open(io.BytesIO(recording)) as source, av.open(to, "w", format=container, options=options) as target:
        [stream] = source.streams.audio
        copied = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None and packet.pts * packet.time_base >= start:
                packet.stream = copied
                target.mux(packet)
    return to.getvalue()


@pytest.mark.parametrize("container", ["matroska", "webm", "mp4", "ogg", "nut", "mpegts"])
def test_a_recording_with_a_late_start_is_complete(container):
    """A track that was taken out of a longer film by copying keeps its times."""
    recording = remuxed(encode(tone(6.0, 48_000), 48_000, "ogg", "libopus"), container, 4.0)
    seconds, problems = read_problems(recording)
    assert problems == []
    assert 1.9 < seconds < 6.1


@pytest.mark.parametrize("container", ["mp4", "ipod", "mov"])
def test_a_recording_with_an_edit_list_is_complete(container):
    recording = io.BytesIO()
    with av.open(recording, "w", format=container) as output:
        stream = output.add_stream("aac", rate=16_000, layout="mono")
        for packet in encoded(stream, tone(3.0), 16_000):
            packet.pts, packet.dts = packet.pts - 24_000, packet.dts - 24_000  # the first 1.5 s come before its start
            output.mux(packet)
    assert read_problems(recording.getvalue())[1] == []


def test_the_error_for_an_mp4_without_index():
    _, [problem] = read_problems(recording_of("m4a")[:20_000])
    assert "cut off: " in problem


def test_a_wav_with_a_truncated_last_chunk_is_reported():
    whole = recording_of("wav") + b"LIST" + struct.pack("<I", 400) + b"INFO" + bytes(396)
    assert read_problems(whole)[1] == []
    seconds, problems = read_problems(whole[:-100])
    assert seconds == SECONDS
    assert problems == ["cut off in the chunk 'LIST' after the samples"]


def test_junk_after_an_mp4_is_not_a_truncation():
    recording = recording_of("m4a")
    for junk in (bytes(100), b"\xff\xfe\x01\x02" * 9, b"\n"):
        assert read_problems(recording + junk)[1] in ([], [f"cut off in the header of a box, at byte {len(recording)}"])
    assert read_problems(recording + bytes(100))[1] == []


@pytest.mark.parametrize("kind", ["ogg opus", "ogg flac"])
def test_a_damaged_last_page_is_reported(kind):
    recording = bytearray(recording_of(kind))
    recording[recording.rfind(b"OggS") + 40] ^= 1
    last = recording.rfind(b"OggS")
    _, problems = read_problems(bytes(recording))
    assert f"the page at byte {last} is damaged or missing, and left out" in problems


@pytest.mark.parametrize("kind", ["ogg opus", "ogg flac"])
def test_a_damaged_first_page_is_reported(kind):
    recording = bytearray(recording_of(kind))
    pages = [at for at in range(len(recording)) if recording.startswith(b"OggS", at)]
    recording[pages[2] + 400] ^= 1
    _, problems = read_problems(bytes(recording))
    assert f"the page at byte {pages[2]} is damaged or missing, and left out" in problems


def test_an_absurd_rate_is_refused():
    recording = bytearray(recording_of("aiff"))
    at = recording.index(b"COMM") + 16
    for rate in (b"\x7f\xff" + b"\xff" * 8, b"\xff" * 10, bytes(10), b"\x40\x7f" + b"\xff" * 8):
        recording[at : at + 10] = rate
        assert read_problems(bytes(recording))[0] == 0.0


@pytest.mark.parametrize("size", [0, 9, 1_000, 4_500, 20_000, 1 << 31])
@pytest.mark.parametrize("number", [0, 2])
def test_a_fragment_of_mp4_with_a_wrong_length_is_read_and_reported(number, size):
    recording = bytearray(recording_of("fragmented mp4"))
    at = [at for at in range(len(recording)) if recording.startswith(b"mdat", at)][number] - 4
    recording[at : at + 4] = size.to_bytes(4)
    seconds, problems = read_problems(bytes(recording))
    assert seconds >= SECONDS
    assert f"the box at byte {at} has a wrong length" in problems[0]


def test_a_damaged_fragment_header_of_mp4_is_reported():
    recording = bytearray(recording_of("fragmented mp4"))
    at = [at for at in range(len(recording)) if recording.startswith(b"moof", at)][2]
    for begin, end in ((at - 4, at), (at, at + 4), (at + 20, at + 80)):
        damaged = recording[:begin] + b"\xff" * (end - begin) + recording[end:]
        seconds, problems = read_problems(bytes(damaged))
        assert seconds > 2.0
        assert problems


def test_an_mp4_truncated_in_a_fragment_header_is_read_up_to_it():
    recording = recording_of("fragmented mp4")
    at = [at for at in range(len(recording)) if recording.startswith(b"moof", at)][3]
    for size in (at + 2, at + 10, at + 50):
        seconds, problems = read_problems(recording[:size])
        assert 1.4 < seconds < 2.0
        assert "cut off" in problems[-1]
