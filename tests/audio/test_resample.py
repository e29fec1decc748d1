"""Resampling chunk by chunk equals that of the whole clip, with exactly as many samples."""

from __future__ import annotations

import numpy as np
import pytest

from conure.audio.resample import Resampler


def resampled(samples, from_rate, size, to_rate=16_000):
    resampler = Resampler(from_rate, to_rate, len(samples))
    starts = range(0, samples.shape[1], size)
    parts = [resampler.push(samples[:, start : start + size]) for start in starts]
    return np.concatenate([*parts, resampler.push(samples[:, :0], last=True)], axis=1)


@pytest.mark.parametrize("from_rate", [8_000, 11_025, 16_000, 44_100, 48_000, 192_000])
def test_chunks_equal_the_whole(from_rate):
    samples = np.random.default_rng(0).standard_normal((2, 30_001)).astype(np.float32)
    whole = Resampler(from_rate, 16_000, 2).push(samples, last=True)
    for size in (160, 4_001):
        chunks = resampled(samples, from_rate, size)
        assert chunks.shape == whole.shape
        np.testing.assert_allclose(chunks, whole, atol=1e-6)


@pytest.mark.parametrize("from_rate", [1_000, 8_000, 22_050, 44_100, 48_000, 768_000])
@pytest.mark.parametrize("count", [48, 441, 12_345])
def test_length_is_exact(from_rate, count):
    made = resampled(np.zeros((1, count), np.float32), from_rate, 100)
    assert abs(made.shape[1] - count * 16_000 / from_rate) <= 0.5


def test_same_rate_changes_nothing():
    samples = np.random.default_rng(0).standard_normal((1, 1_000)).astype(np.float32)
    assert np.array_equal(resampled(samples, 16_000, 333), samples)


def test_channels_are_kept_separate():
    samples = np.zeros((2, 4_800), np.float32)
    samples[1] = np.sin(np.arange(4_800) / 10)
    made = resampled(samples, 48_000, 1_000)
    assert not made[0].any()
    assert np.abs(made[1]).max() > 0.9
