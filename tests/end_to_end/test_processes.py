"""A server of several processes behaves as one server, whichever of its processes fails."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from conure.client import Client, Endpointing, Event, Final, Finished
from tests.protocols.live_clients import TINY, Lines, Message, Socket, converse, finals, lines, pcm16, pieces, socket_of
from tests.protocols.live_clients import Client as Talker
from tests.protocols.servers import DEMO, PATIENCE, SAID, TINY_MODEL, Server, demo, started, wait_for

Door = Callable[[Server], AbstractContextManager[Talker]]
DIGITS = pcm16(demo())
PIECES = pieces(DIGITS)
HALF = len(PIECES) // 2
CLOSE: Message = {"type": "close"}
LIVE_SECONDS = 'conure_audio_seconds_total{kind="live"}'
DIED, HUNG = 'conure_server_process_restarts_total{why="died"}', 'conure_server_process_restarts_total{why="hung"}'


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[Server]:
    with started(str(TINY_MODEL), cache, "--processes", "2", "--resume-seconds", "60") as running:
        yield running
        running.settled(0)
        assert running.stop() == 0
        assert "Traceback" not in running.errors


def doors(server: Server) -> dict[str, int]:
    """Ids of the processes that hold connections."""
    return {name: pid for name, pid in server.health()["processes"].items() if name.startswith("server process ")}


def is_replaced(server: Server, name: str) -> bool:
    """Whether another process holds connections in the place of one that was killed."""
    try:
        names = doors(server)
    except OSError:  # the question waited in the queue of the one that died
        return False
    return len(names) == 2 and name not in names


def holder(server: Server, client: Talker) -> str:
    """Which process has the connection of that client, or takes it from its queue in a moment."""
    assert isinstance(client, Socket | Lines)
    own = (client.connection.socket if isinstance(client, Socket) else client.connection).getsockname()[1]
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for name, pid in doors(server).items():
            if any(found.raddr and found.raddr.port == own for found in psutil.Process(pid).net_connections("tcp")):
                return name
    raise AssertionError("no process has it")


@contextmanager
def held_by(server: Server, door: Door, name: str) -> Iterator[Talker]:
    """A connection that the process of that name has, which may just be starting."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with door(server) as client:
            if holder(server, client) == name:
                yield client
                return
    raise AssertionError(f"{name} gets no connections")


def other(server: Server, name: str) -> str:
    (found,) = doors(server).keys() - {name}
    return found


def begun(client: Talker, config: Message = TINY) -> Message:
    """Half of it said, and known to be there."""
    for message in [config, *PIECES[:HALF]]:
        client.say(message)
    ready = client.hear()
    assert ready is not None
    assert ready["type"] == "ready", ready
    return ready


def heard_so_far(client: Talker) -> list[Message]:
    client.say({"type": "ping"})
    heard: list[Message] = []
    while not heard or heard[-1]["type"] != "pong":
        told = client.hear()
        assert told is not None
        heard.append(told)
    return heard


def last_seq(heard: list[Message]) -> int:
    return max([told["seq"] for told in heard if "seq" in told], default=0)


def must(heard: list[Message]) -> list[Message]:
    kinds = ("speech_started", "utterance_end", "final", "marker", "finished")
    return [{**told, "seq": None} for told in heard if told["type"] in kinds]


def test_both_have_streams_and_count_as_one(server: Server) -> None:
    before = server.metric('conure_streams_ended_total{end="finished"}')
    names = list(doors(server))
    assert len(names) == 2
    with ExitStack() as stack:
        clients = [stack.enter_context(held_by(server, door, name)) for name in names for door in (socket_of, lines)]
        tokens = [begun(client)["token"] for client in clients]
        assert [f"server process {token.partition('.')[0]}" for token in tokens] == [
            names[0],
            names[0],
            names[1],
            names[1],
        ]
        assert server.health()["streams"] == server.told()["connected_streams"] == 4
        assert server.metric("conure_streams") == 4
        heard = [converse(client, [*PIECES[HALF:], CLOSE]) for client in clients]
    assert [finals(told) for told in heard] == [SAID] * 4
    assert server.metric('conure_streams_ended_total{end="finished"}') == before + 4
    status, body = server.post("/v1/transcribe", DEMO.read_bytes())
    assert (status, json.loads(body)["text"]) == (200, SAID)


def test_every_process_reports_the_metrics_of_all(server: Server) -> None:
    seconds = {server.metric(LIVE_SECONDS) for _ in range(20)}
    assert len(seconds) == 1
    assert seconds.pop() > 0
    assert server.metric('conure_step_seconds_count{model="tiny",stage="live"}') > 0
    assert server.metric('conure_capacity_streams{latency_ms="160",model="tiny"}') == next(
        model["streams"]["160"] for model in server.health()["models"] if model["live"]
    )


