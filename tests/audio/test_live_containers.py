"""Containers that are decoded while they arrive: the results of the file reader, early, in bounded memory, without
leaking threads."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.audio import byte_pipe
from conure.audio import live_decoder as live_module
from conure.audio.files import open_audio
from conure.audio.formats import AudioFormat
from conure.audio.live_decoder import LiveDecoder
from conure.errors import UnsupportedAudio
from tests.audio.recordings import encode, film, flac_of_silence, tone
from tests.audio.test_containers import POINTING, OneWay
from tests.audio.test_live_decoder import split_packets
from tests.waiting import wait_for

JFK = Path(__file__).parents[2] / "src/conure/data/jfk.flac"
FRAGMENTED = {"movflags": "empty_moov+default_base_moof", "frag_duration": "200000"}
SPOKEN = {
    "ogg opus": ("ogg", "libopus", {"page_duration": "20000"}),
    "webm opus": ("webm", "libopus", {}),
    "webm of a browser": ("webm", "libopus", {"live": "1"}),
    "wav": ("wav", "pcm_s16le", {}),
    "wav of floats": ("wav", "pcm_f32le", {}),
    "mp3": ("mp3", "libmp3lame", {"id3v2_version": "0"}),
    "mp3 with a tag": ("mp3", "libmp3lame", {}),
    "mp3 of frames alone": ("mp3", "libmp3lame", {"id3v2_version": "0", "write_xing": "0"}),
    "flac": ("flac", "flac", {}),
    "ogg flac": ("ogg", "flac", {}),
    "adts": ("adts", "aac", {}),
    "fragmented mp4": ("mp4", "aac", FRAGMENTED),
    "mpeg-ts": ("mpegts", "aac", {}),
    "aiff": ("aiff", "pcm_s16be", {}),
}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A push waits for all its samples, even on a busy machine."""
    monkeypatch.setattr(live_module, "PATIENCE", 60.0)


def decoder():
    return LiveDecoder(AudioFormat("container"))


def live(packets):
    """All samples [n], and the problems."""
    with decoder() as one:
        parts = [*push(one, packets), one.finish()]
        return np.concatenate(parts), one.problems


def push(one, packets):
    return [one.push(packet) for packet in packets]


def filed(source):
    with open_audio(source) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)[0], reader.problems


def speech(seconds, rate=48_000):
    """Speech of JFK, [2, n], the second channel quieter."""
    with open_audio(JFK, rate=rate) as reader:
        samples = next(reader.blocks(seconds))
    return np.concatenate([samples, 0.5 * samples])


def spoken(kind, seconds=2.0):
    container, codec, options = SPOKEN[kind]
    return encode(speech(seconds), 48_000, container, codec, **options)


@pytest.mark.parametrize("kind", SPOKEN)
def test_results_equal_those_of_the_file_reader(kind):
    recording = spoken(kind)
    expected, _ = filed(
        OneWay(recording) if kind.startswith("mp3") else recording
    )  # the end of an MP3 is not trimmed in a pipe
    for sizes in ([997], [4_096, 10], [len(recording)]):
        samples, problems = live(split_packets(recording, sizes))
        assert samples.shape == expected.shape
        np.testing.assert_allclose(samples, expected, atol=1e-6)
        assert problems == []


SHORT = {kind: spoken(kind, 0.3) for kind in ("ogg opus", "webm opus", "flac")}


@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(list(SHORT)), sizes=st.lists(st.integers(0, 600), min_size=1, max_size=6).filter(any))
def test_samples_do_not_depend_on_the_sizes_of_packets(kind, sizes):
    assert np.array_equal(live(split_packets(SHORT[kind], sizes))[0], live([SHORT[kind]])[0])


