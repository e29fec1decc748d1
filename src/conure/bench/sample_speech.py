"""Real speech of any length, as a microphone sends it: PCM16, mono, 16 kHz."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from conure.audio.files import open_audio
from conure.errors import AudioNotFound

__all__ = ["RATE", "shipped", "voices"]

RATE = 16_000
SUFFIXES = (".flac", ".wav")


def shipped() -> Path:
    """A speech of 11 s that is in the package."""
    return Path(str(resources.files("conure"))) / "data" / "jfk.flac"


def voices(source: Path, seconds: float, count: int) -> list[bytes]:
    """So many pieces of the recording, or of those in the folder, over and over; each begins at another place.

    Raises AudioNotFound, or what decoding raises.
    """
    files = sorted(file for file in source.rglob("*") if file.suffix in SUFFIXES) if source.is_dir() else [source]
    if not files:
        raise AudioNotFound(f"{source} holds no recordings", f"it needs {' or '.join(SUFFIXES)}")
    said = np.concatenate([_read(file) for file in files])
    begins = [len(said) * voice // count for voice in range(count)]
    return [np.resize(np.roll(said, -begin), round(seconds * RATE)).tobytes() for begin in begins]


def _read(file: Path) -> np.ndarray:
    """int16 [N]"""
    with open_audio(file) as reader:
        samples = np.concatenate([block[0] for block in reader.blocks()])
    return (samples * 32767).clip(-32768, 32767).astype("<i2")
