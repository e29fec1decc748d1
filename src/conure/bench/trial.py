"""Concurrent streams, and whether the server sustains them: low lag, none rejected, and unchanged transcripts."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from conure.bench.load_generator import open_streams, run_sequentially
from conure.bench.paced_stream import PacedStreamSettings, StreamResult
from conure.bench.server import Server
from conure.bench.statistics import PRECISION, Spread, compute_spread, find_largest
from conure.errors import ConureError

__all__ = ["Load", "Trial", "transcribe_baseline", "find_max_streams", "try_load"]

MAX_STREAMS = 20_000
UNCHANGED_SHARE = 0.1
"""Share of partials without new audio above which the model transcribes whole utterances; chunked models send few."""


@dataclass(frozen=True)
class Load:
    """Parameters of a trial: each stream sends one of the voices."""

    settings: PacedStreamSettings
    voices: Sequence[bytes]
    start_window: float
    """Seconds over which the starts of streams are spread."""
    baseline: Sequence[Sequence[str]]
    """Words of each voice as a single stream."""
    promise: float
    """Target for the p99 lag, in seconds."""


@dataclass(frozen=True)
class Trial:
    """Result of a trial. Times in seconds. The names are those of `conure bench --json`."""

    streams: int
    latency_ms: int
    promise: float
    """Target for the p99 lag."""
    seconds: float
    """Audio of all streams."""
    lag: Spread | None
    """Lag of partials that cover new audio."""
    told_lag: Spread | None
    """Lag reported by the server."""
    first_words: Spread | None
    """From sending the start of an utterance to its first words."""
    final: Spread | None
    """From the finalize to the marker after the last final."""
    by_utterances: bool
    """Whether the model transcribes whole utterances. Then the lag reported by the server counts."""
    late: float
    """Longest delay of a packet by a client."""
    ends: dict[str, int]
    words: int
    different: int
    """Streams whose words differ from the baseline."""
    cpu: dict[str, float]
    """CPU seconds per second of a stream, by process."""
    memory: dict[str, int]
    """Bytes at the end, by process."""
    turns: float
    """Live steps per second."""
    rows: float
    """Streams in a step, on average."""
    turn: float
    """Duration of a step, on average."""
    busy: float
    """Share of the time spent in live steps."""

    @property
    def fault(self) -> str | None:
        """Why the server did not sustain the streams; None if it did."""
        failed = {end: count for end, count in self.ends.items() if end not in ("finished", "cancelled")}
        if failed:
            return f"{sum(failed.values())} streams failed: {next(iter(failed))}"
        if self.different:
            return f"{self.different} transcripts differ from those of single streams"
        if self.promised_lag is None:
            return "no words received"
        if self.promised_lag.p99 > self.promise:
            return f"p99 lag {self.promised_lag.p99 * 1000:.0f} ms exceeds the target of {self.promise * 1000:.0f} ms"
        return None

    @property
    def promised_lag(self) -> Spread | None:
        """The lag that is compared with the target."""
        return self.told_lag if self.by_utterances else self.lag


def transcribe_baseline(settings: PacedStreamSettings, voices: Sequence[bytes]) -> list[list[str]]:
    """Words of each voice as a single stream. Raises ConureError if a stream does not finish."""
    results = run_sequentially(settings, voices)
    for result in results:
        if not result.is_whole:
            raise ConureError(f"a single stream did not finish: {result.end}")
    return [result.words for result in results]


def try_load(server: Server, load: Load, streams: int) -> Trial:
    """Runs `streams` concurrent streams. If the server rejects one, all are cancelled before they send audio."""
    with open_streams(load.settings, load.voices, streams, load.start_window) as clients:
        started_at, steps_before = time.monotonic(), server.step_counts()
        before = server.cpu()
        results = clients.cancel() if clients.refused else clients.run()
        elapsed, steps = time.monotonic() - started_at, server.step_counts() - steps_before
        after = server.cpu()
    seconds = sum(result.sent for result in results)
    different = [result.words != load.baseline[number % len(load.voices)] for number, result in enumerate(results)]
    return Trial(
        streams=streams,
        latency_ms=load.settings.latency_ms,
        promise=load.promise,
        seconds=seconds,
        lag=_spread(result.lags for result in results),
        told_lag=_spread(result.reported_lags for result in results),
        first_words=_spread(result.first_words for result in results),
        final=compute_spread([result.final for result in results if result.final is not None]),
        by_utterances=_is_by_utterances(results),
        late=max(result.late for result in results),
        ends=dict(Counter(result.end for result in results)),
        words=sum(len(result.words) for result in results),
        different=sum(different),
        cpu={name: (after[name] - before[name]) / seconds for name in after if name in before and seconds},
        memory=server.memory(),
        turns=steps.count / elapsed,
        rows=steps.rows / steps.count if steps.count else 0.0,
        turn=steps.seconds / steps.count if steps.count else 0.0,
        busy=steps.seconds / elapsed,
    )


def find_max_streams(
    server: Server,
    load: Load,
    first: int,
    report: Callable[[Trial], None],
    precision: float = PRECISION,
    max_seconds: float = math.inf,
    tries: int = 1,
    tried: Sequence[Trial] = (),
) -> list[Trial]:
    """Searches the largest number of streams that the server sustains, within a relative precision. Returns all trials.

    No trial starts after `max_seconds`. A load that is not sustained is tried `tries` times. Trials in `tried` are
    not repeated.
    """
    end = time.monotonic() + max_seconds
    trials = {trial.streams: trial for trial in tried}

    def is_sustained(streams: int) -> bool:
        for _ in range(0 if streams in trials else tries):
            trials[streams] = try_load(server, load, streams)
            report(trials[streams])
            if trials[streams].fault is None:
                break
        return trials[streams].fault is None

    first = min([first, *(trial.streams for trial in tried if trial.fault)])
    find_largest(is_sustained, first, MAX_STREAMS, precision, lambda: time.monotonic() > end)
    return list(trials.values())


def _is_by_utterances(results: Sequence[StreamResult]) -> bool:
    unchanged = sum(result.unchanged_partials for result in results)
    return unchanged > UNCHANGED_SHARE * sum(len(result.lags) for result in results)


def _spread(lists: Iterable[list[float]]) -> Spread | None:
    return compute_spread([value for values in lists for value in values])
