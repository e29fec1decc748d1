"""Real speech for the clients: digits of a speaker that the tiny models were not trained on."""

from __future__ import annotations

import wave
from pathlib import Path

__all__ = ["PCM", "RATE", "SAID", "WAV", "packets"]

RATE = 16_000
WAV = Path(__file__).parent / "speech.wav"
SAID = "seven three nine zero one five eight two"
"""The transcript of both tiny models."""

with wave.open(str(WAV)) as _file:
    PCM = _file.readframes(_file.getnframes())
"""16 bits, mono, 16 kHz."""


def packets(milliseconds: int = 100) -> list[bytes]:
    size = 2 * RATE * milliseconds // 1000
    return [PCM[begin : begin + size] for begin in range(0, len(PCM), size)]
