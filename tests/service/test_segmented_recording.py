import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.service.segmented_recording import SegmentedRecording
from conure.types import Word
from conure.vad.segmentation import SegmentationSettings
from tests.vad.planted import RATE, KnowingDetector, KnowingRecogniser, ramp

SPACED = [Word(f"word{i}", 4.0 * i + 1, 4.0 * i + 1.5) for i in range(25)]


def long_audio(words, count, transcribe=None, **options):
    recogniser = transcribe or KnowingRecogniser(words)
    return SegmentedRecording(recogniser, open_detector=lambda: KnowingDetector(words, count), **options)


def blocks(samples, size=160_000):
    """[1, n] each."""
    return [samples[None, first : first + size] for first in range(0, len(samples), size)]


def texts(words):
    return [word.text for _, word in words]


@st.composite
def speech(draw):
    """Words of a small vocabulary, so that many are equal, with pauses of every kind between them."""
    pauses = st.one_of(st.just(0.0), st.floats(0.0, 0.2), st.floats(0.2, 1.5), st.floats(1.5, 9.0))
    pause_of = draw(st.sampled_from([st.just(0.0), st.floats(0.0, 0.1), pauses]))
    words, at = [], draw(pauses)
    for _ in range(draw(st.integers(1, 60))):
        seconds = draw(st.floats(0.2, 0.8))
        words.append(Word(draw(st.sampled_from(["one", "two", "three"])), at, at + seconds))
        at += seconds + draw(pause_of)
    return words, at + draw(pauses)


@settings(max_examples=60, deadline=None)
@given(speech(), st.sampled_from([8.0, 11.3, 30.0]), st.sampled_from([0.0, 0.08]), st.integers(0, 9))
def test_every_word_is_found_once_over_every_kind_of_seam(spoken, limit, jitter, seed):
    words, seconds = spoken
    samples = ramp(seconds + 0.01)
    recogniser = KnowingRecogniser(words, jitter, seed)
    audio = long_audio(words, len(samples), recogniser, segmentation=SegmentationSettings(max_seconds=limit))
    found = [word for _, word in audio.words(blocks(samples))]
    assert [word.text for word in found] == [word.text for word in words]
    for word, planted in zip(found, words, strict=True):
        assert word.start == pytest.approx(planted.start, abs=jitter + 0.001)


def test_clips_come_in_batches_of_like_length_and_bounded_size():
    lengths = []

    def transcribe(clips):
        lengths.append([len(clip) / RATE for clip in clips])
        return [[] for _ in clips]

    settings = SegmentationSettings(max_seconds=10)
    audio = long_audio(SPACED, 100 * RATE, transcribe, batch_seconds=30.0, segmentation=settings)
    assert list(audio.words(blocks(ramp(100)))) == []
    assert sum(map(len, lengths)) == 25
    assert all(max(batch) * len(batch) <= 30 for batch in lengths)
    assert max(map(len, lengths)) > 5


def test_order_holds_over_batches_and_rounds():
    audio = long_audio(
        SPACED, 100 * RATE, batch_seconds=5.0, look_ahead_seconds=9.0, segmentation=SegmentationSettings(max_seconds=7)
    )
    assert texts(audio.words(blocks(ramp(100)))) == [word.text for word in SPACED]


def test_channels_are_apart():
    heard = [SPACED[::2], SPACED[1::2]]
    detectors = iter(KnowingDetector(words, 100 * RATE) for words in heard)
    audio = SegmentedRecording(KnowingRecogniser(SPACED), open_detector=lambda: next(detectors), look_ahead_seconds=20)
    both = [np.concatenate([block, block]) for block in blocks(ramp(100))]
    found = list(audio.words(both))
    assert [[word.text for channel, word in found if channel == side] for side in (0, 1)] == [
        [word.text for word in side] for side in heard
    ]


def test_progress_rises_to_the_end():
    told = []
    audio = long_audio(
        SPACED, 120 * RATE, batch_seconds=5.0, look_ahead_seconds=9.0, segmentation=SegmentationSettings(max_seconds=7)
    )
    for _ in audio.words(blocks(ramp(120)), told.append):
        pass
    assert told == sorted(told)
    assert len(told) > 5
    assert told[-1] == pytest.approx(120)


@pytest.mark.parametrize("samples", [[], blocks(ramp(0.0)), blocks(ramp(65.0))])
def test_silence_has_no_words(samples):
    told = []
    assert list(long_audio([], 65 * RATE).words(samples, told.append)) == []
    assert told == [sum(block.shape[1] for block in samples) / RATE]


def test_errors_of_the_source_and_of_the_recognizer_come_through():
    def broken():
        yield from blocks(ramp(50))
        raise OSError("the disk is gone")

    def fails(clips):
        raise RuntimeError("out of memory")

    with pytest.raises(OSError, match="the disk is gone"):
        list(long_audio(SPACED, 100 * RATE).words(broken()))
    with pytest.raises(RuntimeError, match="out of memory"):
        list(long_audio(SPACED, 100 * RATE, fails).words(blocks(ramp(100))))


def test_it_can_be_left_early():
    audio = long_audio(SPACED, 100 * RATE, look_ahead_seconds=9.0, segmentation=SegmentationSettings(max_seconds=7))
    words = audio.words(blocks(ramp(100)))
    assert next(words)[1].text == "word0"
    words.close()


def test_three_hours_take_no_more_memory_than_ten_minutes():
    """Speech with pauses, never silent for long enough that anything is left out."""
    longest = 0

    class Detector:
        def push(self, samples):
            return np.tile(np.float32([0.95] * 120 + [0.01] * 5), len(samples) // 64_000)

        def finish(self):
            return np.zeros(0, np.float32)

    def transcribe(clips):
        nonlocal longest
        longest = max(longest, sum(clip.nbytes for clip in clips))
        return [[Word("word", 6.0, 6.5)] for _ in clips]

    def recording(hours):
        for _ in range(int(hours * 3600 / 12)):
            yield np.zeros((1, 12 * RATE), np.float32)

    def peak(hours):
        tracemalloc.start()
        try:
            count = sum(1 for _ in SegmentedRecording(transcribe, open_detector=Detector).words(recording(hours)))
            return count, tracemalloc.get_traced_memory()[1] / 1e6
        finally:
            tracemalloc.stop()

    count, megabytes = peak(3)
    assert count > 3 * 3600 / 30
    assert megabytes < 100
    assert longest <= 240 * RATE * 4
