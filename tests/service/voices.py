"""Recordings of real speech, short and long, as files."""

from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from conure.audio.files import open_audio

STRINGS = sorted((Path(__file__).parents[1] / "data" / "strings").glob("*.flac"))
RATE = 16_000


@cache
def samples_of(path):
    """float32 [n]"""
    with open_audio(path) as reader:
        return np.concatenate([block[0] for block in reader.blocks()])


def speech(seconds, first=0):
    """float32 [n]: one speaker after the other, with pauses from none to longer than are kept."""
    parts, count, number = [], 0, first
    while count < seconds * RATE:
        pause = np.zeros(int((0.0, 0.3, 0.0, 1.0, 4.0)[number % 5] * RATE), np.float32)
        parts += [samples_of(STRINGS[number % len(STRINGS)]), pause]
        count += len(parts[-2]) + len(pause)
        number += 1
    return np.concatenate(parts)[: int(seconds * RATE)]


def save(path, *channels):
    """Samples [n] of each channel; the suffix tells the format."""
    soundfile.write(path, np.stack(channels, 1), RATE)
    return path
