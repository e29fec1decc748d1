import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.constants import SAMPLE_RATE
from conure.errors import BadOption
from conure.vad.segmentation import STEP, SegmentationSettings, Segmenter
from tests.vad.planted import probabilities, ramp


def segment(samples, heard, block=160_000, **options):
    """Pushes blocks of the given size, with the probabilities of the steps that each one completes."""
    cutter = Segmenter(SegmentationSettings(**options))
    pieces, told = [], 0
    for first in range(0, len(samples), block):
        part = samples[first : first + block]
        until = (first + len(part)) // STEP
        pieces += cutter.push(part, heard[told:until])
        told = until
    return pieces + cutter.push(samples[:0], heard[told:]) + cutter.finish()


def stretches(*parts):
    """Consecutive (seconds, probability) -> samples, probabilities."""
    heard = np.concatenate([np.full(round(seconds * SAMPLE_RATE / STEP), p, np.float32) for seconds, p in parts])
    return np.arange(len(heard) * STEP, dtype=np.float32), heard


def spans(pieces):
    return [(round(piece.start, 1), round(piece.end, 1), piece.left_seam, piece.right_seam) for piece in pieces]


def test_a_recording_that_fits_into_a_clip_is_not_changed():
    samples = ramp(30.0)
    heard = probabilities([], len(samples))
    heard[700] = 0.9
    (piece,) = segment(samples, heard)
    assert (piece.start, piece.left_seam, piece.right_seam, piece.overlap) == (0.0, "edge", "edge", 0.0)
    np.testing.assert_array_equal(piece.samples, samples)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.3, 29.0, 31.0, 200.0])
