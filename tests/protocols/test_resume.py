"""Broken connections: a resumed stream has the same events as an uninterrupted one, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.protocols.live_clients import Client, Message, converse, finals, lines, pcm16, pieces, socket_of
from tests.protocols.servers import DEMO, PATIENCE, Server, demo, started, wait_for

OpenClient = Callable[[Server], AbstractContextManager[Client]]
CLOSE = {"type": "close"}
DIGITS = pcm16(demo())


@pytest.fixture(scope="module")
def server(live_models: str, cache: Path) -> Iterator[Server]:
    """With a resume timeout longer than any test."""
    with started(live_models, cache, "--resume-seconds", str(2 * PATIENCE), "--drain-seconds", "2") as running:
        yield running
        running.settled(0)
        assert running.stop() == 0
        assert "Traceback" not in running.errors


@pytest.fixture(params=[socket_of, lines], ids=["websocket", "tcp"])
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    made: OpenClient = request.param
    return made


def required_events(received: list[Message]) -> list[Message]:
    """Events that must arrive exactly once, without `seq`, which depends on how partials were merged."""
    kinds = ("speech_started", "utterance_end", "final", "marker", "finished")
    return [{**message, "seq": None} for message in received if message["type"] in kinds]


def open_stream(client: Client, config: Message) -> Message:
    client.say(config)
    ready = client.hear()
    assert ready is not None
    assert ready["type"] == "ready", ready
    return ready


def resume(client: Client, token: str, seq: int) -> Message:
    return open_stream(client, {"type": "resume", "token": token, "seq": seq})


def last_seq(received: list[Message]) -> int:
    return max([message["seq"] for message in received if "seq" in message], default=0)


@pytest.mark.parametrize("model", ["tiny", "small"])
@pytest.mark.parametrize("sent", [3, 17, 35])
def test_no_word_is_lost_or_repeated(server: Server, open_client: OpenClient, model: str, sent: int) -> None:
    config = {"type": "config", "model": model, "partials": sent != 17}
    with open_client(server) as client:
        uncut = converse(client, [config, *pieces(DIGITS), CLOSE])
    with open_client(server) as client:
        token = open_stream(client, config)["token"]
        for piece in pieces(DIGITS)[:sent]:
            client.say(piece)
        client.say({"type": "ping"})
        received: list[Message] = []
        while not received or received[-1]["type"] != "pong":
            message = client.hear()
            assert message is not None
            received.append(message)
        client.cut()
    with open_client(server) as client:
        ready = resume(client, token, last_seq(received))
        assert ready["received"] == sent * 6_400
        rest = converse(client, [*pieces(DIGITS[ready["received"] :]), CLOSE])
    assert all(message["seq"] > last_seq(received) for message in rest if "seq" in message)
    assert required_events(received + rest) == required_events(uncut)
    assert sent != 17 or not [message for message in rest if message["type"] == "partial"]


def test_all_events_are_sent_again(server: Server, open_client: OpenClient) -> None:
    config = {"type": "config", "model": "tiny"}
    with open_client(server) as client:
        uncut = converse(client, [config, *pieces(DIGITS), CLOSE])
    with open_client(server) as client:
        token = open_stream(client, config)["token"]
        for message in [*pieces(DIGITS), CLOSE]:
            client.say(message)
        while (response := client.hear()) is not None and response["type"] != "finished":
            pass
        client.cut()
    for _ in range(2):  # the first events may have been lost
        with open_client(server) as client:
            resume(client, token, 0)
            assert required_events(converse(client, [])) == required_events(uncut)
    with open_client(server) as client:
        resume(client, token, final_seq(server, open_client, token))
        assert converse(client, []) == []


def final_seq(server: Server, open_client: OpenClient, token: str) -> int:
    with open_client(server) as client:
        resume(client, token, 0)
        return last_seq(converse(client, []))


def test_container_continues_after_a_break(server: Server, open_client: OpenClient) -> None:
    data = DEMO.read_bytes()
    config = {"type": "config", "model": "tiny", "encoding": "flac"}
    with open_client(server) as client:
        token = open_stream(client, config)["token"]
        for piece in pieces(data[: len(data) // 2], 2_000):
            client.say(piece)
        client.cut()
    with open_client(server) as client:
        ready = resume(client, token, 0)
        received = converse(client, [*pieces(data[ready["received"] :], 2_000), CLOSE])
    with open_client(server) as client:
        uncut = converse(client, [config, *pieces(data, 2_000), CLOSE])
    assert required_events(received) == required_events(uncut)
    assert finals(received)


def test_later_connection_displaces_the_earlier(server: Server, open_client: OpenClient) -> None:
    with open_client(server) as first:
        token = open_stream(first, {"type": "config", "model": "tiny"})["token"]
        for piece in pieces(DIGITS)[:10]:
            first.say(piece)
        first.say({"type": "ping"})
        while (message := first.hear()) is not None and message["type"] != "pong":
            pass
        with open_client(server) as second:
            ready = resume(second, token, 0)
            left = converse(first, [])
            assert [message["code"] for message in left if message["type"] == "error"] == ["displaced"]
            received = converse(second, [*pieces(DIGITS[ready["received"] :]), CLOSE])
    with open_client(server) as client:
        assert required_events(received) == required_events(
            converse(client, [{"type": "config", "model": "tiny"}, *pieces(DIGITS), CLOSE])
        )


@pytest.mark.parametrize(("token", "seq"), [("wrong", 0), (None, 1000), (None, -1)])
def test_resume_of_an_unknown_stream(server: Server, open_client: OpenClient, token: str | None, seq: int) -> None:
    with open_client(server) as client:
        there = open_stream(client, {"type": "config", "model": "tiny"})["token"]
        with open_client(server) as other:
            (error,) = converse(other, [{"type": "resume", "token": token or there, "seq": seq}])
            assert (error["type"], error["code"]) == ("error", "bad_option")
        assert converse(client, [CLOSE])[-1]["type"] == "finished"


def test_stream_expires(digits_server: Server, open_client: OpenClient) -> None:
    server = digits_server
    with open_client(server) as client:
        token = open_stream(client, {"type": "config", "model": "tiny"})["token"]
        client.say(DIGITS)
        client.say({"type": "ping"})
        while (message := client.hear()) is not None and message["type"] != "pong":
            pass
        client.cut()
    wait_for(lambda: server.health()["streams"] == 0)
    with open_client(server) as client:
        (error,) = converse(client, [{"type": "resume", "token": token, "seq": 0}])
    assert error["code"] == "bad_option"


def test_stream_without_token_ends_with_its_connection(server: Server, open_client: OpenClient) -> None:
    with open_client(server) as client:
        client.say(DIGITS)
        wait_for(lambda: server.health()["streams"] == 1)
        client.cut()
        wait_for(lambda: server.health()["streams"] == 0)