@pytest.mark.parametrize("kind", ["ogg opus", "webm opus", "webm of a browser", "fragmented mp4", "adts", "mp3"])
@pytest.mark.parametrize("milliseconds", [20, 100])
def test_samples_are_returned_while_the_stream_is_open(kind, milliseconds):
    seconds = 5.0
    recording = spoken(kind, seconds)
    packets = split_packets(recording, [len(recording) * milliseconds // round(1000 * seconds)])
    with decoder() as one:
        came = pushed = 0
        for packet in packets:
            came += len(one.push(packet))
            pushed += len(packet)
            assert came / 16_000 > seconds * pushed / len(recording) - 1.0


def test_all_decodable_samples_are_returned_by_their_push():
    with decoder() as one:
        came = len(one.push(spoken("webm opus", 3.0)))
    assert came > 2.8 * 16_000


def test_many_decoders_at_once():
    recordings = [encode(tone(0.5, 48_000, hertz), 48_000, "ogg", "libopus") for hertz in (300, 500, 700, 900)]
    decoders = [decoder() for _ in recordings]
    samples = [[] for _ in recordings]
    for start in range(0, max(map(len, recordings)), 500):
        for one, recording, parts in zip(decoders, recordings, samples, strict=True):
            parts.append(one.push(recording[start : start + 500]))
    for one, recording, parts in zip(decoders, recordings, samples, strict=True):
        parts.append(one.finish())
        np.testing.assert_allclose(np.concatenate(parts), filed(recording)[0], atol=1e-6)


def test_an_empty_stream_has_no_samples():
    samples, problems = live([b"", b""])
    assert len(samples) == 0
    assert problems == []


# --- what goes wrong


def wav(channels=1, rate=16_000):
    """A WAV of one second with this header."""
    recording = bytearray(encode(tone(1.0)))
    fmt = recording.index(b"fmt ") + 8
    recording[fmt + 2 : fmt + 16] = b"".join(
        number.to_bytes(size, "little")
        for number, size in [(channels, 2), (rate, 4), (rate * channels * 2 % 2**32, 4), (channels * 2, 2), (16, 2)]
    )
    return bytes(recording)


def opus_of_channels(count):
    recording = bytearray(SHORT["ogg opus"])
    recording[recording.index(b"OpusHead") + 9] = count
    return bytes(recording)


WRONG = {
    "text": b"this is not a recording, whatever its name says\n" * 50,
    "noise": np.random.default_rng(0).bytes(30_000),
    "cut head": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "head alone": SHORT["ogg opus"][:60],
    "film without sound": film(),
    "0 Hz": wav(rate=0),
    "1 Hz": wav(rate=1),
    "2 GHz": wav(rate=2**31 - 1),
    "no channel": wav(channels=0),
    "255 channels": wav(channels=255),
    "Opus of no channel": opus_of_channels(0),
    "Opus of 255 channels": opus_of_channels(255),
    "NaN": encode(np.full((1, 1_600), np.nan, np.float32), codec="pcm_f32le"),
}


@pytest.mark.parametrize("recording", WRONG.values(), ids=WRONG)
def test_errors_equal_those_of_the_file_reader(recording, capfd):
    with pytest.raises(UnsupportedAudio) as expected:
        filed(recording)
    with pytest.raises(UnsupportedAudio) as raised:
        live(split_packets(recording, [1_000]))
    message = re.sub(r" \((cut off|the page).*\)$", "", expected.value.message)  # the length of live audio is not known
    assert (raised.value.message, raised.value.hint) == (message, expected.value.hint)
    assert capfd.readouterr() == ("", "")


def test_errors_are_raised_before_the_end():
    with decoder() as one, pytest.raises(UnsupportedAudio, match="not audio"):
        push(one, split_packets(np.random.default_rng(0).bytes(1 << 18), [4_000]))


def test_the_first_of_two_tracks_is_read_and_the_other_is_reported():
    recording = film(tone(2.0), tone(2.0, hertz=1_000))
    samples, problems = live(split_packets(recording, [1_000]))
    expected, told = filed(recording)
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    assert problems == told == ["holds 2 audio tracks: 1 (aac) is read, and left out: 2 (aac)"]


def test_damage_in_the_middle_is_reported():
    recording = bytearray(spoken("adts", 3.0))
    for place in range(len(recording) // 2, len(recording) // 2 + 2_000, 7):
        recording[place] ^= 255
    samples, problems = live(split_packets(bytes(recording), [1_000]))
    expected, told = filed(bytes(recording))
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    assert any("damaged packet" in problem for problem in problems)
    assert problems == told


@pytest.mark.parametrize("name", POINTING)
def test_files_that_reference_others_are_refused(name, tmp_path):
    talk = tmp_path / "talk.wav"
    talk.write_bytes(encode(tone(1.0)))
    with pytest.raises(UnsupportedAudio):
        live([POINTING[name].format(talk=talk).encode()])


def test_the_hint_for_an_mp4_with_its_index_last():
    with pytest.raises(UnsupportedAudio, match="index at its end") as raised:
        live(split_packets(encode(speech(10.0), 48_000, "mp4", "aac"), [4_000]))
    assert "fragmented MP4" in raised.value.hint


def test_bytes_after_the_end_are_reported():
    recording = encode(tone(1.0), container="tta", codec="tta")
    samples, [problem] = live([recording, *[bytes(40_000)] * 4])
    assert len(samples) == 16_000
    assert 100_000 < int(problem.removesuffix(" bytes or more after its end are left out")) <= 160_000


# --- bounds


def test_hours_of_audio_from_a_few_bytes_are_refused():
    with pytest.raises(UnsupportedAudio, match="more than 900 s of audio"):
        live([flac_of_silence(hours=40)])


def test_the_decoder_waits_until_samples_are_taken(monkeypatch):
    monkeypatch.setattr(live_module, "PATIENCE", 0.0)
    with decoder() as one:
        came = len(one.push(flac_of_silence(hours=1)))
        assert came <= byte_pipe.MAX_WAITING_SAMPLES + 65_536


def test_bytes_without_samples_are_refused_at_a_limit(monkeypatch):
    monkeypatch.setattr(byte_pipe, "MAX_BYTES_WITHOUT_SAMPLES", 1 << 20)
    recording = SHORT["webm opus"]
    clusters = recording.index(bytes.fromhex("1f43b675"))
    void = b"\xec\x01" + (10**12).to_bytes(7)
    with decoder() as one, pytest.raises(UnsupportedAudio, match="no sample in the first 1 MiB"):
        push(one, [recording[:clusters] + void, *[bytes(1 << 16)] * 20])


def test_a_decoder_that_hangs_is_abandoned(monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(live_module, "open_pipe", lambda pipe: hangs.wait(60))
    monkeypatch.setattr(live_module, "DECODE_TIMEOUT", 0.01)
    monkeypatch.setattr(live_module, "JOIN_TIMEOUT", 0.01)
    with decoder() as one:
        monkeypatch.setattr(live_module, "PATIENCE", 0.01)
        assert len(one.push(bytes(1_000))) == 0
        with pytest.raises(UnsupportedAudio, match=r"not decoded after 0\.01 s, 1000 bytes are unread"):
            one.finish()
    hangs.set()


# --- threads


def native_threads():
    return len(os.listdir("/proc/self/task"))


def assert_threads(python, native):
    """Waits, because the kernel may list a thread for a moment after its end."""
    assert threading.active_count() == python
    wait_for(lambda: native_threads() <= native)
    assert native_threads() == native


def threads():
    """Number of threads of Python, and of all threads including FFmpeg's."""
    return threading.active_count(), native_threads()


@pytest.mark.parametrize("given", [0, 1, 40, 3_000, None], ids=["nothing", "a byte", "half a head", "some", "all"])
def test_close_ends_the_thread_in_any_state(given):
    recording = spoken("ogg opus")
    before = threads()
    one = decoder()
    one.push(recording[:given])
    one.close()
    one.close()
    assert_threads(*before)
    with pytest.raises(ValueError, match="closed"):
        one.push(b"more")


def test_close_while_the_decoder_waits(monkeypatch):
    monkeypatch.setattr(live_module, "PATIENCE", 0.0)
    before = threads()
    one = decoder()
    one.push(flac_of_silence(hours=1))
    one.close()
    assert_threads(*before)


def test_two_hundred_decoders_leave_no_thread(capfd):
    before = threads()
    for count in range(200):
        one = decoder()
        one.push(SHORT["webm opus"][: 10 * count])
        if count % 2:
            one.close()
        else:
            with suppress(UnsupportedAudio):  # the first ones end within their headers
                one.finish()
    assert_threads(*before)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("requested", [1, 2, 3])
def test_channels_are_kept_separate(requested):
    """The recording has two channels; surplus ones are dropped, missing ones are silent."""
    sound = np.concatenate([tone(1.0, 48_000), tone(1.0, 48_000, 1_000)])
    recording = encode(sound, 48_000, "flac", "flac")
    with open_audio(recording, channels="split") as reader:
        expected = np.concatenate(list(reader.blocks()), axis=1)
    with LiveDecoder(AudioFormat("container", channels=requested), split=True) as one:
        split = np.concatenate([*push(one, split_packets(recording, [1_000])), one.finish()], axis=1)
        assert split.shape == (requested, expected.shape[1])
        np.testing.assert_array_equal(split[:2], expected[:requested])
        assert not split[2:].any()
        assert bool(one.problems) == (requested != 2)
    if requested == 2:
        np.testing.assert_allclose(split.mean(axis=0), live(split_packets(recording, [1_000]))[0], atol=1e-6)
