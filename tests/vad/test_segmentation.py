import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.errors import BadOption
from conure.vad.segmentation import RATE, STEP, SegmentationSettings, Segmenter
from tests.vad.planted import probabilities, ramp


def cut(samples, heard, block=160_000, **options):
    """Blocks of the given size, with the probabilities of the steps that each completes."""
    cutter = Segmenter(SegmentationSettings(**options))
    pieces, told = [], 0
    for first in range(0, len(samples), block):
        part = samples[first : first + block]
        until = (first + len(part)) // STEP
        pieces += cutter.push(part, heard[told:until])
        told = until
    return pieces + cutter.push(samples[:0], heard[told:]) + cutter.finish()


def stretches(*parts):
    """(seconds, probability) after one another -> samples, probabilities."""
    heard = np.concatenate([np.full(round(seconds * RATE / STEP), p, np.float32) for seconds, p in parts])
    return np.arange(len(heard) * STEP, dtype=np.float32), heard


def spans(pieces):
    return [(round(piece.start, 1), round(piece.end, 1), piece.left_seam, piece.right_seam) for piece in pieces]


def test_a_recording_that_fits_is_passed_whole_and_untouched():
    samples = ramp(30.0)
    heard = probabilities([], len(samples))
    heard[700] = 0.9
    (piece,) = cut(samples, heard)
    assert (piece.start, piece.left_seam, piece.right_seam, piece.overlap) == (0.0, "edge", "edge", 0.0)
    np.testing.assert_array_equal(piece.samples, samples)


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.3, 29.0, 31.0, 200.0])
def test_non_speech_gives_no_pieces(seconds):
    samples = ramp(seconds)
    assert cut(samples, np.full(-(-len(samples) // STEP), 0.04, np.float32)) == []


def test_doubtful_sound_without_any_speech_gives_no_pieces():
    assert cut(*stretches((1, 0.05), (300, 0.15))) == []


def test_a_short_word_in_a_silent_minute_survives():
    (piece,) = cut(*stretches((40, 0.01), (0.3, 0.6), (40, 0.01)))
    assert piece.start == pytest.approx(39.5, abs=0.05)
    assert piece.end == pytest.approx(40.8, abs=0.05)
    assert piece.samples[0] == piece.start * RATE


def test_the_first_steps_and_short_clips_need_less():
    """There the detector is not sure of anything yet."""
    assert cut(*stretches((0.3, 0.07)))
    assert not cut(*stretches((4, 0.07)))
    assert cut(*stretches((0.3, 0.12), (60, 0.01)))
    assert not cut(*stretches((20, 0.01), (0.3, 0.12), (20, 0.01)))


def test_long_silence_is_left_out_but_for_padding():
    assert spans(cut(*stretches((10, 0.9), (5, 0.01), (10, 0.9), (20, 0.01)))) == [
        (0.0, 10.5, "edge", "silence"),
        (14.5, 25.5, "silence", "silence"),
    ]


def test_silence_that_is_not_long_stays():
    (piece,) = cut(*stretches((1.5, 0.01), (10, 0.9), (1.9, 0.01), (10, 0.9), (1.5, 0.01), (10, 0.01)), max_seconds=40)
    assert (piece.start, piece.left_seam) == (0.0, "edge")
    assert piece.end > 23.4


def test_the_cut_is_in_the_longest_silence_of_the_second_half():
    parts = (10, 0.9), (1.5, 0.0), (8, 0.9), (0.4, 0.0), (2, 0.9), (0.7, 0.0), (2, 0.9), (0.4, 0.0), (25, 0.9)
    first, second, *_ = cut(*stretches(*parts))
    assert first.right_seam == second.left_seam == "silence"
    assert first.end == second.start == pytest.approx(22.25, abs=0.05)


def test_without_silence_both_pieces_hear_the_seam_at_the_least_speech_like_place():
    first, second = cut(*stretches((20, 0.9), (0.1, 0.5), (25, 0.9)))
    assert first.right_seam == second.left_seam == "forced"
    assert second.overlap == pytest.approx(2.0, abs=0.04)
    assert second.start == pytest.approx(first.end - second.overlap)
    assert (second.start + first.end) / 2 == pytest.approx(20.05, abs=0.05)
    np.testing.assert_array_equal(first.samples[-round(second.overlap * RATE) :][:100], second.samples[:100])


def test_among_equal_probabilities_the_quiet_place_is_cut():
    samples, heard = stretches((45, 0.99))
    samples = np.sin(samples).astype(np.float32)
    samples[int(24.0 * RATE) : int(24.1 * RATE)] *= 0.01
    first, second = cut(samples, heard)
    assert (second.start + first.end) / 2 == pytest.approx(24.05, abs=0.05)


def test_doubtful_sound_before_speech_is_heard_with_it():
    pieces = cut(*stretches((1, 0.05), (100, 0.15), (5, 0.9), (30, 0.01)))
    assert pieces[0].start < 90
    assert pieces[-1].end == pytest.approx(106.5, abs=0.1)


def test_sound_that_stays_doubtful_after_speech_is_left_out_in_the_end():
    pieces = cut(*stretches((5, 0.9), (600, 0.15)))
    assert pieces[0].start == 0
    assert sum(piece.seconds for piece in pieces) < 60


@pytest.mark.parametrize("seconds", [1.0, math.nan, math.inf, -3.0])
def test_a_limit_that_leaves_no_room_is_refused(seconds):
    with pytest.raises(BadOption):
        SegmentationSettings(max_seconds=seconds)


def test_probabilities_that_are_missing_are_noticed():
    cutter = Segmenter()
    cutter.push(ramp(1.0), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="3 probabilities"):
        cutter.finish()


@st.composite
def hearings(draw):
    """Stretches of any length and probability, and a rest that is no whole step."""
    stretch = st.tuples(st.floats(0.03, 12.0), st.sampled_from([0.0, 0.05, 0.12, 0.3, 0.95]))
    samples, heard = stretches(*draw(st.lists(stretch, min_size=1, max_size=25)))
    rest = draw(st.integers(0, STEP - 1))
    if rest:
        samples = np.concatenate([samples, np.arange(len(samples), len(samples) + rest, dtype=np.float32)])
        heard = np.append(heard, np.float32(draw(st.sampled_from([0.0, 0.9]))))
    return samples, heard


limits = st.sampled_from([2.0, 3.7, 8.0, 30.0])


@settings(max_examples=60, deadline=None)
@given(hearings(), limits)
def test_pieces_are_bounded_in_order_and_cover_all_that_may_be_speech(hearing, limit):
    samples, heard = hearing
    pieces = cut(samples, heard, max_seconds=limit)
    covered = np.zeros(len(samples), bool)
    end = 0
    for piece in pieces:
        start = round(piece.start * RATE)
        np.testing.assert_array_equal(piece.samples, samples[start : start + len(piece.samples)])
        assert 0 < len(piece.samples) <= limit * RATE
        assert (piece.overlap > 0) == (piece.left_seam == "forced")
        assert start >= end - round(piece.overlap * RATE)
        covered[start : start + len(piece.samples)] = True
        end = start + len(piece.samples)
    for step in np.flatnonzero(heard >= 0.2):
        assert covered[step * STEP : (step + 1) * STEP].all()
    if len(samples) <= limit * RATE and pieces:
        assert len(pieces) == 1
        assert covered.all()


@settings(max_examples=50, deadline=None)
@given(hearings(), limits)
def test_seams_fit_together(hearing, limit):
    pieces = cut(*hearing, max_seconds=limit)
    for left, right in itertools.pairwise(pieces):
        if right.left_seam == "forced":
            assert left.right_seam == "forced"
            assert right.start == pytest.approx(left.end - right.overlap)
        else:
            assert right.start >= left.end - 1e-9 or left.right_seam == "forced"
    if pieces:
        assert pieces[0].left_seam == ("edge" if pieces[0].start == 0 else "silence")


@settings(max_examples=60, deadline=None)
@given(hearings(), limits, st.integers(1, 400_000))
def test_the_sizes_of_blocks_make_no_difference(hearing, limit, block):
    block = max(block, len(hearing[0]) // 500 + 1)
    whole = cut(*hearing, block=len(hearing[0]), max_seconds=limit)
    parted = cut(*hearing, block=block, max_seconds=limit)
    assert [dataclasses.replace(piece, samples=None) for piece in whole] == [
        dataclasses.replace(piece, samples=None) for piece in parted
    ]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(whole, parted, strict=True))
