"""Engines are killed or suspended during speech: no word is missing or repeated."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from conure.client import Client, Endpointing, Final, Finished, ServerBusy, Stream
from conure.engine.watchdog import MAX_STARTS
from conure.event_loop import MIN_STALL
from tests.protocols.live_clients import pcm16
from tests.protocols.servers import PATIENCE, SAID, Server, demo, started, wait_for

STREAMS = 10
PACE = 0.1
"""Seconds of audio in a packet."""
ENDS = Endpointing(silence=1.5)
COPIES = 2
WORDS = SAID.split() * COPIES


class Speaking:
    """One who says the demo twice at a person's pace, and then again on another stream, until it is told to stop."""

    def __init__(self, server: Server) -> None:
        self.heard = 0
        """Events so far."""
        self.words: list[list[str]] = []
        """Of each stream."""
        self.enough = False
        self._server = server

    async def run(self) -> None:
        while not self.enough:
            try:
                await self._say()
            except ServerBusy:  # there is no engine now
                await asyncio.sleep(PACE)

    async def _say(self) -> None:
        audio = pcm16(demo()) * COPIES
        size = int(32_000 * PACE)
        async with Client(self._server.base).stream(endpointing=ENDS) as stream:
            listening = asyncio.create_task(self._listen(stream))
            for begin in range(0, len(audio), size):
                await stream.send(audio[begin : begin + size])
                await asyncio.sleep(PACE)
            await stream.close()
            await listening

    async def _listen(self, stream: Stream) -> None:
        words: list[str] = []
        last = None
        async for event in stream:
            self.heard += 1
            last = event
            if isinstance(event, Final):
                words += event.text.split()
        assert isinstance(last, Finished)
        self.words.append(words)


async def spoken_to(server: Server, troubles: list[Callable[[Server], None]]) -> list[Speaking]:
    """All speak while one trouble comes after the other, each when everybody has been heard since the one before."""
    everybody = [Speaking(server) for _ in range(STREAMS)]
    speaking = [asyncio.create_task(one.run()) for one in everybody]

    async def all_heard() -> None:
        before = [one.heard for one in everybody]
        async with asyncio.timeout(PATIENCE):
            while not all(one.heard > count for one, count in zip(everybody, before, strict=True)):
                for task in speaking:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    for trouble in troubles:
        await all_heard()
        await asyncio.to_thread(trouble, server)
    await all_heard()
    for one in everybody:
        one.enough = True
    await asyncio.gather(*speaking)
    return everybody


def kill(server: Server) -> None:
    server.kill_engine()
    wait_for(lambda: not ready(server))
    wait_for(lambda: ready(server))


def kill_twice(server: Server) -> None:
    """The second one while it starts."""
    first = server.engine()
    first.kill()
    wait_for(lambda: server.health()["processes"].get("engine", first.pid) != first.pid)
    assert not ready(server)
    server.kill_engine()
    wait_for(lambda: ready(server))


def hold_up(server: Server) -> None:
    """As a machine does that is short of memory."""
    with suspended(server.engine()):
        os.kill(server.process.pid, 0)


@contextmanager
def suspended(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED)
        yield
    finally:
        process.resume()


def hold_up_door(server: Server) -> None:
    """For so long that it is noticed, and not so long that it is killed."""
    name, pid = next(
        (name, pid) for name, pid in server.health()["processes"].items() if name.startswith("server process ")
    )
    number = name.removeprefix("server process ")
    silent, door = f"server process {number} does not respond", psutil.Process(pid)
    before = server.errors.count(silent)
    with suspended(door):
        wait_for(lambda: server.errors.count(silent) > before)
    wait_for(lambda: f"server process {number} responds again" in server.errors)


def hold_up_server(server: Server) -> None:
    """The process that looks after the others, which is also the one with the doors where there is one."""
    process = psutil.Process(server.process.pid)
    with suspended(process):
        time.sleep(MIN_STALL + 1)  # so that it is known for what it was


def ready(server: Server) -> bool:
    """What is told is one thing, wherever it is asked."""
    code, told = server.get("/ready")[0], server.health()
    assert told["ready"] is (told["status"] == "ready")
    return code == 200 and told["ready"]


@pytest.mark.parametrize(
    ("options", "troubles"),
    [
        ((), [kill, hold_up, kill, hold_up_server, kill_twice, kill]),
        (("--processes", "2"), [kill, hold_up, hold_up_door, kill_twice, hold_up_server]),
    ],
    ids=["one process", "two processes"],
)
def test_no_word_is_lost(options: tuple[str, ...], troubles: list[Callable[[Server], None]], cache: Path) -> None:
    deaths = sum(2 if trouble is kill_twice else trouble is kill for trouble in troubles)
    with started("tiny", cache, *options) as server:
        everybody = asyncio.run(spoken_to(server, troubles))
        assert [words for one in everybody for words in one.words if words != WORDS] == []
        assert all(one.words for one in everybody)
        assert server.health()["engine_restarts"] == deaths
        assert server.metric("conure_engine_restarts") == deaths
        assert "conure_background_failures_total{" not in server.get("/metrics")[1].decode()
        assert server.stop() == 0
        assert "did not end in good order" not in server.errors


def test_no_process_is_left_of_a_killed_server(cache: Path) -> None:
    """Not even an engine that is busy; and its ports are free."""
    with started("tiny", cache) as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
        again = started("tiny", cache, "--port", str(server.web), "--tcp-port", str(server.tcp))
        with again as second:
            assert ready(second)


@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["one process", "two processes"])
def test_a_server_whose_engines_hang_while_they_start_ends(options: tuple[str, ...], cache: Path) -> None:
    """Their processes are there and say nothing; it is told of each, and none is left."""
    module, ports = "tests.end_to_end.hanging_server", ("--port", "free", "--tcp-port", "free", "--grpc-port", "0")
    command = [sys.executable, "-m", module, "serve", "--model", "tiny", *ports, "--wyoming-port", "0"]
    done = subprocess.run(
        [*command, "--status-port", "0", "--start-seconds", "1", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"CONURE_CACHE": str(cache)},
    )
    assert done.returncode == 1
    hung = "the engine did not get on for 1 s (start_seconds) while it was starting its process; it was killed"
    assert done.stderr.count(f"{hung}; starting it again") == MAX_STARTS - 1
    assert "none of the last 5 engines said a word" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_whose_engine_does_not_come_back_ends(cache: Path, tmp_path: Path) -> None:
    """Whoever speaks is told, and the exit code tells an orchestrator to start it again."""
    with started("tiny", cache, module="tests.end_to_end.fading_server") as server:
        speaking = Speaking(server)

        async def talk() -> None:
            task = asyncio.create_task(speaking.run())
            while not speaking.heard:
                await asyncio.sleep(0.02)
            server.kill_engine()
            await task

        with pytest.raises(Exception, match="engine"):
            asyncio.run(talk())
        assert server.wait() == 1
        assert "none of the last 5 engines said a word" in server.errors
        assert "Traceback" not in server.errors
