"""How many live streams an engine holds, without sockets, sessions and another process: in this one, on its own loop.

    python -m bench.engine_live [--models src/conure/data/tiny] [--random FOLDER] [--runner onnx-int8] [--threads 2]
        [--latencies 160 1120] [--seconds 15] [--first 8] [--packet-ms 80] [--slots 256] [--json FILE]

Streams of real speech are fed by a thread at the pace of speech, their beginnings spread over a chunk. The lag is
counted from when the last sample was due that an answer covers; streams are held where p99 of it is at most a chunk
and 100 ms and all of them finish. Nothing is refused: what costs turns have is learned anew in each trial. --random
keeps a cache-aware model of 0.6B with random weights in FOLDER; what it says means nothing, what it costs does.
"""

from __future__ import annotations

import argparse
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.stream_step import random_checkpoint
from conure.bench.machine import machine
from conure.bench.numbers import Spread, largest, spread_of
from conure.bench.speech import RATE, voices
from conure.bench.trial import GRACE
from conure.cli.tables import table
from conure.engine.loop import Engine
from conure.engine.messages import (
    ENDS,
    Answer,
    Audio,
    Close,
    Finished,
    Heard,
    Listened,
    Note,
    Open,
    Samples,
    StreamOptions,
    Turned,
)
from conure.engine.plan import Plan
from conure.engine.startup import Lanes, build_lanes
from conure.models import conure_file

REPOSITORY = Path(__file__).parents[1]
DATA, TINY = REPOSITORY / "tests" / "data", REPOSITORY / "src" / "conure" / "data" / "tiny"
VOICES = 4
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


def main() -> None:
    options = _parser().parse_args()
    models = [str(model) for model in options.models]
    if options.random:
        if not options.random.exists():
            conure_file.save(random_checkpoint(24), options.random)
        models.append(str(options.random))
    said = [np.frombuffer(pcm, "<i2").astype(np.float32) / 32768 for pcm in voices(DATA, options.seconds, VOICES)]
    found = {}
    for model in models:
        plan = Plan(
            live=(model,), runner=options.runner, threads=options.threads, slots=options.slots, cache=options.cache
        )
        lanes = build_lanes(plan)
        for latency in options.latencies:
            found[lanes.cards[0].name, lanes.cards[0].runner, latency] = _search(lanes, said, latency, options)
    print(f"{machine()['processor']}, {machine()['cores']} cores")
    print(_table(found), end="")
    if options.json:
        cases = [{"model": key, "trials": [asdict(trial) for trial in tried]} for key, tried in found.items()]
        options.json.write_text(json.dumps({"machine": machine(), "cases": cases}, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="*", default=[TINY])
    parser.add_argument("--random", type=Path, help="where a random model of 0.6B is, or is to be")
    parser.add_argument("--runner", default="auto", choices=["auto", "torch", "onnx-int8", "onnx-fp32"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--latencies", type=int, nargs="*", default=[160, 1120])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--first", type=int, default=8, help="streams to begin with")
    parser.add_argument("--packet-ms", type=int, default=80)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--cache", type=Path, default=Path("build/bench/cache"))
    parser.add_argument("--json", type=Path)
    return parser


def _search(lanes: Lanes, said: Sequence[Samples], latency: int, options: argparse.Namespace) -> list[Held]:
    tried: list[Held] = []

    def holds(streams: int) -> bool:
        tried.append(Trial(lanes, said, streams, latency, options.packet_ms / 1000).run())
        print(f"  {streams} at {latency} ms: {tried[-1]}", flush=True)
        return tried[-1].is_in_time

    largest(holds, options.first, options.slots)
    return tried


class Trial:
    """So many streams of the first model of the lanes, from open to close."""

    def __init__(self, lanes: Lanes, said: Sequence[Samples], streams: int, latency: int, packet: float) -> None:
        self.said, self.streams, self.latency, self.packet = said, streams, latency, packet
        self.model = lanes.cards[0].name
        self.engine = Engine(lanes.live, {}, self._take)
        self.interval = latency / 1000 / streams
        self.lags: list[float] = []
        self.finals: list[float] = []
        self.turns: list[Turned] = []
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
            if isinstance(answer, Turned):
                self.turns.append(answer)
            elif isinstance(answer, Heard | Listened) and answer.stream not in self._closed:
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


def _table(found: dict[tuple[str, str, int], list[Held]]) -> str:
    rows = [("model", "runner", "ms", "streams", "lag p50", "p99", "end p50", "p99", "rows", "turn ms", "busy")]
    for key, tried in found.items():
        held = [trial for trial in tried if trial.is_in_time]
        best = max(held or tried, key=lambda trial: trial.streams if held else -trial.streams)
        times = [
            f"{value * 1000:.0f}" if spread else "-"
            for spread in (best.lag, best.final)
            for value in ((spread.p50, spread.p99) if spread else (0.0, 0.0))
        ]
        turns = (f"{best.rows:.1f}", f"{best.turn * 1000:.1f}", f"{best.busy:.0%}")
        rows.append((*map(str, key), f"{best.streams}" if held else "none", *times, *turns))
    return table(rows)


if __name__ == "__main__":
    main()
