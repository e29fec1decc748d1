"""A server that is stopped: open streams finish, new ones are refused, and the exit code is 0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import connect

from tests.protocols.live_clients import TINY, Client, Message, converse, finals, lines, pcm16, pieces, socket_of
from tests.protocols.servers import DEMO, PATIENCE, SAID, TINY_MODEL, Server, demo, started, wait_for

DIGITS = pcm16(demo())
HALF = len(pieces(DIGITS)) // 2


def begun(client: Client) -> Message:
    """Half of it said."""
    for message in [TINY, *pieces(DIGITS)[:HALF]]:
        client.say(message)
    ready = client.hear()
    assert ready is not None
    return ready


def told_to_stop(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: server.health()["status"] == "draining")


def refused(server: Server) -> list[str]:
    """What newcomers are told on each door."""
    codes = []
    for door in (socket_of, lines):
        with door(server) as client:
            codes += [told["code"] for told in converse(client, [TINY])]
    with connect(server.url("/ws"), compression=None, open_timeout=PATIENCE) as connection:
        codes.append(json.loads(connection.recv(PATIENCE))["code"])
    status, body = server.post("/v1/transcribe", DEMO.read_bytes())
    assert status == 503
    codes.append(json.loads(body)["error"]["code"])
    return codes


def test_open_streams_go_on_to_their_end(cache: Path) -> None:
    with started(str(TINY_MODEL), cache, "--drain-seconds", "600", "--resume-seconds", "600") as server:
        with lines(server) as first, socket_of(server) as second, socket_of(server) as cut:
            begun(first)
            begun(second)
            token = begun(cut)["token"]
            told_to_stop(server)
            cut.cut()
            assert server.get("/ready")[0] == 503
            assert refused(server) == ["busy"] * 4
            with socket_of(server) as again:
                again.say({"type": "resume", "token": token})
                ready = again.hear()
                assert ready is not None
                rest = pieces(DIGITS[ready["received"] :])
                heard = [converse(again, [*rest, {"type": "close"}])]
            heard += [converse(client, [*pieces(DIGITS)[HALF:], {"type": "close"}]) for client in (first, second)]
            assert [finals(told) for told in heard] == [SAID] * 3
            assert {told[-1]["type"] for told in heard} == {"finished"}
        assert server.wait() == 0
        assert "Traceback" not in server.errors


def test_streams_that_exceed_the_drain_time_get_an_error(cache: Path) -> None:
    with started(str(TINY_MODEL), cache, "--drain-seconds", "0.5") as server:
        with lines(server) as first, socket_of(server) as second:
            begun(first)
            begun(second)
            server.process.send_signal(signal.SIGTERM)
            for client in (first, second):
                last = converse(client, [])[-1]
                assert (last["type"], last["code"]) == ("failed", "server_stopped")
                assert last["retry_after"]
        assert server.wait() == 0
        assert "Traceback" not in server.errors


def test_a_second_signal_stops_at_once(cache: Path) -> None:
    with started(str(TINY_MODEL), cache, "--drain-seconds", "600") as server:
        with lines(server) as first, socket_of(server) as second:
            begun(first)
            begun(second)
            told_to_stop(server)
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0
        assert "Traceback" not in server.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["one process", "two processes"])
def test_all_of_its_processes_end_in_good_order(cache: Path, options: tuple[str, ...], number: int) -> None:
    """After both kinds of work; nobody has anything to say of it, and Ctrl-C comes to all of them."""
    with started(str(TINY_MODEL), cache, *options) as server:
        with lines(server) as client:
            assert finals(converse(client, [TINY, *pieces(DIGITS), {"type": "close"}])) == SAID
        assert server.post("/v1/transcribe", DEMO.read_bytes())[0] == 200
        family = psutil.Process(server.process.pid).children(recursive=True)
        said = len(server.lines)
        for process in family if number == signal.SIGINT else ():
            process.send_signal(number)
        server.process.send_signal(number)
        assert server.wait() == 0
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
        rest = server.lines[said:]
    assert [line for line in rest if "stopping: 0 streams are open" not in line] == []


def test_another_end_of_an_engine_is_reported(cache: Path) -> None:
    with started(str(TINY_MODEL), cache) as server:
        server.engine().suspend()
        assert server.stop() == 0
        assert "the engine did not end in good order: killed by SIGKILL" in server.errors


LIBRARY = """
import sys
import conure
print(conure.load("tiny").transcribe(sys.argv[1]).text)
"""


@pytest.mark.parametrize(
    "command", [["-m", "conure", "transcribe", "--model", "tiny"], ["-c", LIBRARY]], ids=["command", "library"]
)
def test_programs_that_transcribe_end_without_a_word(cache: Path, command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command, str(DEMO)],
        env=os.environ | {"CONURE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, SAID, "")
