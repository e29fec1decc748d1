"""The whole measurement of live streams: voices, what they are heard as alone, then one load or the largest held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conure.bench.paced_stream import PacedStreamSettings
from conure.bench.sample_speech import voices
from conure.bench.server import Server
from conure.bench.trial import Load, Trial, hear_alone, search, try_load
from conure.errors import BadOption

__all__ = ["StreamBench", "load_of", "measure"]

VOICES = 4
"""Pieces of the recordings, so that streams do not all pause together."""
GRACE_MS = 100
"""What p99 of the lag may be longer than a chunk, where nothing else is promised."""
WITHIN = 1.0
"""Seconds over which streams begin, where a chunk is not longer."""


@dataclass(frozen=True)
class StreamBench:
    """What is to be measured. Raises BadOption for numbers that make no sense."""

    audio: Path
    """A recording, or a folder of them."""
    streams: int = 40
    """To begin with, where the largest number is searched."""
    latency_ms: int = 160
    seconds: float = 60.0
    model: str | None = None
    """One of the server's; None is its first."""
    packet_ms: int = 20
    search: bool = False
    promise_ms: float | None = None
    """What p99 of the lag may be; None is a chunk and GRACE_MS."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("streams", self.streams, 1),
            ("seconds", self.seconds, 1),
            ("packet_ms", self.packet_ms, 1),
            ("latency", self.latency_ms, 1),
            ("promise", self.promise, 0.001),
        ):
            if value < least:
                raise BadOption(f"{name} is {value:g}", f"it must be at least {least:g}")

    @property
    def promise(self) -> float:
        """Seconds."""
        return (self.latency_ms + GRACE_MS if self.promise_ms is None else self.promise_ms) / 1000


def measure(bench: StreamBench, server: Server, tell: Callable[[Trial], None]) -> list[Trial]:
    """`tell` hears of each trial when it is over. Raises ConureError where a stream alone is not finished."""
    load = load_of(bench, server)
    if bench.search:
        return search(server, load, bench.streams, tell)
    trial = try_load(server, load, bench.streams)
    tell(trial)
    return [trial]


def load_of(bench: StreamBench, server: Server) -> Load:
    """Each voice is heard alone for it. Raises ConureError where that is not finished."""
    asked = PacedStreamSettings(server.stream_url, bench.latency_ms, bench.model, bench.packet_ms, server.headers)
    said = voices(bench.audio, bench.seconds, min(VOICES, bench.streams))
    return Load(asked, said, max(WITHIN, bench.latency_ms / 1000), hear_alone(asked, said), bench.promise)
