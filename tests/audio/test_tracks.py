"""The default audio track among those with sound is read, or the requested one."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from av.stream import Disposition

from conure.audio import tracks as tracks_module
from conure.audio.files import open_audio
from conure.audio.formats import AudioFormat
from conure.audio.live_decoder import LiveDecoder
from conure.errors import NoSuchTrack
from tests.audio.recordings import encoded, film, level_of, tone
from tests.audio.test_containers import OneWay

RATE = 16_000
NOTHING = np.zeros((1, RATE * 3), np.float32)
LOW, HIGH = tone(3.0), tone(3.0, hertz=1_000)


def mixed(*sounds, default=None, container="matroska", codec="aac", **said):
    """Each sound [1, n] is an audio track; `default`: the number of the track with the default flag."""
    made = io.BytesIO()
    with av.open(
        made, "w", format=container, options={"default_mode": "passthrough"} if container == "matroska" else {}
    ) as output:
        streams = [output.add_stream(codec, rate=RATE, layout="mono") for _ in sounds]
        for number, stream in enumerate(streams, 1):
            stream.disposition = (
                Disposition.default if number == default else Disposition(said.get(f"track{number}", 0))
            )
        packets = [
            packet for stream, sound in zip(streams, sounds, strict=True) for packet in encoded(stream, sound, RATE)
        ]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return made.getvalue()


def read_tone(source, **options):
    """The frequency that was read, 440, 1000 or None, and the problems."""
    with open_audio(source, **options) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)[0]
        loud = [hertz for hertz in (440, 1_000) if level_of(samples[-20_000:-4_000], hertz) > 0.1]
        return (loud or [None])[0], reader.problems


@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts", "avi", "mov", "nut"])
def test_a_silent_first_track_is_not_chosen(container):
    codec = "mp2" if container in ("mpegts", "avi") else "aac"
    found, problems = read_tone(mixed(NOTHING, HIGH, container=container, codec=codec))
    assert found == 1_000
    assert problems == [f"holds 2 audio tracks: 2 ({codec}) is read, and left out: 1 ({codec}), which is silent"] or (
        codec == "mp2" and problems[0].endswith("which is silent")
    )


def test_the_default_is_read():
    assert read_tone(mixed(LOW, HIGH, default=2))[0] == 1_000
    assert read_tone(mixed(LOW, HIGH, default=1))[0] == 440
    assert read_tone(mixed(LOW, HIGH))[0] == 440


def test_a_silent_default_track_is_not_chosen():
    assert read_tone(mixed(LOW, NOTHING, default=2))[0] == 440
    assert read_tone(mixed(NOTHING, LOW, HIGH, default=1))[0] == 440


def test_hum_does_not_count_as_sound():
    hum = (1e-4 * np.random.default_rng(0).normal(size=NOTHING.shape)).astype(np.float32)
    assert read_tone(mixed(hum, HIGH, codec="pcm_s16le"))[0] == 1_000
    assert read_tone(mixed(NOTHING, 0.001 * HIGH, codec="pcm_f32le"))[1][0].startswith("holds 2 audio tracks: 2 ")


def test_an_empty_track_is_not_chosen():
    assert read_tone(mixed(NOTHING[:, :0], HIGH))[0] == 1_000


def test_the_default_is_chosen_if_all_are_silent():
    found, problems = read_tone(mixed(NOTHING, NOTHING, default=2))
    assert found is None
    assert "2 (aac) is read" in problems[0]


def test_a_commentary_is_not_chosen():
    assert read_tone(mixed(LOW, HIGH, track1=Disposition.comment))[0] == 1_000


def test_a_late_track_of_a_file_is_chosen():
    late = np.concatenate([NOTHING] * 5 + [LOW], axis=1)
    other = np.concatenate([HIGH] * 6, axis=1)
    assert read_tone(mixed(late, other))[0] == 440
    assert read_tone(mixed(late, other), channels="split")[0] == 440
    assert read_tone(io.BytesIO(mixed(np.concatenate([NOTHING] * 6, axis=1), other)))[0] == 1_000


def test_a_late_track_of_a_pipe_is_not_chosen():
    late = np.concatenate([NOTHING] * 5 + [LOW], axis=1)
    other = np.concatenate([HIGH] * 6, axis=1)
    with open_audio(OneWay(mixed(late, other))) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)[0]
    assert level_of(samples[:-1_000], 1_000) == pytest.approx(0.25, rel=0.1)


def test_frames_that_were_decoded_for_the_choice_are_not_lost(monkeypatch):
    """Whether they were kept, or the file was reopened."""
    recording = mixed(np.concatenate([NOTHING[:, :RATE], LOW], axis=1), np.concatenate([HIGH, LOW], axis=1))
    with open_audio(recording, track=1) as reader:
        expected = np.concatenate(list(reader.blocks()), axis=1)
    for limit in (10.0, 0.5):
        monkeypatch.setattr(tracks_module, "MAX_HELD_SECONDS", limit)
        with open_audio(recording) as reader:
            assert np.array_equal(np.concatenate(list(reader.blocks()), axis=1), expected)


def test_a_track_can_be_requested():
    recording = mixed(LOW, HIGH, default=2)
    assert read_tone(recording, track=1) == (440, [])
    assert read_tone(recording, track=2) == (1_000, [])


def test_the_error_for_a_missing_track_lists_the_tracks():
    with pytest.raises(NoSuchTrack, match="has no audio track 3") as raised:
        read_tone(mixed(LOW, HIGH), track=3)
    assert raised.value.hint == "choose one of its tracks: 1 (aac); 2 (aac)"
    with pytest.raises(NoSuchTrack):
        read_tone(film(LOW), track=2)
    assert read_tone(film(LOW), track=1)[0] == 440


def test_the_track_with_sound_is_chosen_in_live_audio():
    recording = mixed(NOTHING, HIGH, default=1)
    with LiveDecoder(AudioFormat("container")) as decoder:
        parts = [decoder.push(recording[at : at + 999]) for at in range(0, len(recording), 999)]
        samples = np.concatenate([*parts, decoder.finish()])
        assert len(samples) == pytest.approx(3 * RATE, abs=3_000)
        assert level_of(samples[2_000:-4_000], 1_000) == pytest.approx(0.25, rel=0.1)
        assert decoder.problems == ["holds 2 audio tracks: 2 (aac) is read, and left out: 1 (aac), which is silent"]
