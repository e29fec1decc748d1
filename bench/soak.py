"""A server under a load that comes and goes for a long time: does it grow, and are the words still right?

    python -m bench.soak [--url URL | --live MODEL --clips MODEL] [--minutes 30] [--latency 160]
        [--streams N | --share 0.7] [--data FOLDER] [--json FILE]

So many streams are open at any time, by default 70 % of what the server says it holds. Each speaks for a length of its
own and then is finished, cut off, cancelled, or cut off midway and resumed. Where the server has a model for
recordings, one is transcribed after the other beside them. Every 10 s memory, open files and threads of the server's
processes are read; their growth is the slope by least squares after the first tenth of the time. Transcripts of
streams that were finished are compared with those of the same audio alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.live import DATA, add_server, server_of
from conure.bench.machine import machine
from conure.bench.paced_stream import Notes, PacedStream, PacedStreamSettings
from conure.bench.sample_speech import shipped, voices
from conure.bench.server import NO_CLIPS, Server
from conure.bench.statistics import slope, spread_of
from conure.bench.trial import hear_alone
from conure.cli.tables import table

FATES = {"finish": 6, "resume": 2, "cut": 1, "cancel": 1}
"""How streams end, and how often."""
LENGTHS = (5, 10, 20, 40)
"""Seconds of audio."""
AWAY = 2.0
"""Seconds until a client that was cut off comes back."""
EVERY = 10.0
SETTLING = 0.1
"""Of the time: memory grows until everything has been done once."""
PAUSE = 1.0
"""Seconds before a slot's next stream."""


@dataclass(frozen=True)
class Sample:
    at: float
    memory: dict[str, int]
    """Bytes that are the process's alone: the samples' ring, which both see, fills up once and stays."""
    files: dict[str, int]
    threads: dict[str, int]


@dataclass
class Soak:
    server: Server
    asked: PacedStreamSettings
    pieces: Sequence[bytes]
    alone: Sequence[Sequence[str]]
    until: float
    chance: random.Random
    samples: list[Sample] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[list[str], list[str]]] = field(default_factory=list)
    """What was heard, and what should have been."""
    lags: list[float] = field(default_factory=list)
    told_lags: list[float] = field(default_factory=list)
    clips: Counter[str] = field(default_factory=Counter)
    """Transcripts of the recording, which should all be the same."""

    async def run(self, streams: int, with_clips: bool) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            if with_clips:
                tasks.create_task(self._transcribe())
            for _ in range(streams):
                tasks.create_task(self._occupy())

    async def _occupy(self) -> None:
        """One stream after the other."""
        await asyncio.sleep(self.chance.uniform(0, LENGTHS[0]))
        while time.monotonic() < self.until:
            number = self.chance.randrange(len(self.pieces))
            (fate,) = self.chance.choices(list(FATES), list(FATES.values()))
            stream = PacedStream(self.asked, self.pieces[number])
            await stream.open()
            await self._live(stream, fate)
            self._note(fate, number, stream.notes)
            await asyncio.sleep(self.chance.uniform(0, PAUSE))

    async def _live(self, stream: PacedStream, fate: str) -> None:
        if fate == "finish":
            await stream.speak(time.monotonic())
            await stream.finish()
            return
        begin, part = time.monotonic(), self.chance.randrange(1, stream.packets)
        await stream.speak(begin, part)
        if fate == "cancel":
            await stream.cancel()
            return
        await stream.drop()
        if fate == "resume":
            await asyncio.sleep(AWAY)
            await stream.resume()
            await stream.speak(begin + AWAY)
            await stream.finish()

    def _note(self, fate: str, number: int, notes: Notes) -> None:
        self.ends[f"{fate}: {notes.end}"] += 1
        self.told_lags += notes.told_lags
        if fate == "finish":
            self.lags += notes.lags
        if fate in ("finish", "resume") and notes.words != self.alone[number]:
            self.wrong.append((notes.words, list(self.alone[number])))

    async def _transcribe(self) -> None:
        recording = shipped().read_bytes()
        while time.monotonic() < self.until:
            self.clips[await asyncio.to_thread(self.server.transcribe, recording)] += 1
            await asyncio.sleep(PAUSE)

    async def _watch(self) -> None:
        begin = time.monotonic()
        while time.monotonic() < self.until:
            processes = self.server.processes()
            self.samples.append(
                Sample(
                    time.monotonic() - begin,
                    {name: process.memory_full_info().uss for name, process in processes.items()},
                    {name: process.num_fds() for name, process in processes.items()},
                    {name: process.num_threads() for name, process in processes.items()},
                )
            )
            print(f"{self.samples[-1]} {dict(self.ends)}", file=sys.stderr, flush=True)
            await asyncio.sleep(EVERY)

    def growth(self) -> list[tuple[str, ...]]:
        """A table: what each process had at first and at last, and the slope an hour."""
        rows: list[tuple[str, ...]] = [("", "first", "last", "an hour")]
        kept = [sample for sample in self.samples if sample.at >= SETTLING * self.samples[-1].at]
        hours = [sample.at / 3600 for sample in kept]
        for what, unit in (("memory", 2**20), ("files", 1), ("threads", 1)):
            for name in getattr(kept[0], what):
                values = [getattr(sample, what)[name] / unit for sample in kept]
                label = f"{what}, {name}" + (", MB" if unit > 1 else "")
                rows.append((label, f"{values[0]:.0f}", f"{values[-1]:.0f}", f"{slope(hours, values):+.1f}"))
        return rows


def main() -> None:
    options = _parser().parse_args()
    with server_of(options) as server:
        soak = _soak(server, options)
        streams = options.streams or max(1, int(options.share * server.room(options.latency)))
        with_clips = bool(options.url) or options.clips != NO_CLIPS
        asyncio.run(soak.run(streams, with_clips))
    print(_table(soak, streams), end="")
    if options.json:
        facts = {"machine": machine(), "streams": streams, "ends": soak.ends, "growth": soak.growth()}
        more = {"wrong": soak.wrong, "clips": list(soak.clips.values())}
        options.json.write_text(json.dumps(facts | more, indent=1) + "\n")


def _soak(server: Server, options: argparse.Namespace) -> Soak:
    asked = PacedStreamSettings(server.stream_url, options.latency)
    pieces = [piece for seconds in LENGTHS for piece in voices(options.data, seconds, 3)]
    alone = hear_alone(asked, pieces)
    return Soak(server, asked, pieces, alone, time.monotonic() + 60 * options.minutes, random.Random(options.seed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server(parser)
    parser.set_defaults(resume_seconds=5.0)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--latency", type=int, default=160)
    parser.add_argument("--streams", type=int)
    parser.add_argument("--share", type=float, default=0.7, help="of what the server says it holds")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser


def _table(soak: Soak, streams: int) -> str:
    facts = [
        ("machine", f"{machine()['processor']}, {machine()['cores']} cores"),
        ("streams", f"{streams} at a time, {soak.ends.total()} in all"),
        *(("", f"{count} {end}") for end, count in sorted(soak.ends.items())),
        ("words", f"{len(soak.wrong)} streams heard otherwise than alone"),
        ("recordings", f"{soak.clips.total()}, heard in {len(soak.clips)} ways"),
    ]
    for name, lags in (("lag of partials", soak.lags), ("lag as told", soak.told_lags)):
        if spread := spread_of(lags):
            facts.append((name, f"p50 {spread.p50 * 1000:.0f} ms, p99 {spread.p99 * 1000:.0f} ms"))
    return table(facts) + "\n" + table(soak.growth())


if __name__ == "__main__":
    main()
