"""A number of streams at once, and whether the server held them: in time, all of them, word for word."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from conure.bench.load_generator import alone, gather
from conure.bench.paced_stream import PacedStreamSettings
from conure.bench.server import Server
from conure.bench.statistics import PRECISION, Spread, largest, spread_of
from conure.errors import ConureError

__all__ = ["Load", "Trial", "hear_alone", "search", "try_load"]

MOST_STREAMS = 20_000
GUESSES = 0.1
"""Guesses a partial that covers more: a model that hears chunk after chunk makes next to none."""


@dataclass(frozen=True)
class Load:
    """What is tried: each stream speaks with one of the voices."""

    asked: PacedStreamSettings
    voices: Sequence[bytes]
    within: float
    """Seconds over which the beginnings are spread."""
    alone: Sequence[Sequence[str]]
    """The words of each voice when nobody else spoke."""
    promise: float
    """Seconds that p99 of the lag may be."""


@dataclass(frozen=True)
class Trial:
    """What came of it; seconds where nothing else is said."""

    streams: int
    latency_ms: int
    promise: float
    """What p99 of the lag may be."""
    seconds: float
    """Audio of all streams."""
    lag: Spread | None
    """Of partials that cover more than those before."""
    told_lag: Spread | None
    """What the server says of itself."""
    first_words: Spread | None
    """From the start of an utterance, in the audio, to its first words."""
    final: Spread | None
    """From "that was all" to the marker behind the last final."""
    by_utterances: bool
    """The model hears whole utterances: partials are guesses, so the lag is the one that the server tells."""
    late: float
    """How far behind their pace the clients were, at most."""
    ends: dict[str, int]
    words: int
    different: int
    """Streams whose words were not those of the voice alone."""
    cpu: dict[str, float]
    """Seconds of CPU a second of a stream, by kind of process."""
    memory: dict[str, int]
    """Bytes, by kind of process, at the end."""
    turns: float
    """Of live streams, a second."""
    rows: float
    """Streams in a turn, on average."""
    turn: float
    """A turn, on average."""
    busy: float
    """The part of the time that live turns took."""

    @property
    def fault(self) -> str | None:
        """Why the server did not hold them; None where it did."""
        wrong = {end: count for end, count in self.ends.items() if end not in ("finished", "cancelled")}
        if wrong:
            return f"{sum(wrong.values())} were not finished: {next(iter(wrong))}"
        if self.different:
            return f"{self.different} were heard otherwise than alone"
        if self.promised_lag is None:
            return "no word was heard"
        if self.promised_lag.p99 > self.promise:
            return f"p99 of the lag is {self.promised_lag.p99 * 1000:.0f} ms, more than {self.promise * 1000:.0f} ms"
        return None

    @property
    def promised_lag(self) -> Spread | None:
        """The one that counts."""
        return self.told_lag if self.by_utterances else self.lag


def hear_alone(asked: PacedStreamSettings, voices: Sequence[bytes]) -> list[list[str]]:
    """The words of each voice. Raises ConureError where the server does not finish them."""
    found = alone(asked, voices)
    for notes in found:
        if not notes.is_whole:
            raise ConureError(f"a stream alone was not finished: {notes.end}")
    return [notes.words for notes in found]


def try_load(server: Server, load: Load, streams: int) -> Trial:
    """Where one is refused, none speaks: they are not held."""
    with gather(load.asked, load.voices, streams, load.within) as crowd:
        began, turns = time.monotonic(), server.turns()
        before = server.cpu()
        heard = crowd.leave() if crowd.refused else crowd.speak()
        took, done = time.monotonic() - began, server.turns().since(turns)
        after = server.cpu()
    seconds = sum(notes.sent for notes in heard)
    right = [notes.words == load.alone[number % len(load.voices)] for number, notes in enumerate(heard)]
    return Trial(
        streams=streams,
        latency_ms=load.asked.latency_ms,
        promise=load.promise,
        seconds=seconds,
        lag=_spread(notes.lags for notes in heard),
        told_lag=_spread(notes.told_lags for notes in heard),
        first_words=_spread(notes.first_words for notes in heard),
        final=spread_of([notes.final for notes in heard if notes.final is not None]),
        by_utterances=sum(notes.guesses for notes in heard) > GUESSES * sum(len(notes.lags) for notes in heard),
        late=max(notes.late for notes in heard),
        ends=dict(Counter(notes.end for notes in heard)),
        words=sum(len(notes.words) for notes in heard),
        different=right.count(False),
        cpu={name: (after[name] - before[name]) / seconds for name in after if name in before and seconds},
        memory=server.memory(),
        turns=done.count / took,
        rows=done.rows / done.count if done.count else 0.0,
        turn=done.seconds / done.count if done.count else 0.0,
        busy=done.seconds / took,
    )


def search(
    server: Server,
    load: Load,
    first: int,
    tell: Callable[[Trial], None],
    precision: float = PRECISION,
    within: float = math.inf,
    tries: int = 1,
    tried: Sequence[Trial] = (),
) -> list[Trial]:
    """Every trial on the way to the largest number of streams that the server holds, to that part of it.

    No trial begins when `within` seconds are over. What is not held is tried so often. What was `tried` before is
    taken as it was.
    """
    end = time.monotonic() + within
    trials = {trial.streams: trial for trial in tried}

    def holds(streams: int) -> bool:
        for _ in range(0 if streams in trials else tries):
            trials[streams] = try_load(server, load, streams)
            tell(trials[streams])
            if trials[streams].fault is None:
                break
        return trials[streams].fault is None

    first = min([first, *(trial.streams for trial in tried if trial.fault)])
    largest(holds, first, MOST_STREAMS, precision, lambda: time.monotonic() > end)
    return list(trials.values())


def _spread(lists: Iterable[list[float]]) -> Spread | None:
    return spread_of([value for values in lists for value in values])
