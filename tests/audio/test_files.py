"""Recordings are decoded to their samples: containers, channels, lengths, gaps, truncation."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest

from conure.audio.files import open_audio
from conure.errors import AudioTooLong, UnsupportedAudio
from tests.audio.recordings import encode, film, flac_of_silence, level_of, tone, write

JFK = Path(__file__).parents[2] / "src/conure/data/jfk.flac"


def read(source, seconds=10.0, **options):
    """All samples [channels, n], and the reader after the last block."""
    with open_audio(source, **options) as reader:
        return np.concatenate(list(reader.blocks(seconds)), axis=1), reader


LOSSLESS = [
    ("wav", "pcm_s16le", 16_000, 1),
    ("wav", "pcm_s24le", 44_100, 2),
    ("wav", "pcm_s32le", 48_000, 1),
    ("wav", "pcm_s64le", 16_000, 2),
    ("wav", "pcm_f32le", 192_000, 1),
    ("wav", "pcm_f64le", 8_000, 2),
    ("w64", "pcm_s16le", 48_000, 8),
    ("aiff", "pcm_s16be", 22_050, 2),
    ("caf", "pcm_s16le", 16_000, 1),
    ("au", "pcm_s16be", 16_000, 6),
    ("flac", "flac", 96_000, 2),
    ("ogg", "flac", 16_000, 1),
    ("matroska", "pcm_s16le", 768_000, 1),
]


@pytest.mark.parametrize(("container", "codec", "rate", "channels"), LOSSLESS)
def test_lossless_codecs_return_the_encoded_samples(container, codec, rate, channels):
    samples, reader = read(encode(np.repeat(tone(0.5, rate), channels, 0), rate, container, codec))
    assert (reader.source_rate, reader.source_channels, reader.channels) == (rate, channels, 1)
    assert reader.problems == []
    assert reader.seconds_read == reader.duration_hint == 0.5
    inner = slice(400, -400)  # the filter needs some room at the ends
    np.testing.assert_allclose(samples[:, inner], tone(0.5)[:, inner], atol=1e-4)


LOSSY = [
    ("wav", "pcm_u8", 11_025, 1),
    ("wav", "pcm_mulaw", 8_000, 1),
    ("wav", "pcm_alaw", 8_000, 2),
    ("mp3", "libmp3lame", 44_100, 2),
    ("ogg", "libopus", 48_000, 1),
    ("webm", "libopus", 48_000, 2),
    ("mp4", "aac", 48_000, 8),
    ("wv", "wavpack", 48_000, 16),  # here of 8 bits
    ("ipod", "aac", 44_100, 1),
    ("adts", "aac", 22_050, 2),
    ("mpegts", "mp2", 48_000, 2),
    ("flv", "aac", 44_100, 1),
    ("ac3", "ac3", 48_000, 6),
]


@pytest.mark.parametrize(("container", "codec", "rate", "channels"), LOSSY)
def test_lossy_codecs_return_the_encoded_tone(container, codec, rate, channels):
    samples, reader = read(encode(np.repeat(tone(1.0, rate), channels, 0), rate, container, codec))
    assert (reader.source_rate, reader.source_channels) == (rate, channels)
    assert reader.problems == []
    assert 1.0 <= reader.seconds_read < 1.08  # some encoders fill up their last frame
    assert level_of(samples[0, 4_000:12_000], 440) == pytest.approx(0.25, rel=0.15)


def test_real_speech():
    samples, reader = read(JFK)
    assert samples.shape == (1, 176_000)
    assert samples.dtype == np.float32
    assert math.sqrt(np.square(samples).mean()) == pytest.approx(0.1421, abs=1e-4)
    assert reader.problems == []


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("count", [4_410, 48_001])
def test_length_is_exact(rate, count):
    samples, _ = read(encode(tone(1.0)[:, :1].repeat(count, 1), rate))
    assert samples.shape[1] == round(count * 16_000 / rate)


def test_blocks_have_the_requested_length():
    recording = encode(tone(2.35, 44_100), 44_100)
    with open_audio(recording) as reader:
        blocks = list(reader.blocks(0.5))
    assert [block.shape for block in blocks] == [(1, 8_000)] * 4 + [(1, 5_600)]
    assert all(block.flags.c_contiguous for block in blocks)
    assert np.array_equal(np.concatenate(blocks, axis=1), read(recording)[0])


def test_another_rate_can_be_requested():
    samples, _ = read(encode(tone(1.0, 44_100), 44_100), rate=8_000)
    assert samples.shape == (1, 8_000)


def test_a_millisecond_is_audio():
    for rate in (8_000, 44_100, 48_000):
        assert read(encode(tone(0.001, rate), rate))[0].shape == (1, 16)


# --- channels


def test_mix_is_the_average():
    stereo = np.concatenate([tone(1.0, hertz=440), tone(1.0, hertz=1_000, level=0.5)])
    samples, reader = read(encode(stereo))
    np.testing.assert_allclose(samples[0], stereo.mean(0), atol=1e-4)
    assert reader.problems == []


def test_split_keeps_each_channel():
    stereo = np.concatenate([tone(1.0, 48_000, 440), tone(1.0, 48_000, 1_000)])
    samples, reader = read(encode(stereo, 48_000), channels="split")
    assert reader.channels == 2
    assert [round(float(level_of(one, hertz)), 2) for one in samples for hertz in (440, 1_000)] == [0.25, 0, 0, 0.25]


def test_one_speaker_among_eight_channels_is_kept():
    samples, reader = read(encode(np.concatenate([np.zeros((7, 16_000), np.float32), tone(1.0)]), codec="pcm_f32le"))
    assert level_of(samples[0], 440) == pytest.approx(0.25 / 8, rel=1e-3)
    assert reader.problems == []


def test_opposite_phases_do_not_cancel_each_other():
    samples, reader = read(encode(np.concatenate([tone(1.0), -0.9 * tone(1.0)])))
    assert level_of(samples[0], 440) == pytest.approx(0.25, rel=1e-3)
    assert len(reader.problems) == 1
    assert "cancel each other out" in reader.problems[0]


@pytest.mark.parametrize("channels", ["mix", "split"])
def test_rate_and_channels_may_change_midway(channels):
    mono, stereo = tone(1.0, 44_100), np.repeat(tone(1.0, 16_000, 1_000), 2, 0)
    joined = encode(mono, 44_100, "mpegts", "aac") + encode(stereo, 16_000, "mpegts", "aac")
    samples, reader = read(joined, channels=channels)
    assert samples.shape[0] == 1
    assert samples.shape[1] == pytest.approx(32_000, abs=3_000)
    assert level_of(samples[0, 4_000:12_000], 440) == pytest.approx(0.25, rel=0.1)
    assert level_of(samples[0, -12_000:-4_000], 1_000) == pytest.approx(0.25, rel=0.1)
    assert any("2 channels" in problem for problem in reader.problems) == (channels == "split")


def test_split_fills_a_channel_that_ends_early():
    joined = encode(np.repeat(tone(1.0), 2, 0), container="mpegts", codec="aac") + encode(
        tone(1.0), container="mpegts", codec="aac"
    )
    samples, _ = read(joined, channels="split")
    assert samples[0, -8_000:].any()
    assert not samples[1, -8_000:].any()


# --- films


@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts", "avi"])
def test_the_sound_of_a_film_is_read(container):
    samples, reader = read(film(tone(3.0, 48_000), container=container, rate=48_000))
    assert reader.seconds_read == pytest.approx(3.0, abs=0.1)
    assert level_of(samples[0, 4_000:12_000], 440) == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts"])
def test_a_sound_that_starts_late_keeps_its_times(container):
    samples, reader = read(film(tone(1.0, 48_000), container=container, rate=48_000, start=1.5))
    assert reader.seconds_read == pytest.approx(2.5, abs=0.05)
    assert not samples[0, :22_000].any()
    assert level_of(samples[0, 26_000:36_000], 440) == pytest.approx(0.25, rel=0.1)
    assert reader.problems == []


def test_a_film_without_sound_is_refused():
    with pytest.raises(UnsupportedAudio, match="has no audio stream"):
        read(film())


def test_the_first_of_several_tracks_is_read_and_the_others_are_reported():
    samples, reader = read(film(tone(1.0), tone(1.0, hertz=1_000)))
    assert level_of(samples[0, 4_000:12_000], 440) == pytest.approx(0.25, rel=0.1)
    assert reader.problems == ["holds 2 audio tracks: 1 (aac) is read, and left out: 2 (aac)"]


def test_a_late_video_stream_changes_nothing():
    sound = encode(tone(8.0), container="flv", codec="aac")  # longer than FFmpeg's probe for streams
    picture = b"\x22" + bytes(40)
    tag = b"\x09" + len(picture).to_bytes(3) + bytes(7) + picture + (len(picture) + 11).to_bytes(4)
    assert np.array_equal(read(sound + tag)[0], read(sound)[0])


def test_a_cover_picture_is_ignored():
    picture = b"\x00image/png\x00\x03\x00" + bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
        "0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
    )
    frame = b"APIC" + len(picture).to_bytes(4) + b"\x00\x00" + picture
    tag = b"ID3\x03\x00\x00\x00\x00" + bytes([len(frame) >> 7, len(frame) & 127]) + frame
    plain = encode(tone(1.0, 8_000), 8_000, "mp3", "libmp3lame", write_xing="1", id3v2_version="0")
    samples, reader = read(tag + plain)
    assert np.array_equal(samples, read(plain)[0])
    assert reader.problems == []


def test_a_gap_becomes_silence():
    recording = encode(np.concatenate([tone(1.0, 48_000)] * 4, axis=1), 48_000, "ogg", "libopus")
    pages = [place for place in range(len(recording)) if recording[place : place + 4] == b"OggS"]
    samples, reader = read(recording[: pages[3]] + recording[pages[4] :])
    assert reader.seconds_read == pytest.approx(4.0, abs=0.1)
    assert len(reader.problems) == 2
    assert "a gap in the recording" in reader.problems[0]
    assert f"the page at byte {pages[3]} is damaged or missing" in reader.problems[1]
    assert level_of(samples[0, -12_000:-4_000], 440) == pytest.approx(0.25, rel=0.1)


# --- broken and hostile


def cut(recording, part=0.6):
    return recording[: int(len(recording) * part)]


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("matroska", "flac"), ("ogg", "libopus")],
)
def test_a_truncated_file_is_read_to_its_end_and_the_loss_is_reported(container, codec):
    whole = encode(np.random.default_rng(0).normal(0, 0.1, (1, 144_000)).astype(np.float32), 48_000, container, codec)
    _, reader = read(cut(whole))
    assert 0.9 < reader.seconds_read < 2.2
    assert any("cut off" in problem for problem in reader.problems)


def test_a_truncated_mp4_is_read_if_its_index_comes_first(tmp_path):
    write(str(tmp_path / "talk.mp4"), tone(3.0), container="mp4", codec="aac", movflags="faststart")
    _, reader = read(cut((tmp_path / "talk.mp4").read_bytes()))
    assert 1.0 < reader.seconds_read < 2.5
    assert any("cut off" in problem for problem in reader.problems)


def test_damage_in_the_middle_is_reported_and_the_rest_is_read():
    recording = bytearray(encode(tone(3.0), container="adts", codec="aac"))
    for place in range(len(recording) // 2, len(recording) // 2 + 2_000, 7):
        recording[place] ^= 255
    _, reader = read(bytes(recording))
    assert 1.5 < reader.seconds_read < 3.2
    assert any("damaged packet" in problem for problem in reader.problems)


@pytest.mark.parametrize(
    "content",
    [
        b"RIFF\x24\x00\x00\x00WAVEfmt ",
        b"this is not a recording, whatever its name says\n",
        bytes(100_000),
        np.random.default_rng(0).bytes(100_000),
        cut(encode(tone(1.0), container="mp4", codec="aac"), 0.5),
        encode(tone(1.0)[:, :0]),
        cut(encode(tone(1.0), container="flac", codec="flac"), 0.01),
    ],
    ids=["cut head", "text", "zeros", "noise", "mp4 without index", "no samples", "head alone"],
)
def test_a_file_without_audio_is_an_error_of_one_line(content, tmp_path, capfd):
    path = tmp_path / "talk.wav"
    path.write_bytes(content)
    with pytest.raises(UnsupportedAudio, match=r"talk\.wav: ") as raised:
        read(path)
    assert "\n" not in raised.value.message
    assert raised.value.hint
    assert capfd.readouterr() == ("", "")


def test_the_decoder_prints_nothing_about_damage(capfd):
    read(cut(encode(tone(1.0), container="flac", codec="flac")))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("value", "fault"), [(np.nan, "not finite"), (-np.inf, "not finite"), (1e30, "full scale")])
def test_samples_must_be_finite(value, fault):
    samples = tone(1.0)
    samples[0, 9_999] = value
    for codec in ("pcm_f32le", "pcm_f64le"):
        with pytest.raises(UnsupportedAudio, match=fault):
            read(encode(samples, codec=codec))


def test_a_double_out_of_the_range_of_float32_is_not_finite():
    recording = bytearray(encode(tone(0.1), codec="pcm_f64le"))
    recording[-8:] = np.float64(1e300).tobytes()
    with pytest.raises(UnsupportedAudio, match="not finite"):
        read(bytes(recording))


def test_the_limit_holds_while_decoding():
    bomb = flac_of_silence(hours=40)
    assert len(bomb) < 1_000_000
    with open_audio(bomb, max_seconds=60) as reader:
        blocks = reader.blocks()
        with pytest.raises(AudioTooLong, match="longer than the limit of 60 seconds") as raised:
            list(blocks)
    assert "max_hours" in raised.value.hint
    assert reader.seconds_read <= 60


def test_the_limit_includes_gaps():
    with pytest.raises(AudioTooLong):
        read(film(tone(1.0), start=1.5), max_seconds=2.0)


def test_a_recording_as_long_as_the_limit_is_accepted():
    assert read(encode(tone(2.0, 44_100), 44_100), max_seconds=2.0)[1].seconds_read == 2.0


@pytest.mark.parametrize("rate", [1, 999, 768_001])
def test_absurd_rates_are_refused(rate):
    with pytest.raises(UnsupportedAudio, match=f"has {rate} samples a second"):
        read(encode(tone(1.0)[:, :2_000], rate))


def test_too_many_channels_are_refused():
    assert read(encode(np.zeros((64, 160), np.float32)))[1].source_channels == 64
    many = bytearray(encode(np.zeros((2, 65 * 160), np.float32)))
    fmt = many.index(b"fmt ") + 10
    many[fmt : fmt + 2] = (65).to_bytes(2, "little")
    many[fmt + 10 : fmt + 12] = (130).to_bytes(2, "little")
    with pytest.raises(UnsupportedAudio, match="has 65 channels"):
        read(bytes(many))


def test_a_wav_of_unknown_length_is_not_truncated():
    recording = bytearray(encode(tone(1.0)))
    recording[4:8] = b"\xff" * 4
    data = recording.index(b"data") + 4
    recording[data : data + 4] = b"\xff" * 4
    samples, reader = read(io.BytesIO(recording))
    assert samples.shape == (1, 16_000)
    assert reader.problems == []
