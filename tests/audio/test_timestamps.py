"""Time stamps are used for containers that have them; the inserted silence is limited by the decoded audio."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.audio.formats import AudioFormat
from conure.audio.live_decoder import LiveDecoder
from conure.audio.timestamps import BASE_SILENCE, SILENCE_PER_SECOND
from tests.audio.recordings import encode, encoded, level_of, tone

RATE = 48_000


def leaping(leaps, container="webm", codec="libopus"):
    """Seconds of a tone; before each but the first one the time stamps leap ahead by so many seconds."""
    made = io.BytesIO()
    with av.open(made, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE, layout="mono")
        ahead, second = 0.0, -1
        for packet in encoded(stream, tone(1.0 + len(leaps), RATE), RATE):
            at = int(max(0, packet.pts) * packet.time_base)
            while second < min(at, len(leaps)):
                second += 1
                ahead += leaps[second - 1] if second else 0.0
            packet.pts = packet.dts = packet.pts + round(ahead / packet.time_base)
            output.mux(packet)
    return made.getvalue()


def filed(recording):
    with open_audio(recording) as reader:
        return sum(block.shape[1] for block in reader.blocks()) / reader.rate, reader.problems


def live(recording):
    with LiveDecoder(AudioFormat("container")) as decoder:
        seconds = sum(len(decoder.push(recording[at : at + 999])) for at in range(0, len(recording), 999))
        return (seconds + len(decoder.finish())) / 16_000, decoder.problems


WAYS = pytest.mark.parametrize("way", [filed, live])


@WAYS
@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("matroska", "aac"), ("nut", "pcm_s16le")])
def test_a_gap_becomes_silence_and_is_reported(way, container, codec):
    seconds, problems = way(leaping([0, 5.0, 0], container, codec))
    assert seconds == pytest.approx(9.0, abs=0.1)
    assert len(problems) == 1
    assert "5.0 s of silence put there" in problems[0]


@WAYS
@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("matroska", "aac"), ("nut", "pcm_s16le")])
@pytest.mark.parametrize("leap", [3_599.0, 3_601.0, 200_000.0])
def test_a_few_bytes_do_not_become_hours(way, container, codec, leap):
    seconds, problems = way(leaping([leap] * 4, container, codec))
    assert seconds == pytest.approx(5.0, abs=0.1)
    assert len(problems) == 1
    assert "leaps ahead by" in problems[0]
    assert "and 3 times more" in problems[0]


def test_many_small_gaps_are_bounded_together():
    leaps = [200.0] * 8
    seconds, problems = filed(leaping(leaps))
    assert seconds <= BASE_SILENCE + (1 + SILENCE_PER_SECOND) * (1 + len(leaps))
    assert any("not followed" in problem for problem in problems)


def test_audio_keeps_its_time_after_an_ignored_leap():
    with open_audio(leaping([100_000.0])) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)[0]
    assert level_of(samples[2_000:30_000], 440) == pytest.approx(0.25, rel=0.1)


@WAYS
@pytest.mark.parametrize(("first", "second"), [(44_100, 48_000), (48_000, 44_100), (16_000, 48_000), (48_000, 16_000)])
@pytest.mark.parametrize(
    ("container", "codec"), [("adts", "aac"), ("mp3", "libmp3lame"), ("ac3", "ac3"), ("latm", "aac")]
)
def test_a_rate_that_changes_in_mid_stream_makes_no_gap(way, container, codec, first, second):
    if codec == "ac3" and 16_000 in (first, second):
        pytest.skip("AC-3 has no such rate")
    options = {"id3v2_version": "0", "write_xing": "0"} if container == "mp3" else {}
    parts = [
        encode(tone(1.5, rate, hertz), rate, container, codec, **options)
        for rate, hertz in ((first, 440), (second, 1_000), (first, 440))
    ]
    seconds, problems = way(b"".join(parts))
    assert 4.5 <= seconds < 4.95
    assert not any("gap" in problem or "leap" in problem for problem in problems)


def test_channels_that_change_in_mid_stream_make_no_gap():
    stereo = np.repeat(tone(1.5, RATE), 2, axis=0)
    recording = encode(tone(1.5, RATE), RATE, "adts", "aac") + encode(stereo, RATE, "adts", "aac")
    seconds, problems = filed(recording)
    assert 3.0 <= seconds < 3.2
    assert problems == []
