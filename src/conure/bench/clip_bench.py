"""Throughput of a server with recordings: one at a time, and several at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conure.bench.sample_speech import read_voices
from conure.bench.server import Server
from conure.bench.upload_load import run_uploads, wav_bytes
from conure.errors import BadOption

__all__ = ["ClipBench", "ClipTrial", "measure_clips"]


@dataclass(frozen=True)
class ClipBench:
    """Parameters of the measurement. Raises BadOption for numbers below 1."""

    audio: Path
    """A recording, or a folder of them."""
    at_once: int = 4
    length: float = 60.0
    """Seconds of each recording."""
    seconds: float = 15.0
    """Minimum duration of each of both measurements; recordings in progress are finished."""
    model: str | None = None
    """A model of the server; None is its first."""

    def __post_init__(self) -> None:
        for name, value in (("at-once", self.at_once), ("length", self.length), ("seconds", self.seconds)):
            if value < 1:
                raise BadOption(f"{name} is {value:g}", "it must be at least 1")


@dataclass(frozen=True)
class ClipTrial:
    """Result of `at_once` clients that send recordings continuously. The names are those of `conure bench --json`."""

    at_once: int
    recordings: int
    same: bool
    """Whether all transcripts equal that of a single recording."""
    audio: float
    """Seconds of all recordings."""
    seconds: float
    """Duration of the measurement."""
    cpu: dict[str, float]
    """Busy cores, by process."""
    memory: dict[str, int]
    """Bytes at the end, by process."""

    @property
    def speed(self) -> float:
        """Throughput as a multiple of real time (RTFx)."""
        return self.audio / self.seconds


def measure_clips(bench: ClipBench, server: Server, report: Callable[[ClipTrial], None]) -> None:
    """Measures one recording at a time, then several at once, and calls `report` with each trial.

    Raises EngineFailed if the server rejects a recording.
    """
    (pcm,) = read_voices(bench.audio, bench.length, 1)
    baseline = server.transcribe(wav_bytes(pcm), bench.model)  # also warms up the server
    for at_once in dict.fromkeys((1, bench.at_once)):
        report(_run_trial(bench, server, pcm, at_once, baseline))


def _run_trial(bench: ClipBench, server: Server, pcm: bytes, at_once: int, baseline: str) -> ClipTrial:
    before, started_at = server.cpu(), time.monotonic()
    with run_uploads(server, pcm, at_once, bench.model) as uploads:
        uploads.failed.wait(bench.seconds)
    after, seconds = server.cpu(), uploads.finished_at - started_at
    for error in uploads.errors:
        raise error
    return ClipTrial(
        at_once=at_once,
        recordings=uploads.count,
        same=uploads.texts == {baseline},
        audio=uploads.seconds,
        seconds=seconds,
        cpu={name: (after[name] - before[name]) / seconds for name in after if name in before},
        memory=server.memory(),
    )
