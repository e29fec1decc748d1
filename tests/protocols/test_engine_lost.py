"""The engine is killed while it works: every stream and recording has the same result as without the crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

import numpy as np

from tests.protocols.live_clients import TINY, Client, Message, converse, finals, lines, pcm16, pieces, socket_of
from tests.protocols.servers import MOST_UPLOAD, SAID, Server, demo, wait_for
from tests.protocols.test_native_streams import in_container

DIGITS = pcm16(demo())
HALF = len(pieces(DIGITS)) // 2
CLOSE = {"type": "close"}
NEVER = {"silence": None, "end_token": None, "blanks": None, "longest": None}
COPIES = 20
Talk = tuple[Callable[[Server], AbstractContextManager[Client]], Message]
TALKS: list[Talk] = [
    (socket_of, TINY),
    (lines, TINY | {"events": False}),
    (lines, {"type": "config", "model": "small", "events": False, "endpointing": NEVER}),
    (socket_of, TINY | {"finals": {"model": "tiny", "budget_ms": 60000}}),
]


def text_of(received: list[Message]) -> str:
    last = received[-1]
    assert last["type"] == "finished" or last.get("is_final"), last
    return last["text"] if last["type"] == "result" else finals(received)


def tokens_of(received: list[Message]) -> list[int]:
    return [token for message in received if message["type"] == "result" for token in message["token_ids"]]


def uninterrupted(server: Server, talk: Talk) -> list[Message]:
    door, config = talk
    with door(server) as client:
        return converse(client, [config, *pieces(DIGITS)[:HALF], {"type": "ping"}, *pieces(DIGITS)[HALF:], CLOSE])


def test_killed_engine_loses_no_words(server: Server) -> None:
    expected = [uninterrupted(server, talk) for talk in TALKS]
    long = in_container(np.tile(demo(), COPIES), "wav", "pcm_s16le", 16_000)[:MOST_UPLOAD]
    long_text = json.loads(server.post("/v1/transcribe", long)[1])["text"]
    restarts = server.health()["engine_restarts"]
    with ExitStack() as stack, ThreadPoolExecutor(1) as uploads:
        clients = [stack.enter_context(door(server)) for door, _ in TALKS]
        for client, (_, config) in zip(clients, TALKS, strict=True):
            for message in [config, *pieces(DIGITS)[:HALF], {"type": "ping"}]:
                client.say(message)
        received: list[list[Message]] = [[] for _ in clients]
        for client, response in zip(clients, received, strict=True):
            while not response or response[-1]["type"] != "pong":
                sent = client.hear()
                assert sent is not None
                response.append(sent)
        upload = uploads.submit(server.post, "/v1/transcribe", long)
        server.kill_engine()
        wait_for(lambda: server.get("/ready")[0] == 503)
        with lines(server) as late:
            (refused,) = converse(late, [{"type": "config"}])
            assert refused["code"] == "busy"
            assert refused["retry_after"]
        for client, response in zip(clients, received, strict=True):
            response += converse(client, [*pieces(DIGITS)[HALF:], CLOSE])
        code, body = upload.result()
    assert server.get("/ready")[0] == 200
    assert server.health()["engine_restarts"] == restarts + 1
    assert server.metric("conure_engine_restarts") == restarts + 1
    assert [text_of(response) for response in received] == [text_of(response) for response in expected]
    assert text_of(received[0]) == SAID
    assert [tokens_of(response) for response in received] == [tokens_of(response) for response in expected]
    assert (code, json.loads(body)["text"]) == (200, long_text)
