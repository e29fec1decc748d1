"""The measurement of live streams: a baseline of single streams, then one load or a search for the largest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conure.bench.paced_stream import PacedStreamSettings
from conure.bench.sample_speech import read_voices
from conure.bench.server import Server
from conure.bench.trial import Load, Trial, find_max_streams, transcribe_baseline, try_load
from conure.errors import BadOption

__all__ = ["StreamBench", "make_load", "measure_streams"]

VOICES = 4
"""Different excerpts of the recordings, so that streams do not all pause together."""
GRACE_MS = 100
"""Added to a chunk's duration, this is the default target for the p99 lag."""
START_WINDOW = 1.0
"""Streams start spread over this many seconds, or over a chunk if that is longer."""


@dataclass(frozen=True)
class StreamBench:
    """Parameters of the measurement. Raises BadOption for numbers that are too small."""

    audio: Path
    """A recording, or a folder of them."""
    streams: int = 40
    """With `search`, the number to begin with."""
    latency_ms: int = 160
    seconds: float = 60.0
    model: str | None = None
    """A model of the server; None is its first."""
    packet_ms: int = 20
    search: bool = False
    promise_ms: float | None = None
    """Target for the p99 lag; None is a chunk plus GRACE_MS."""

    def __post_init__(self) -> None:
        for name, value, minimum in (
            ("streams", self.streams, 1),
            ("seconds", self.seconds, 1),
            ("packet_ms", self.packet_ms, 1),
            ("latency", self.latency_ms, 1),
            ("promise", self.promise, 0.001),
        ):
            if value < minimum:
                raise BadOption(f"{name} is {value:g}", f"it must be at least {minimum:g}")

    @property
    def promise(self) -> float:
        """Seconds."""
        return (self.latency_ms + GRACE_MS if self.promise_ms is None else self.promise_ms) / 1000


def measure_streams(bench: StreamBench, server: Server, report: Callable[[Trial], None]) -> list[Trial]:
    """Calls `report` with each trial. Raises ConureError if a stream of the baseline does not finish."""
    load = make_load(bench, server)
    if bench.search:
        return find_max_streams(server, load, bench.streams, report)
    trial = try_load(server, load, bench.streams)
    report(trial)
    return [trial]


def make_load(bench: StreamBench, server: Server) -> Load:
    """The load, with a baseline of single streams. Raises ConureError if one of them does not finish."""
    settings = PacedStreamSettings(server.stream_url, bench.latency_ms, bench.model, bench.packet_ms, server.headers)
    voices = read_voices(bench.audio, bench.seconds, min(VOICES, bench.streams))
    baseline = transcribe_baseline(settings, voices)
    return Load(settings, voices, max(START_WINDOW, bench.latency_ms / 1000), baseline, bench.promise)
