"""Many paced clients, in processes of their own: what they cost is not the server's, nor what measures it.

open   every client is connected, or was refused
speak  they begin one after the other within a given time, and speak to their end
leave  they go without a word
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from conure.bench.paced_stream import Notes, PacedStream, PacedStreamSettings
from conure.errors import EngineFailed
from conure.event_loop import new_event_loop

__all__ = ["LoadGenerator", "alone", "gather"]

IN_A_PROCESS = 100
"""Clients: at 50 packets a second each they keep about a tenth of a core busy."""
SOON = 0.2
"""Seconds from the word to the first sample."""
AT_ONCE = 20
"""Clients of a process that connect together."""


@dataclass(frozen=True)
class _Part:
    """The clients of one process."""

    asked: PacedStreamSettings
    voices: Sequence[bytes]
    numbers: range
    """Each speaks with the voice of its number, modulo the voices."""
    interval: float
    """Seconds between the beginnings of a client and the next one."""


class LoadGenerator:
    """Opened; speaks once, or leaves."""

    def __init__(self, ends: list[Connection], refused: list[Notes]) -> None:
        self.refused = refused
        self._ends = ends

    def speak(self) -> list[Notes]:
        """What each client heard, in the order of their numbers."""
        return self._all(time.monotonic() + SOON)

    def leave(self) -> list[Notes]:
        return self._all(None)

    def _all(self, begin: float | None) -> list[Notes]:
        for end in self._ends:
            end.send(begin)
        return [notes for end in self._ends for notes in _receive(end)]


@contextlib.contextmanager
def gather(asked: PacedStreamSettings, voices: Sequence[bytes], streams: int, within: float) -> Iterator[LoadGenerator]:
    """Opens so many streams, whose beginnings are spread evenly over some seconds."""
    context = get_context("spawn")
    ends, processes = [], []
    for first in range(0, streams, IN_A_PROCESS):
        ours, theirs = context.Pipe()
        numbers = range(first, min(first + IN_A_PROCESS, streams))
        part = _Part(asked, voices, numbers, within / streams)
        process = context.Process(target=_work, args=(theirs, part), name=f"clients {numbers}", daemon=True)
        process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
    try:
        yield LoadGenerator(ends, [notes for end in ends for notes in _receive(end)])
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for end in ends:
            end.close()
        for process in processes:
            process.join()


def alone(asked: PacedStreamSettings, voices: Sequence[bytes]) -> list[Notes]:
    """What each voice is heard as where nobody else speaks, one after the other, as fast as the server takes it."""

    async def listen() -> list[Notes]:
        return [await _hurry(PacedStream(asked, voice)) for voice in voices]

    return asyncio.run(listen())


async def _hurry(stream: PacedStream) -> Notes:
    await stream.open()
    await stream.hurry()
    return await stream.finish()


def _receive(end: Connection) -> list[Notes]:
    try:
        notes: list[Notes] = end.recv()
    except EOFError:
        raise EngineFailed("a process of clients died", "what it wrote on stderr tells why") from None
    return notes


def _work(end: Connection, part: _Part) -> None:
    nobody_asks = contextlib.suppress(EOFError, KeyboardInterrupt)
    with nobody_asks, asyncio.Runner(loop_factory=new_event_loop) as loop:
        loop.run(_speak(end, part))


async def _speak(end: Connection, part: _Part) -> None:
    streams = [PacedStream(part.asked, part.voices[number % len(part.voices)]) for number in part.numbers]
    for first in range(0, len(streams), AT_ONCE):
        await asyncio.gather(*(stream.open() for stream in streams[first : first + AT_ONCE]))
    end.send([stream.notes for stream in streams if stream.notes.end])
    begin: float | None = await asyncio.to_thread(end.recv)

    async def speak(stream: PacedStream, number: int) -> Notes:
        if begin is None:
            return await stream.cancel()
        await stream.speak(begin + number * part.interval)
        return await stream.finish()

    pairs = zip(streams, part.numbers, strict=True)
    end.send(await asyncio.gather(*(speak(stream, number) for stream, number in pairs)))
