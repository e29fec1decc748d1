"""Live streams in an engine of this process, fed in real time by a thread, from open to close.

The lag of a message is the time since its last covered sample was due. No stream is rejected: step costs are measured
anew in each trial.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conure.bench.statistics import Spread, compute_spread
from conure.engine.lanes.lane import StreamingLane
from conure.engine.loop import Engine
from conure.engine.messages import (
    FINAL_EVENTS,
    Audio,
    Close,
    EngineEvent,
    Finished,
    Open,
    Samples,
    StepTaken,
    StreamEvent,
    StreamOptions,
    StreamTokens,
    UtteranceProgress,
)

__all__ = ["GRACE", "TrialResult", "Trial"]

RATE = 16_000
GRACE = 0.1
"""Seconds by which the lag may exceed a chunk."""
TIMEOUT = 60.0
"""Seconds to wait for the last messages."""


@dataclass(frozen=True)
class TrialResult:
    streams: int
    latency_ms: int
    lag: Spread | None
    final: Spread | None
    """Time from closing a stream to its last message."""
    unfinished: int
    steps: float
    """Steps per second."""
    rows: float
    step: float
    busy: float
    stages: dict[str, float]
    """Seconds of each stage of a step."""
    max_delay: float
    """Longest delay of the feeding thread."""

    @property
    def is_in_time(self) -> bool:
        return not self.unfinished and self.lag is not None and self.lag.p99 <= self.latency_ms / 1000 + GRACE


class Trial:
    """One trial with the first of the lanes."""

    def __init__(
        self,
        lanes: Mapping[str, StreamingLane],
        voices: Sequence[Samples],
        streams: int,
        latency: int,
        packet_seconds: float,
    ) -> None:
        self.voices, self.streams, self.latency, self.packet_seconds = voices, streams, latency, packet_seconds
        self.model = next(iter(lanes))
        self.engine = Engine(lanes, {}, self._receive)
        self.interval = latency / 1000 / streams
        self.lags: list[float] = []
        self.finals: list[float] = []
        self.steps: list[StepTaken] = []
        self.max_delay = 0.0
        self._closed: dict[int, float] = {}
        self._ended: set[int] = set()
        self._finished = 0
        self._all_ended = threading.Event()

    def run(self) -> TrialResult:
        loop = threading.Thread(target=self.engine.run)
        loop.start()
        options = StreamOptions(self.model, self.latency)
        for number in range(self.streams):
            self.engine.submit(Open(number, options))
        self.started_at = time.monotonic() + 0.1
        self._feed()
        self._all_ended.wait(TIMEOUT)
        elapsed = time.monotonic() - self.started_at
        self.engine.stop()
        loop.join()
        count, busy = max(len(self.steps), 1), sum(step.seconds for step in self.steps)
        return TrialResult(
            streams=self.streams,
            latency_ms=self.latency,
            lag=compute_spread(self.lags),
            final=compute_spread(self.finals),
            unfinished=self.streams - self._finished,
            steps=len(self.steps) / elapsed,
            rows=sum(step.rows for step in self.steps) / count,
            step=busy / count,
            busy=busy / elapsed,
            stages={name: seconds / count for name, seconds in self._stages().items()},
            max_delay=self.max_delay,
        )

    def _stages(self) -> Counter[str]:
        totals: Counter[str] = Counter()
        for step in self.steps:
            totals.update(step.stages)
        return totals

    def _feed(self) -> None:
        """Sends each packet when its last sample would be spoken."""
        samples = round(self.packet_seconds * RATE)
        count = math.ceil(len(self.voices[0]) / samples)
        packets = sorted(
            (self._due(stream, index), stream, index) for stream in range(self.streams) for index in range(count)
        )
        for due, stream, index in packets:
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            self.max_delay = max(self.max_delay, time.monotonic() - due)
            voice = self.voices[stream % len(self.voices)]
            self.engine.submit(Audio(stream, voice[index * samples : (index + 1) * samples]))
            if index == count - 1:
                self._closed[stream] = time.monotonic()
                self.engine.submit(Close(stream))

    def _due(self, stream: int, packet: int) -> float:
        return self.started_at + stream * self.interval + (packet + 1) * self.packet_seconds

    def _receive(self, messages: list[StreamEvent | EngineEvent]) -> None:
        """Called on the engine's thread."""
        now = time.monotonic()
        covered: dict[int, float] = {}
        """By stream: if an utterance ends within a chunk, the step decoded more audio than its message covers."""
        for message in messages:
            if isinstance(message, StepTaken):
                self.steps.append(message)
            elif isinstance(message, StreamTokens | UtteranceProgress) and message.stream not in self._closed:
                covered[message.stream] = max(covered.get(message.stream, 0.0), message.until)
            elif isinstance(message, FINAL_EVENTS):
                self._end(message, now)
        for stream, until in covered.items():
            if until > 0:
                packet = math.ceil(round(until * RATE) / round(self.packet_seconds * RATE)) - 1
                self.lags.append(now - self._due(stream, packet))

    def _end(self, message: StreamEvent, now: float) -> None:
        self._ended.add(message.stream)
        if isinstance(message, Finished):
            self._finished += 1
            self.finals.append(now - self._closed[message.stream])
        if len(self._ended) == self.streams:
            self._all_ended.set()
