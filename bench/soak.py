"""A long run with streams that come and go: checks for growth of the server, and for wrong transcripts.

    python -m bench.soak [--url URL | --live MODEL --clips MODEL] [--minutes 30] [--latency 160]
        [--streams N | --share 0.7] [--data FOLDER] [--json FILE]

Keeps a number of streams open, by default 70 % of the server's estimate. Streams have different lengths and are
finished, disconnected, cancelled, or disconnected and resumed. If the server has a model for recordings, recordings
are transcribed at the same time. Every 10 s, memory, open files and threads of the server's processes are read; their
growth is the slope by least squares after the first tenth of the time. Transcripts of finished streams are compared
with those of single streams.
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
from conure.bench.paced_stream import PacedStream, PacedStreamSettings, StreamResult
from conure.bench.sample_speech import read_voices, sample_recording
from conure.bench.server import NO_CLIPS, Server
from conure.bench.statistics import compute_spread, slope
from conure.bench.trial import transcribe_baseline
from conure.cli.tables import table

ENDINGS = {"finish": 6, "resume": 2, "cut": 1, "cancel": 1}
"""Relative frequencies of how streams end."""
LENGTHS = (5, 10, 20, 40)
"""Seconds of audio."""
RECONNECT_SECONDS = 2.0
"""Seconds until a disconnected client resumes."""
SAMPLE_INTERVAL = 10.0
WARM_UP_SHARE = 0.1
"""Share of the time that is not counted: memory grows until everything has run once."""
PAUSE = 1.0
"""Maximum of seconds between a stream and the next one."""


@dataclass(frozen=True)
class Sample:
    at: float
    memory: dict[str, int]
    """Bytes that only this process uses: without the shared ring of samples, which fills up once."""
    files: dict[str, int]
    threads: dict[str, int]


@dataclass
class Soak:
    server: Server
    settings: PacedStreamSettings
    voices: Sequence[bytes]
    baseline: Sequence[Sequence[str]]
    until: float
    chance: random.Random
    samples: list[Sample] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[list[str], list[str]]] = field(default_factory=list)
    """Received and expected words."""
    lags: list[float] = field(default_factory=list)
    reported_lags: list[float] = field(default_factory=list)
    clips: Counter[str] = field(default_factory=Counter)
    """Counts of transcripts of the recording, which should be equal."""

    async def run(self, streams: int, with_clips: bool) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample_processes())
            if with_clips:
                tasks.create_task(self._transcribe())
            for _ in range(streams):
                tasks.create_task(self._run_streams())

    async def _run_streams(self) -> None:
        """Runs one stream after the other."""
        await asyncio.sleep(self.chance.uniform(0, LENGTHS[0]))
        while time.monotonic() < self.until:
            number = self.chance.randrange(len(self.voices))
            (ending,) = self.chance.choices(list(ENDINGS), list(ENDINGS.values()))
            stream = PacedStream(self.settings, self.voices[number])
            await stream.open()
            await self._run_stream(stream, ending)
            self._record(ending, number, stream.result)
            await asyncio.sleep(self.chance.uniform(0, PAUSE))

    async def _run_stream(self, stream: PacedStream, ending: str) -> None:
        if ending == "finish":
            await stream.send_paced(time.monotonic())
            await stream.finish()
            return
        begin, part = time.monotonic(), self.chance.randrange(1, stream.packets)
        await stream.send_paced(begin, part)
        if ending == "cancel":
            await stream.cancel()
            return
        await stream.disconnect()
        if ending == "resume":
            await asyncio.sleep(RECONNECT_SECONDS)
            await stream.resume()
            await stream.send_paced(begin + RECONNECT_SECONDS)
            await stream.finish()

    def _record(self, ending: str, number: int, result: StreamResult) -> None:
        self.ends[f"{ending}: {result.end}"] += 1
        self.reported_lags += result.reported_lags
        if ending == "finish":
            self.lags += result.lags
        if ending in ("finish", "resume") and result.words != self.baseline[number]:
            self.wrong.append((result.words, list(self.baseline[number])))

    async def _transcribe(self) -> None:
        recording = sample_recording().read_bytes()
        while time.monotonic() < self.until:
            self.clips[await asyncio.to_thread(self.server.transcribe, recording)] += 1
            await asyncio.sleep(PAUSE)

    async def _sample_processes(self) -> None:
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
            await asyncio.sleep(SAMPLE_INTERVAL)

    def growth(self) -> list[tuple[str, ...]]:
        """A table of the first and last value of each process, and the growth per hour."""
        rows: list[tuple[str, ...]] = [("", "first", "last", "per hour")]
        kept = [sample for sample in self.samples if sample.at >= WARM_UP_SHARE * self.samples[-1].at]
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
        streams = options.streams or max(1, int(options.share * server.estimated_streams(options.latency)))
        with_clips = bool(options.url) or options.clips != NO_CLIPS
        asyncio.run(soak.run(streams, with_clips))
    print(_table(soak, streams), end="")
    if options.json:
        facts = {"machine": machine(), "streams": streams, "ends": soak.ends, "growth": soak.growth()}
        more = {"wrong": soak.wrong, "clips": list(soak.clips.values())}
        options.json.write_text(json.dumps(facts | more, indent=1) + "\n")


def _soak(server: Server, options: argparse.Namespace) -> Soak:
    settings = PacedStreamSettings(server.stream_url, options.latency)
    voices = [piece for seconds in LENGTHS for piece in read_voices(options.data, seconds, 3)]
    baseline = transcribe_baseline(settings, voices)
    return Soak(
        server, settings, voices, baseline, time.monotonic() + 60 * options.minutes, random.Random(options.seed)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server(parser)
    parser.set_defaults(resume_seconds=5.0)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--latency", type=int, default=160)
    parser.add_argument("--streams", type=int)
    parser.add_argument("--share", type=float, default=0.7, help="of the server's own estimate")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser


def _table(soak: Soak, streams: int) -> str:
    facts = [
        ("machine", f"{machine()['processor']}, {machine()['cores']} cores"),
        ("streams", f"{streams} at a time, {soak.ends.total()} in all"),
        *(("", f"{count} {end}") for end, count in sorted(soak.ends.items())),
        ("words", f"{len(soak.wrong)} transcripts differ from those of single streams"),
        ("recordings", f"{soak.clips.total()}, with {len(soak.clips)} different transcripts"),
    ]
    for name, lags in (("lag of partials", soak.lags), ("lag by server", soak.reported_lags)):
        if spread := compute_spread(lags):
            facts.append((name, f"p50 {spread.p50 * 1000:.0f} ms, p99 {spread.p99 * 1000:.0f} ms"))
    return table(facts) + "\n" + table(soak.growth())


if __name__ == "__main__":
    main()
