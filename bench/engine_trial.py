"""So many live streams in an engine of this process, fed by a thread at the pace of speech, from open to close.

The lag is counted from when the last sample was due that an answer covers. Nothing is refused: what costs turns have
is learned anew in each trial.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conure.bench.statistics import Spread, spread_of
from conure.engine.lanes.lane import StreamingLane
from conure.engine.loop import Engine
from conure.engine.messages import (
    ENDS,
    Answer,
    Audio,
    ClipTokens,
    Close,
    Finished,
    Note,
    Open,
    Samples,
    StepTaken,
    StreamOptions,
    StreamTokens,
)

__all__ = ["GRACE", "Held", "Trial"]

RATE = 16_000
GRACE = 0.1
"""Seconds that the lag may be longer than a chunk."""
PATIENCE = 60.0
"""Seconds for the last answers; an engine that needs longer does not hold its streams."""


@dataclass(frozen=True)
class Held:
    streams: int
    latency_ms: int
    lag: Spread | None
    final: Spread | None
    """From the close of a stream to its end."""
    unfinished: int
    turns: float
    """A second."""
    rows: float
    turn: float
    busy: float
    stages: dict[str, float]
    """Of a turn."""
    late: float
    """How far the feeding thread was behind, at most."""

    @property
    def is_in_time(self) -> bool:
        return not self.unfinished and self.lag is not None and self.lag.p99 <= self.latency_ms / 1000 + GRACE


class Trial:
    """So many streams of the first of the lanes, from open to close."""

    def __init__(
        self, lanes: Mapping[str, StreamingLane], said: Sequence[Samples], streams: int, latency: int, packet: float
    ) -> None:
        self.said, self.streams, self.latency, self.packet = said, streams, latency, packet
        self.model = next(iter(lanes))
        self.engine = Engine(lanes, {}, self._take)
        self.interval = latency / 1000 / streams
        self.lags: list[float] = []
        self.finals: list[float] = []
        self.turns: list[StepTaken] = []
        self.late = 0.0
        self._closed: dict[int, float] = {}
        self._ended: set[int] = set()
        self._finished = 0
        self._over = threading.Event()

    def run(self) -> Held:
        loop = threading.Thread(target=self.engine.run)
        loop.start()
        options = StreamOptions(self.model, self.latency)
        for number in range(self.streams):
            self.engine.ask(Open(number, options))
        self.begin = time.monotonic() + 0.1
        self._feed()
        self._over.wait(PATIENCE)
        took = time.monotonic() - self.begin
        self.engine.stop()
        loop.join()
        count, busy = max(len(self.turns), 1), sum(turn.seconds for turn in self.turns)
        return Held(
            streams=self.streams,
            latency_ms=self.latency,
            lag=spread_of(self.lags),
            final=spread_of(self.finals),
            unfinished=self.streams - self._finished,
            turns=len(self.turns) / took,
            rows=sum(turn.rows for turn in self.turns) / count,
            turn=busy / count,
            busy=busy / took,
            stages={name: seconds / count for name, seconds in self._stages().items()},
            late=self.late,
        )

    def _stages(self) -> Counter[str]:
        together: Counter[str] = Counter()
        for turn in self.turns:
            together.update(turn.stages)
        return together

    def _feed(self) -> None:
        """Every packet when its last sample is spoken."""
        samples = round(self.packet * RATE)
        count = math.ceil(len(self.said[0]) / samples)
        packets = sorted((self._due(stream, at), stream, at) for stream in range(self.streams) for at in range(count))
        for due, stream, at in packets:
            if (wait := due - time.monotonic()) > 0:
                time.sleep(wait)
            self.late = max(self.late, time.monotonic() - due)
            voice = self.said[stream % len(self.said)]
            self.engine.ask(Audio(stream, voice[at * samples : (at + 1) * samples]))
            if at == count - 1:
                self._closed[stream] = time.monotonic()
                self.engine.ask(Close(stream))

    def _due(self, stream: int, packet: int) -> float:
        return self.begin + stream * self.interval + (packet + 1) * self.packet

    def _take(self, answers: list[Answer | Note]) -> None:
        """On the engine's thread."""
        now = time.monotonic()
        reached: dict[int, float] = {}
        """By stream: where an utterance ends within a chunk, the turn has heard more than the answer covers."""
        for answer in answers:
            if isinstance(answer, StepTaken):
                self.turns.append(answer)
            elif isinstance(answer, StreamTokens | ClipTokens) and answer.stream not in self._closed:
                reached[answer.stream] = max(reached.get(answer.stream, 0.0), answer.until)
            elif isinstance(answer, ENDS):
                self._end(answer, now)
        for stream, until in reached.items():
            if until > 0:
                packet = math.ceil(round(until * RATE) / round(self.packet * RATE)) - 1
                self.lags.append(now - self._due(stream, packet))

    def _end(self, answer: Answer, now: float) -> None:
        self._ended.add(answer.stream)
        if isinstance(answer, Finished):
            self._finished += 1
            self.finals.append(now - self._closed[answer.stream])
        if len(self._ended) == self.streams:
            self._over.set()
