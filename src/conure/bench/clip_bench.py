"""How fast a server transcribes recordings: one after the other, and several at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conure.bench.sample_speech import voices
from conure.bench.server import Server
from conure.bench.upload_load import uploading, wav
from conure.errors import BadOption

__all__ = ["ClipBench", "ClipTrial", "measure_clips"]


@dataclass(frozen=True)
class ClipBench:
    """What is to be measured. Raises BadOption for numbers that make no sense."""

    audio: Path
    """A recording, or a folder of them."""
    at_once: int = 4
    length: float = 60.0
    """Seconds of each recording."""
    seconds: float = 15.0
    """That each of both measurements goes on, at least: what has begun is finished."""
    model: str | None = None
    """One of the server's; None is its first."""

    def __post_init__(self) -> None:
        for name, value in (("at-once", self.at_once), ("length", self.length), ("seconds", self.seconds)):
            if value < 1:
                raise BadOption(f"{name} is {value:g}", "it must be at least 1")


@dataclass(frozen=True)
class ClipTrial:
    """What came of so many clients, each of which sends a recording as soon as the one before is answered."""

    at_once: int
    recordings: int
    same: bool
    """Each was heard as alone."""
    audio: float
    """Seconds of all recordings."""
    seconds: float
    """That it took."""
    cpu: dict[str, float]
    """Cores that were busy, by process."""
    memory: dict[str, int]
    """Bytes, by process, at the end."""

    @property
    def speed(self) -> float:
        """Hours of recordings an hour."""
        return self.audio / self.seconds


def measure_clips(bench: ClipBench, server: Server, tell: Callable[[ClipTrial], None]) -> None:
    """`tell` hears of both, one at a time and several at once, when each is over.

    Raises EngineFailed where a recording is refused.
    """
    (pcm,) = voices(bench.audio, bench.length, 1)
    alone = server.transcribe(wav(pcm), bench.model)  # what is new to the server costs more
    for at_once in dict.fromkeys((1, bench.at_once)):
        tell(_try(bench, server, pcm, at_once, alone))


def _try(bench: ClipBench, server: Server, pcm: bytes, at_once: int, alone: str) -> ClipTrial:
    before, began = server.cpu(), time.monotonic()
    with uploading(server, pcm, at_once, bench.model) as uploads:
        uploads.failed.wait(bench.seconds)
    after, took = server.cpu(), uploads.until - began
    for error in uploads.errors:
        raise error
    return ClipTrial(
        at_once=at_once,
        recordings=uploads.count,
        same=uploads.texts == {alone},
        audio=uploads.seconds,
        seconds=took,
        cpu={name: (after[name] - before[name]) / took for name in after if name in before},
        memory=server.memory(),
    )
