"""Connections that break: whoever comes back hears what an uncut stream would have heard, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.protocols.live_clients import Client, Message, converse, finals, lines, pcm16, pieces, socket_of
from tests.protocols.servers import DEMO, PATIENCE, Server, demo, started, wait_for

Door = Callable[[Server], AbstractContextManager[Client]]
CLOSE = {"type": "close"}
DIGITS = pcm16(demo())


@pytest.fixture(scope="module")
def server(live_models: str, cache: Path) -> Iterator[Server]:
    """It waits for longer than any test takes to come back."""
    with started(live_models, cache, "--resume-seconds", str(2 * PATIENCE), "--drain-seconds", "2") as running:
        yield running
        running.settled(0)
        assert running.stop() == 0
        assert "Traceback" not in running.errors


@pytest.fixture(params=[socket_of, lines], ids=["websocket", "tcp"])
def door(request: pytest.FixtureRequest) -> Door:
    made: Door = request.param
    return made


def must(heard: list[Message]) -> list[Message]:
    """What no client may miss or hear twice, without numbers: those depend on how partials were put together."""
    kinds = ("speech_started", "utterance_end", "final", "marker", "finished")
    return [{**told, "seq": None} for told in heard if told["type"] in kinds]


def first_of(client: Client, config: Message) -> Message:
    client.say(config)
    ready = client.hear()
    assert ready is not None
    assert ready["type"] == "ready", ready
    return ready


def resumed(client: Client, token: str, seq: int) -> Message:
    return first_of(client, {"type": "resume", "token": token, "seq": seq})


def last_seq(heard: list[Message]) -> int:
    return max([told["seq"] for told in heard if "seq" in told], default=0)


@pytest.mark.parametrize("model", ["tiny", "small"])
@pytest.mark.parametrize("sent", [3, 17, 35])
def test_no_word_is_lost_or_doubled(server: Server, door: Door, model: str, sent: int) -> None:
    config = {"type": "config", "model": model, "partials": sent != 17}
    with door(server) as client:
        uncut = converse(client, [config, *pieces(DIGITS), CLOSE])
    with door(server) as client:
        token = first_of(client, config)["token"]
        for piece in pieces(DIGITS)[:sent]:
            client.say(piece)
        client.say({"type": "ping"})
        heard: list[Message] = []
        while not heard or heard[-1]["type"] != "pong":
            told = client.hear()
            assert told is not None
            heard.append(told)
        client.cut()
    with door(server) as client:
        ready = resumed(client, token, last_seq(heard))
        assert ready["received"] == sent * 6_400
        rest = converse(client, [*pieces(DIGITS[ready["received"] :]), CLOSE])
    assert all(told["seq"] > last_seq(heard) for told in rest if "seq" in told)
    assert must(heard + rest) == must(uncut)
    assert sent != 17 or not [told for told in rest if told["type"] == "partial"]


def test_who_read_nothing_hears_all_of_it_again(server: Server, door: Door) -> None:
    config = {"type": "config", "model": "tiny"}
    with door(server) as client:
        uncut = converse(client, [config, *pieces(DIGITS), CLOSE])
    with door(server) as client:
        token = first_of(client, config)["token"]
        for message in [*pieces(DIGITS), CLOSE]:
            client.say(message)
        while (told := client.hear()) is not None and told["type"] != "finished":
            pass
        client.cut()
    for _ in range(2):  # what was sent may not have come
        with door(server) as client:
            resumed(client, token, 0)
            assert must(converse(client, [])) == must(uncut)
    with door(server) as client:
        resumed(client, token, uncut_seq(server, door, token))
        assert converse(client, []) == []


def uncut_seq(server: Server, door: Door, token: str) -> int:
    with door(server) as client:
        resumed(client, token, 0)
        return last_seq(converse(client, []))


def test_a_container_goes_on_where_it_was_cut(server: Server, door: Door) -> None:
    data = DEMO.read_bytes()
    config = {"type": "config", "model": "tiny", "encoding": "flac"}
    with door(server) as client:
        token = first_of(client, config)["token"]
        for piece in pieces(data[: len(data) // 2], 2_000):
            client.say(piece)
        client.cut()
    with door(server) as client:
        ready = resumed(client, token, 0)
        heard = converse(client, [*pieces(data[ready["received"] :], 2_000), CLOSE])
    with door(server) as client:
        uncut = converse(client, [config, *pieces(data, 2_000), CLOSE])
    assert must(heard) == must(uncut)
    assert finals(heard)


def test_the_later_connection_has_the_stream(server: Server, door: Door) -> None:
    with door(server) as first:
        token = first_of(first, {"type": "config", "model": "tiny"})["token"]
        for piece in pieces(DIGITS)[:10]:
            first.say(piece)
        first.say({"type": "ping"})
        while (told := first.hear()) is not None and told["type"] != "pong":
            pass
        with door(server) as second:
            ready = resumed(second, token, 0)
            left = converse(first, [])
            assert [told["code"] for told in left if told["type"] == "error"] == ["displaced"]
            heard = converse(second, [*pieces(DIGITS[ready["received"] :]), CLOSE])
    with door(server) as client:
        assert must(heard) == must(converse(client, [{"type": "config", "model": "tiny"}, *pieces(DIGITS), CLOSE]))


@pytest.mark.parametrize(("token", "seq"), [("wrong", 0), (None, 1000), (None, -1)])
def test_what_is_not_there_is_not_resumed(server: Server, door: Door, token: str | None, seq: int) -> None:
    with door(server) as client:
        there = first_of(client, {"type": "config", "model": "tiny"})["token"]
        with door(server) as other:
            (error,) = converse(other, [{"type": "resume", "token": token or there, "seq": seq}])
            assert (error["type"], error["code"]) == ("error", "bad_option")
        assert converse(client, [CLOSE])[-1]["type"] == "finished"


def test_who_stays_away_too_long_is_forgotten(digits_server: Server, door: Door) -> None:
    server = digits_server
    with door(server) as client:
        token = first_of(client, {"type": "config", "model": "tiny"})["token"]
        client.say(DIGITS)
        client.say({"type": "ping"})
        while (told := client.hear()) is not None and told["type"] != "pong":
            pass
        client.cut()
    wait_for(lambda: server.health()["streams"] == 0)
    with door(server) as client:
        (error,) = converse(client, [{"type": "resume", "token": token, "seq": 0}])
    assert error["code"] == "bad_option"


def test_who_cannot_come_back_is_not_waited_for(server: Server, door: Door) -> None:
    with door(server) as client:
        client.say(DIGITS)
        wait_for(lambda: server.health()["streams"] == 1)
        client.cut()
        wait_for(lambda: server.health()["streams"] == 0)
