"""Live PCM and G.711: the samples do not depend on the sizes of packets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.audio.files import open_audio
from conure.audio.formats import AudioFormat, to_float
from conure.audio.live_decoder import LiveDecoder
from conure.audio.resample import Resampler
from conure.errors import UnsupportedAudio
from tests.audio.recordings import encode, tone

PLAIN = ["pcm16", "pcm8", "pcm24", "pcm32", "f32", "mulaw", "alaw"]


def live(packets, *form):
    """All samples [n], and the problems."""
    with LiveDecoder(AudioFormat(*form)) as decoder:
        parts = [decoder.push(packet) for packet in packets]
        parts.append(decoder.finish())
        assert all(part.dtype == np.float32 and part.ndim == 1 and part.flags.writeable for part in parts)
        return np.concatenate(parts), decoder.problems


def split_packets(data, sizes):
    """Splits data into packets of these sizes, repeatedly."""
    packets = []
    while data:
        size = sizes[len(packets) % len(sizes)]
        packets, data = [*packets, data[:size]], data[size:]
    return packets


def random_bytes(encoding, count, seed=0):
    """Random bytes of `count` samples."""
    rng = np.random.default_rng(seed)
    if encoding == "f32":
        return rng.normal(0, 1, count).astype("<f4").tobytes()
    return rng.bytes(count * AudioFormat(encoding).frame_bytes)


@given(
    encoding=st.sampled_from(PLAIN),
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    channels=st.sampled_from([1, 2, 3, 8]),
    frames=st.integers(0, 1_500),
    sizes=st.lists(st.integers(0, 700), min_size=1, max_size=8).filter(any),
)
def test_samples_do_not_depend_on_the_sizes_of_packets(encoding, rate, channels, frames, sizes):
    data = random_bytes(encoding, frames * channels, seed=frames)
    form = (encoding, rate, channels)
    samples, problems = live(split_packets(data, sizes), *form)
    whole, _ = live([data], *form)
    assert abs(len(samples) - frames * 16_000 / rate) <= 0.5
    assert samples.shape == whole.shape
    np.testing.assert_allclose(samples, whole, atol=2e-6 * max(1, np.abs(whole).max(initial=0)))
    assert problems == []


@pytest.mark.parametrize("encoding", PLAIN)
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampling_equals_that_of_the_whole_clip(encoding, rate):
    data = random_bytes(encoding, 20_000)
    whole = Resampler(rate, 16_000, 1).push(to_float(data, encoding)[None], last=True)[0]
    np.testing.assert_allclose(live(split_packets(data, [321]), encoding, rate)[0], whole, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "rate", "codec"),
    [
        ("pcm16", 16_000, "pcm_s16le"),
        ("mulaw", 8_000, "pcm_mulaw"),
        ("alaw", 8_000, "pcm_alaw"),
        ("f32", 48_000, "pcm_f32le"),
    ],
)
def test_results_equal_those_of_the_file_reader(form, rate, codec):
    recording = encode(np.concatenate([tone(1.0, rate), tone(1.0, rate, 1_000)]), rate, codec=codec)
    with open_audio(recording) as reader:
        expected = np.concatenate(list(reader.blocks()), axis=1)[0]
    data = recording[recording.index(b"data") + 8 :]
    np.testing.assert_allclose(live(split_packets(data, [333]), form, rate, 2)[0], expected, atol=1e-6)


@given(
    encoding=st.sampled_from(PLAIN),
    rate=st.sampled_from([8_000, 16_000, 44_100]),
    channels=st.sampled_from([1, 2, 3, 8]),
    frames=st.integers(0, 900),
    size=st.integers(50, 700),
)
@settings(deadline=None)
def test_the_mix_is_the_mean_of_split_channels(encoding, rate, channels, frames, size):
    data = random_bytes(encoding, frames * channels, seed=frames)
    form = AudioFormat(encoding, rate, channels)
    with LiveDecoder(form, split=True) as decoder:
        parts = [*map(decoder.push, split_packets(data, [size])), decoder.finish()]
    split, (mix, _) = np.concatenate(parts, axis=1), live([data], encoding, rate, channels)
    assert split.shape == (channels, len(mix))
    scale = max(1, np.abs(split).max(initial=0))
    np.testing.assert_allclose(split.mean(axis=0), mix, atol=1e-5 * scale)


def test_samples_are_returned_with_their_packet():
    decoder = LiveDecoder(AudioFormat("pcm16"))
    assert [len(decoder.push(bytes(size))) for size in (640, 641, 639, 0, 1, 1)] == [320, 320, 320, 0, 0, 1]
    decoder = LiveDecoder(AudioFormat("pcm16", 48_000))
    came = sum(len(decoder.push(bytes(1_920))) for _ in range(50))
    assert 16_000 - came < 800  # the filter's delay


@pytest.mark.parametrize(("encoding", "channels", "over"), [("pcm16", 1, 1), ("f32", 2, 7), ("mulaw", 3, 2)])
def test_an_incomplete_sample_at_the_end_is_reported(encoding, channels, over):
    form = AudioFormat(encoding, 8_000, channels)
    whole = random_bytes(encoding, 100 * channels)
    samples, problems = live([whole, bytes(over)], encoding, 8_000, channels)
    assert len(samples) == 200
    assert len(problems) == 1
    assert f"last {over} bytes are left out" in problems[0]
    assert str(form.frame_bytes) in problems[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_must_be_finite(value, channels):
    samples = np.zeros((1_000, channels), np.float32)
    samples[777, -1] = value
    with pytest.raises(UnsupportedAudio, match=r"sample 777 \(at 0\.097 s\)") as raised:
        live(split_packets(samples.tobytes(), [1_001]), "f32", 8_000, channels)
    assert raised.value.hint


def test_samples_above_full_scale_are_accepted():
    samples = np.array([3.5, -40.0, 0.5], np.float32)
    assert np.array_equal(live([samples.tobytes()], "f32")[0], samples)


def test_calls_after_the_end_are_errors():
    decoder = LiveDecoder(AudioFormat())
    decoder.finish()
    with pytest.raises(ValueError, match="finished or closed"):
        decoder.push(b"12")
    with pytest.raises(ValueError, match="finished or closed"):
        decoder.finish()
    decoder.close()


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("split", [False, True])
def test_a_flush_returns_all_samples_and_more_may_follow(rate: int, split: bool) -> None:
    second = (np.sin(np.arange(rate) * 700 / rate) * 10_000).astype("<i2")
    data = np.repeat(second, 2).tobytes()
    with LiveDecoder(AudioFormat("pcm16", rate, 2), split) as decoder:
        decoded = []
        for _ in range(2):
            parts = [decoder.push(data[: 4 * 777]), decoder.push(data[4 * 777 :]), decoder.flush()]
            decoded.append(np.concatenate(parts, axis=-1))
            assert decoder.flush().size == 0
        assert decoder.finish().size == 0
    assert [abs(part.shape[-1] - 16_000) <= 1 for part in decoded] == [True, True]
    np.testing.assert_array_equal(decoded[0], decoded[1])
