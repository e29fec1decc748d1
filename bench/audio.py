"""Real speech of any length: one recording, repeated. Needs numpy only, so other environments can import it."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

RECORDING = Path(__file__).with_name("speech.wav")
"""src/conure/data/jfk.flac, unpacked."""
RATE = 16_000


def speech(seconds: float) -> np.ndarray:
    """float32 [N] at 16 kHz."""
    with wave.open(str(RECORDING), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    return np.resize(samples, int(seconds * RATE))


def write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