@pytest.mark.parametrize("door", [socket_of, lines], ids=["websocket", "tcp"])
def test_a_stream_is_resumed_through_another_process(server: Server, door: Door) -> None:
    with door(server) as client:
        uncut = converse(client, [TINY, *PIECES, CLOSE])
    with door(server) as client:
        name = holder(server, client)
        token = begun(client)["token"]
        heard = heard_so_far(client)
        client.cut()
    last = last_seq(heard)
    with held_by(server, door, other(server, name)) as client:
        client.say({"type": "resume", "token": token, "seq": last})
        ready = client.hear()
        assert ready is not None
        assert (ready["type"], ready["token"], ready["received"]) == ("ready", token, HALF * 6_400)
        client.say(PIECES[HALF])
        middle = heard_so_far(client)
        client.cut()
    last = last_seq(heard + middle)
    with held_by(server, door, name) as client:
        client.say({"type": "resume", "token": token, "seq": last})
        ready = client.hear()
        assert ready is not None
        rest = converse(client, [*pieces(DIGITS[ready["received"] :]), CLOSE])
    assert must(heard + middle + rest) == must(uncut)


def test_an_unknown_stream_is_refused(server: Server) -> None:
    for token in ("99.secret", "x.secret", f"{'9' * 40}.secret", "²."):
        with socket_of(server) as client:
            (error,) = converse(client, [{"type": "resume", "token": token, "seq": 0}])
            assert (error["type"], error["code"]) == ("error", "bad_option")
    for number in (1, 2):
        with lines(server) as client:
            (error,) = converse(client, [{"type": "resume", "token": f"{number}.secret", "seq": 0}])
            assert (error["type"], error["code"]) == ("error", "bad_option")


