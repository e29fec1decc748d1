"""Real speech of any length: one recording, again and again."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from conure.audio.files import open_audio

RECORDING = Path(__file__).parents[1] / "src" / "conure" / "data" / "jfk.flac"
RATE = 16_000


def speech(seconds: float) -> np.ndarray:
    """float32 [N] at 16 kHz."""
    with open_audio(RECORDING, max_seconds=None) as reader:
        samples = np.concatenate([block[0] for block in reader.blocks()])
    return np.resize(samples, int(seconds * RATE)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
