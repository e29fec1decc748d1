"""Cheap augmentation of samples: tempo and pitch, rooms and telephone lines, noise. Precomputed where possible."""

import numpy as np
from numpy.random import Generator
from scipy.signal import fftconvolve, firwin

from tools.train.corpus import SAMPLE_RATE

Samples = np.ndarray  # float32, full scale 1.0


def resample(samples: Samples, ratio: float) -> Samples:
    """Play `ratio` times as fast: tempo, pitch and formants move together."""
    count = max(2, int(len(samples) / ratio))
    positions = np.linspace(0, len(samples) - 1, count)
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


def companded(samples: Samples) -> Samples:
    """8-bit mu-law and back, as telephone lines do."""
    peak = np.abs(samples).max() + 1e-6
    level = np.sign(samples) * np.log1p(255 * np.abs(samples) / peak) / np.log(256)
    level = np.round(level * 127) / 127
    return (np.sign(level) * (np.power(256, np.abs(level)) - 1) / 255 * peak).astype(np.float32)


class Channels:
    """A bank of impulse responses, each of a room, a telephone line, a spectral tilt, or a combination."""

    def __init__(self, rng: Generator, count: int = 200) -> None:
        self.responses = [_response(rng) for _ in range(count)]

    def apply(self, samples: Samples, rng: Generator) -> Samples:
        response = self.responses[rng.integers(len(self.responses))]
        return fftconvolve(samples, response)[: len(samples)].astype(np.float32)


def _response(rng: Generator) -> Samples:
    response = np.ones(1, np.float32)
    if rng.random() < 0.6:
        response = _room(rng)
    if rng.random() < 0.45:
        low, high = rng.uniform(60, 350), rng.uniform(3_000, 6_500)
        band = firwin(255, [low, high], pass_zero=False, fs=SAMPLE_RATE)
        response = np.convolve(response, band)[127:]
    # a gentle spectral tilt, down or up
    response = np.convolve(response, [1.0, rng.uniform(-0.45, 0.45)])
    return (response / np.sqrt((response**2).sum())).astype(np.float32)


def _room(rng: Generator) -> Samples:
    """A direct path and an exponentially decaying tail of noise."""
    length = int(rng.uniform(0.05, 0.25) * SAMPLE_RATE)
    tail = rng.normal(0, 1, length) * np.exp(-np.arange(length) / (length / 5))
    tail *= rng.uniform(0.1, 0.6) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return tail


class Noises:
    """A bank of long noises of unit power, to take excerpts from."""

    def __init__(self, rng: Generator, babble: Samples, seconds: float = 30.0) -> None:
        count = int(seconds * SAMPLE_RATE)
        exponents = (0.0, 0.5, 1.0, 1.5, 2.0)
        self.noises = [_coloured(rng, count, exponent) for exponent in exponents]
        self.noises += [_unit_power(babble[:count])]

    def cut(self, length: int, rng: Generator) -> Samples:
        noise = self.noises[rng.integers(len(self.noises))]
        start = int(rng.integers(len(noise)))
        if start + length <= len(noise):
            return noise[start : start + length]
        return np.take(noise, np.arange(start, start + length), mode="wrap")

    def add(self, samples: Samples, decibels: float, rng: Generator) -> Samples:
        """Add noise at this signal-to-noise ratio."""
        level = samples.std() * 10 ** (-decibels / 20)
        return samples + level * self.cut(len(samples), rng)


def _coloured(rng: Generator, count: int, exponent: float) -> Samples:
    """Noise whose power falls with frequency to the power of `exponent`."""
    spectrum = np.fft.rfft(rng.normal(0, 1, count))
    frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    return _unit_power(np.fft.irfft(spectrum / np.maximum(frequency, 40) ** (exponent / 2), count))


def _unit_power(noise: Samples) -> Samples:
    return (noise / (noise.std() + 1e-9)).astype(np.float32)
