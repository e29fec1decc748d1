"""Recorded spoken digits, and recordings composed of them."""

from __future__ import annotations

import random
import wave
from functools import cache
from pathlib import Path

import numpy as np

from conure.types import Word

RATE = 16_000
FOLDER = Path(__file__).parents[1] / "data" / "digits"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPEAKERS = ["george", "jackson", "lucas"]
QUIET = 0.1
"""Seconds after a word from which on all is silence: the digits are cut close."""


@cache
def spoken(digit, speaker):
    """float32 [n]"""
    with wave.open(str(FOLDER / f"{digit}_{speaker}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def recording(parts, noise=1e-4, seed=0):
    """(pause before, digit, speaker) for each word, with faint noise -> samples [n] and the words with their times."""
    words, clips, at = [], [], 0
    for pause, digit, speaker in parts:
        clip = spoken(digit, speaker)
        at += round(pause * RATE)
        words.append(Word(NAMES[digit], at / RATE, (at + len(clip)) / RATE))
        clips.append((at, clip))
        at += len(clip)
    samples = (noise * np.random.default_rng(seed).standard_normal(at)).astype(np.float32)
    for start, clip in clips:
        samples[start : start + len(clip)] += clip
    return samples, words


def spoken_apart(seed, count=5, pause=(0.4, 1.1)):
    """Digits separated by pauses, and a second of silence at the end -> see `recording`."""
    chance = random.Random(seed)
    parts = [(chance.uniform(*pause), chance.randrange(10), SPEAKERS[seed % 3]) for _ in range(count)]
    samples, words = recording(parts, seed=seed)
    silence = 1e-4 * np.random.default_rng(seed).standard_normal(RATE)
    return np.concatenate([samples, silence.astype(np.float32)]), words


def silences(words, samples):
    """Ranges of samples without speech, before each word and after the last one."""
    ends = [0.0, *(word.end + QUIET for word in words)]
    starts = [*(word.start for word in words), len(samples) / RATE]
    return [(int(end * RATE), int(start * RATE)) for end, start in zip(ends, starts, strict=True) if start > end]
