"""Real spoken digits, and recordings made of them."""

from __future__ import annotations

import wave
from functools import cache
from pathlib import Path

import numpy as np

from conure.types import Word

RATE = 16_000
FOLDER = Path(__file__).parents[1] / "data" / "digits"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SPEAKERS = ["george", "jackson", "lucas"]


@cache
def spoken(digit, speaker):
    """float32 [n]"""
    with wave.open(str(FOLDER / f"{digit}_{speaker}.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def recording(parts, noise=1e-4, seed=0):
    """(pause before it, digit, speaker) each, over faint noise -> samples [n], the words with their times."""
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