class Breaking:
    """Between a client and a server, and hangs up on both when it is told to."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._writers: list[asyncio.StreamWriter] = []

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._server.host, self._server.web)
        self._writers += [writer, far_writer]
        with suppress(OSError):
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
        writer.close()


def test_our_client_finds_its_stream_wherever_it_lands(server: Server) -> None:
    cuts = range(3, len(PIECES), 6)
    before = server.metric(LIVE_SECONDS)

    def heard_of_it() -> bool:
        return server.metric(LIVE_SECONDS) > before

    async def talk() -> list[Event]:
        breaking = Breaking(server)
        async with await breaking.listen() as proxy:
            address = f"ws://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
            async with Client(address).stream(model="tiny", endpointing=Endpointing(silence=1.5)) as stream:
                for number, piece in enumerate(PIECES):
                    await stream.send(piece)
                    if number in cuts:
                        await asyncio.to_thread(wait_for, heard_of_it)  # it could not be resumed before
                        breaks = stream.breaks
                        breaking.cut()
                        async with asyncio.timeout(PATIENCE):
                            while stream.breaks == breaks:
                                await asyncio.sleep(0.01)
                await stream.close()
                events = [event async for event in stream]
                assert stream.breaks == len(cuts)
        return events

    events = asyncio.run(talk())
    assert " ".join(event.text for event in events if isinstance(event, Final) and event.text) == SAID
    assert isinstance(events[-1], Finished)
    assert len({event.seq for event in events}) == len(events)


def test_a_killed_engine_takes_no_word_along(server: Server) -> None:
    restarts = server.health()["engine_restarts"]
    with ExitStack() as stack:
        clients = [stack.enter_context(held_by(server, socket_of, name)) for name in doors(server)]
        heard = []
        for client in clients:
            begun(client)
            heard.append(heard_so_far(client))
        server.kill_engine()
        wait_for(lambda: server.get("/ready")[0] == 503)
        for client, told in zip(clients, heard, strict=True):
            told += converse(client, [*PIECES[HALF:], CLOSE])
    assert [finals(told) for told in heard] == [SAID, SAID]
    wait_for(lambda: server.health()["engine_restarts"] == restarts + 1)
    assert server.metric("conure_engine_restarts") == restarts + 1


def test_a_killed_process_takes_its_own_streams_alone(server: Server) -> None:
    name = next(iter(doors(server)))
    counted, restarts = server.metric(LIVE_SECONDS), server.metric(DIED)
    with ExitStack() as stack:
        lost = [stack.enter_context(held_by(server, door, name)) for door in (socket_of, lines, socket_of)]
        kept = stack.enter_context(held_by(server, socket_of, other(server, name)))
        tokens = [begun(client)["token"] for client in lost]
        begun(kept)
        pid = doors(server)[name]
        psutil.Process(pid).kill()
        for client in lost:  # at once, and not when the next one is there
            while client.hear() is not None:
                pass
        wait_for(lambda: is_replaced(server, name))
        assert server.metric(DIED) == restarts + 1
        assert server.health()["streams"] == 1
        assert finals(converse(kept, [*PIECES[HALF:], CLOSE])) == SAID
    with socket_of(server) as client:
        (error,) = converse(client, [{"type": "resume", "token": tokens[0], "seq": 0}])
        assert (error["type"], error["code"]) == ("error", "bad_option")
    for new in doors(server):
        with held_by(server, lines, new) as client:
            assert finals(converse(client, [TINY, *PIECES, CLOSE])) == SAID
    assert server.metric(LIVE_SECONDS) > counted
    assert "died; restarting it" in server.errors


def test_a_process_that_hangs_is_replaced(cache: Path) -> None:
    """It is there, its connections are open, and nothing comes of them."""
    module = "tests.end_to_end.impatient_server"
    with started(str(TINY_MODEL), cache, "--processes", "2", module=module) as server, ExitStack() as stack:
        name = next(iter(doors(server)))
        lost = stack.enter_context(held_by(server, socket_of, name))
        kept = stack.enter_context(held_by(server, socket_of, other(server, name)))
        begun(lost)
        begun(kept)
        psutil.Process(doors(server)[name]).suspend()
        while lost.hear() is not None:
            pass
        wait_for(lambda: is_replaced(server, name))
        assert server.metric(HUNG) == 1
        assert server.metric(DIED) == server.metric("conure_server_processes_silent") == 0
        assert finals(converse(kept, [*PIECES[HALF:], CLOSE])) == SAID
        assert server.health()["engine_restarts"] == 0
        assert server.stop() == 0
        assert "does not respond" in server.errors
        assert "does not respond and is killed; restarting it" in server.errors


def test_a_stopped_parent_blocks_no_client(cache: Path) -> None:
    """Streams go on, and new ones are taken. How the server is cannot be told, and it is said so."""
    with started(str(TINY_MODEL), cache, "--processes", "2") as server, socket_of(server) as client:
        begun(client)
        server.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: psutil.Process(server.process.pid).status() == psutil.STATUS_STOPPED)
        with ThreadPoolExecutor() as threads:  # each is waited for
            line = threads.submit(server.told)
            answers = [threads.submit(server.get, path) for path in ("/health", "/metrics")]
        assert line.result()["type"] == "error"
        for status, told in (answer.result() for answer in answers):
            assert (status, json.loads(told)["error"]["code"]) == (503, "busy")
        assert server.get("/ready")[0] == 200
        assert finals(converse(client, [*PIECES[HALF:], CLOSE])) == SAID
        with lines(server) as another:
            assert finals(converse(another, [TINY, *PIECES, CLOSE])) == SAID
        before = set(server.lines)
        server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: server.get("/health")[0] == 200)
        assert server.health()["engine_restarts"] == 0
        assert len(doors(server)) == 2
        assert server.stop() == 0
        assert not [line for line in set(server.lines) - before if "kill" in line or "died" in line]


def test_open_streams_go_on_to_their_end(cache: Path) -> None:
    options = ("--processes", "2", "--drain-seconds", "600", "--resume-seconds", "600")
    with started(str(TINY_MODEL), cache, *options) as server, ExitStack() as stack:
        names = list(doors(server))
        clients = [stack.enter_context(held_by(server, socket_of, name)) for name in names]
        cut = stack.enter_context(held_by(server, socket_of, names[0]))
        token = [begun(client)["token"] for client in (*clients, cut)][-1]
        cut.cut()
        server.process.send_signal(signal.SIGTERM)
        # Each is told by itself, and any of them answers.
        wait_for(lambda: all(server.get("/ready")[0] == 503 for _ in range(16)))
        assert server.health()["status"] == "draining"
        with lines(server) as late:
            (refused,) = converse(late, [TINY])
            assert refused["code"] == "busy"
        with held_by(server, socket_of, names[1]) as again:
            again.say({"type": "resume", "token": token, "seq": 0})
            ready = again.hear()
            assert ready is not None
            heard = [converse(again, [*pieces(DIGITS[ready["received"] :]), CLOSE])]
        heard += [converse(client, [*PIECES[HALF:], CLOSE]) for client in clients]
        assert [finals(told) for told in heard] == [SAID] * 3
        assert server.wait() == 0
        assert "Traceback" not in server.errors


def test_a_second_signal_stops_at_once(cache: Path) -> None:
    with started(str(TINY_MODEL), cache, "--processes", "2", "--drain-seconds", "600") as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        with lines(server) as first, socket_of(server) as second:
            begun(first)
            begun(second)
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: server.health()["status"] == "draining")
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
        assert "Traceback" not in server.errors


@pytest.mark.parametrize("stopped", [(), ("server process 1", "engine")], ids=["all at work", "some stopped"])
def test_no_process_outlives_the_parent(stopped: tuple[str, ...], cache: Path) -> None:
    with started(str(TINY_MODEL), cache, "--processes", "2") as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert len(family) >= 3
        with socket_of(server) as client:
            begun(client)
            processes = server.health()["processes"]
            for name in stopped:
                psutil.Process(processes[name]).suspend()
            server.process.kill()
            assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []


def test_a_port_that_is_taken_is_refused(server: Server) -> None:
    ports = ["--port", str(server.web), "--tcp-port", "free", "--status-port", "free"]
    command = [sys.executable, "-m", "conure", "serve", "--model", "tiny", "--processes", "2", *ports]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode != 0
    assert f"port {server.web} is taken" in done.stderr
