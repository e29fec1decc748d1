"""Real speech of any length, as a microphone sends it: PCM16, mono, 16 kHz."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from conure.audio.files import open_audio
from conure.constants import SAMPLE_RATE
from conure.errors import AudioNotFound

__all__ = ["sample_recording", "read_voices"]

SUFFIXES = (".flac", ".wav")


def sample_recording() -> Path:
    """The recording shipped with the package: 11 s of speech."""
    return Path(str(resources.files("conure"))) / "data" / "jfk.flac"


def read_voices(source: Path, seconds: float, count: int) -> list[bytes]:
    """`count` excerpts of the recording, or of all recordings of the folder in a row, repeated up to `seconds`.

    Excerpts start at evenly spread offsets, so that simulated streams do not pause together. Raises AudioNotFound, or
    what decoding raises.
    """
    files = sorted(file for file in source.rglob("*") if file.suffix in SUFFIXES) if source.is_dir() else [source]
    if not files:
        raise AudioNotFound(f"{source} has no recordings", f"it needs {' or '.join(SUFFIXES)} files")
    samples = np.concatenate([_read(file) for file in files])
    offsets = [len(samples) * voice // count for voice in range(count)]
    return [np.resize(np.roll(samples, -offset), round(seconds * SAMPLE_RATE)).tobytes() for offset in offsets]


def _read(file: Path) -> np.ndarray:
    """int16 [N]"""
    with open_audio(file) as reader:
        samples = np.concatenate([block[0] for block in reader.blocks()])
    return (samples * 32767).clip(-32768, 32767).astype("<i2")