def test_non_speech_has_no_clips(seconds):
    samples = ramp(seconds)
    assert segment(samples, np.full(-(-len(samples) // STEP), 0.04, np.float32)) == []


def test_doubtful_sound_without_speech_has_no_clips():
    assert segment(*stretches((1, 0.05), (300, 0.15))) == []


def test_a_short_word_in_a_silent_minute_is_kept():
    (piece,) = segment(*stretches((40, 0.01), (0.3, 0.6), (40, 0.01)))
    assert piece.start == pytest.approx(39.5, abs=0.05)
    assert piece.end == pytest.approx(40.8, abs=0.05)
    assert piece.samples[0] == piece.start * SAMPLE_RATE


def test_the_first_steps_and_short_recordings_have_lower_thresholds():
    """The detector is less sensitive there."""
    assert segment(*stretches((0.3, 0.07)))
    assert not segment(*stretches((4, 0.07)))
    assert segment(*stretches((0.3, 0.12), (60, 0.01)))
    assert not segment(*stretches((20, 0.01), (0.3, 0.12), (20, 0.01)))


def test_long_silence_is_left_out_except_for_padding():
    assert spans(segment(*stretches((10, 0.9), (5, 0.01), (10, 0.9), (20, 0.01)))) == [
        (0.0, 10.5, "edge", "silence"),
        (14.5, 25.5, "silence", "silence"),
    ]


def test_short_silence_is_kept():
    (piece,) = segment(
        *stretches((1.5, 0.01), (10, 0.9), (1.9, 0.01), (10, 0.9), (1.5, 0.01), (10, 0.01)), max_seconds=40
    )
    assert (piece.start, piece.left_seam) == (0.0, "edge")
    assert piece.end > 23.4


def test_the_split_is_in_the_longest_silence_of_the_second_half():
    parts = (10, 0.9), (1.5, 0.0), (8, 0.9), (0.4, 0.0), (2, 0.9), (0.7, 0.0), (2, 0.9), (0.4, 0.0), (25, 0.9)
    first, second, *_ = segment(*stretches(*parts))
    assert first.right_seam == second.left_seam == "silence"
    assert first.end == second.start == pytest.approx(22.25, abs=0.05)


def test_without_silence_clips_overlap_at_the_least_speech_like_position():
    first, second = segment(*stretches((20, 0.9), (0.1, 0.5), (25, 0.9)))
    assert first.right_seam == second.left_seam == "forced"
    assert second.overlap == pytest.approx(2.0, abs=0.04)
    assert second.start == pytest.approx(first.end - second.overlap)
    assert (second.start + first.end) / 2 == pytest.approx(20.05, abs=0.05)
    np.testing.assert_array_equal(first.samples[-round(second.overlap * SAMPLE_RATE) :][:100], second.samples[:100])


def test_among_equal_probabilities_the_quietest_position_is_split():
    samples, heard = stretches((45, 0.99))
    samples = np.sin(samples).astype(np.float32)
    samples[int(24.0 * SAMPLE_RATE) : int(24.1 * SAMPLE_RATE)] *= 0.01
    first, second = segment(samples, heard)
    assert (second.start + first.end) / 2 == pytest.approx(24.05, abs=0.05)


def test_doubtful_sound_before_speech_is_kept():
    pieces = segment(*stretches((1, 0.05), (100, 0.15), (5, 0.9), (30, 0.01)))
    assert pieces[0].start < 90
    assert pieces[-1].end == pytest.approx(106.5, abs=0.1)


def test_doubtful_sound_long_after_speech_is_left_out():
    pieces = segment(*stretches((5, 0.9), (600, 0.15)))
    assert pieces[0].start == 0
    assert sum(piece.seconds for piece in pieces) < 60


@pytest.mark.parametrize("seconds", [1.0, math.nan, math.inf, -3.0])
def test_a_limit_that_is_too_small_is_refused(seconds):
    with pytest.raises(BadOption):
        SegmentationSettings(max_seconds=seconds)


def test_missing_probabilities_are_an_error():
    cutter = Segmenter()
    cutter.push(ramp(1.0), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="3 probabilities"):
        cutter.finish()


@st.composite
def recordings(draw):
    """Stretches of any length and probability, and an incomplete step at the end."""
    stretch = st.tuples(st.floats(0.03, 12.0), st.sampled_from([0.0, 0.05, 0.12, 0.3, 0.95]))
    samples, heard = stretches(*draw(st.lists(stretch, min_size=1, max_size=25)))
    rest = draw(st.integers(0, STEP - 1))
    if rest:
        samples = np.concatenate([samples, np.arange(len(samples), len(samples) + rest, dtype=np.float32)])
        heard = np.append(heard, np.float32(draw(st.sampled_from([0.0, 0.9]))))
    return samples, heard


limits = st.sampled_from([2.0, 3.7, 8.0, 30.0])


@settings(max_examples=60, deadline=None)
@given(recordings(), limits)
def test_clips_are_limited_ordered_and_cover_all_possible_speech(recording, limit):
    samples, heard = recording
    pieces = segment(samples, heard, max_seconds=limit)
    covered = np.zeros(len(samples), bool)
    end = 0
    for piece in pieces:
        start = round(piece.start * SAMPLE_RATE)
        np.testing.assert_array_equal(piece.samples, samples[start : start + len(piece.samples)])
        assert 0 < len(piece.samples) <= limit * SAMPLE_RATE
        assert (piece.overlap > 0) == (piece.left_seam == "forced")
        assert start >= end - round(piece.overlap * SAMPLE_RATE)
        covered[start : start + len(piece.samples)] = True
        end = start + len(piece.samples)
    for step in np.flatnonzero(heard >= 0.2):
        assert covered[step * STEP : (step + 1) * STEP].all()
    if len(samples) <= limit * SAMPLE_RATE and pieces:
        assert len(pieces) == 1
        assert covered.all()


@settings(max_examples=50, deadline=None)
@given(recordings(), limits)
def test_seams_are_consistent(recording, limit):
    pieces = segment(*recording, max_seconds=limit)
    for left, right in itertools.pairwise(pieces):
        if right.left_seam == "forced":
            assert left.right_seam == "forced"
            assert right.start == pytest.approx(left.end - right.overlap)
        else:
            assert right.start >= left.end - 1e-9 or left.right_seam == "forced"
    if pieces:
        assert pieces[0].left_seam == ("edge" if pieces[0].start == 0 else "silence")


@settings(max_examples=60, deadline=None)
@given(recordings(), limits, st.integers(1, 400_000))
def test_results_do_not_depend_on_the_sizes_of_blocks(recording, limit, block):
    block = max(block, len(recording[0]) // 500 + 1)
    whole = segment(*recording, block=len(recording[0]), max_seconds=limit)
    parted = segment(*recording, block=block, max_seconds=limit)
    assert [dataclasses.replace(piece, samples=None) for piece in whole] == [
        dataclasses.replace(piece, samples=None) for piece in parted
    ]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(whole, parted, strict=True))
