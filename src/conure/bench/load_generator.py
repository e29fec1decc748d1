"""Many paced clients, in processes of their own so that their cost is not measured with the server's.

open    every client is connected or was rejected
run     clients start one after the other within a given time, and send all their audio
cancel  all clients cancel their streams without sending audio
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from conure.bench.paced_stream import PacedStream, PacedStreamSettings, StreamResult
from conure.errors import EngineFailed
from conure.event_loop import new_event_loop

__all__ = ["LoadGenerator", "run_sequentially", "open_streams"]

CLIENTS_PER_PROCESS = 100
"""With 50 packets per second each, they use about a tenth of a core."""
START_DELAY = 0.2
"""Seconds from the start command to the first sample."""
CONCURRENT_OPENS = 20
"""Clients of a process that connect at the same time."""


@dataclass(frozen=True)
class _ClientGroup:
    """The clients of one process."""

    settings: PacedStreamSettings
    voices: Sequence[bytes]
    numbers: range
    """Client n sends voice n, modulo the number of voices."""
    interval: float
    """Seconds between the starts of consecutive clients."""


class LoadGenerator:
    """Opened streams, which either run once or are cancelled."""

    def __init__(self, ends: list[Connection], refused: list[StreamResult]) -> None:
        self.refused = refused
        self._ends = ends

    def run(self) -> list[StreamResult]:
        """Runs all clients; their results in the order of their numbers."""
        return self._start(time.monotonic() + START_DELAY)

    def cancel(self) -> list[StreamResult]:
        return self._start(None)

    def _start(self, started_at: float | None) -> list[StreamResult]:
        for end in self._ends:
            end.send(started_at)
        return [result for end in self._ends for result in _receive(end)]


@contextlib.contextmanager
def open_streams(
    settings: PacedStreamSettings, voices: Sequence[bytes], streams: int, start_window: float
) -> Iterator[LoadGenerator]:
    """Opens `streams` streams, whose starts will be spread evenly over `start_window` seconds."""
    context = get_context("spawn")
    ends, processes = [], []
    for first in range(0, streams, CLIENTS_PER_PROCESS):
        parent_end, child_end = context.Pipe()
        numbers = range(first, min(first + CLIENTS_PER_PROCESS, streams))
        group = _ClientGroup(settings, voices, numbers, start_window / streams)
        process = context.Process(target=_work, args=(child_end, group), name=f"clients {numbers}", daemon=True)
        process.start()
        child_end.close()
        ends.append(parent_end)
        processes.append(process)
    try:
        yield LoadGenerator(ends, [result for end in ends for result in _receive(end)])
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for end in ends:
            end.close()
        for process in processes:
            process.join()


def run_sequentially(settings: PacedStreamSettings, voices: Sequence[bytes]) -> list[StreamResult]:
    """Results of one stream for each voice, one after the other, as fast as the server accepts audio."""

    async def run() -> list[StreamResult]:
        return [await _send_all(PacedStream(settings, voice)) for voice in voices]

    return asyncio.run(run())


async def _send_all(stream: PacedStream) -> StreamResult:
    await stream.open()
    await stream.send_unpaced()
    return await stream.finish()


def _receive(end: Connection) -> list[StreamResult]:
    try:
        result: list[StreamResult] = end.recv()
    except EOFError:
        raise EngineFailed("a process of clients exited", "see its output on stderr") from None
    return result


def _work(end: Connection, group: _ClientGroup) -> None:
    parent_gone = contextlib.suppress(EOFError, KeyboardInterrupt)
    with parent_gone, asyncio.Runner(loop_factory=new_event_loop) as loop:
        loop.run(_run_clients(end, group))


async def _run_clients(end: Connection, group: _ClientGroup) -> None:
    streams = [PacedStream(group.settings, group.voices[number % len(group.voices)]) for number in group.numbers]
    for first in range(0, len(streams), CONCURRENT_OPENS):
        await asyncio.gather(*(stream.open() for stream in streams[first : first + CONCURRENT_OPENS]))
    end.send([stream.result for stream in streams if stream.result.end])
    started_at: float | None = await asyncio.to_thread(end.recv)

    async def run(stream: PacedStream, number: int) -> StreamResult:
        if started_at is None:
            return await stream.cancel()
        await stream.send_paced(started_at + number * group.interval)
        return await stream.finish()

    pairs = zip(streams, group.numbers, strict=True)
    end.send(await asyncio.gather(*(run(stream, number) for stream, number in pairs)))
