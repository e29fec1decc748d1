"""A paced client against a server that says what it is told to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve

from conure.bench.paced_stream import Notes, PacedStream, PacedStreamSettings

PACKET_MS = 20
PCM = bytes(range(256)) * 25
"""Ten packets."""
SIZE = 640
END_OF_UTTERANCE = {"type": "utterance_end", "utterance": 1, "at": 0.15, "reason": "silence"}


class Pretender:
    """Answers each packet with what its number calls for; keeps what came."""

    def __init__(self, answers: dict[int, list[dict[str, object]]], keeps: int | None = None) -> None:
        self.answers = answers
        self.said: list[dict[str, object]] = []
        self.audio = b""
        self._keeps = keeps
        """Packets it has after a connection broke."""

    async def __call__(self, socket: ServerConnection) -> None:
        async for message in socket:
            for answer in self._take(message):
                await socket.send(json.dumps({"seq": 7} | answer))
                if answer["type"] in ("finished", "failed", "cancelled"):
                    return

    def _take(self, message: str | bytes) -> list[dict[str, object]]:
        if isinstance(message, bytes):
            self.audio += message
            return self.answers.get(len(self.audio) // SIZE, [])
        self.said.append(json.loads(message))
        return self._answers(self.said[-1])

    def _answers(self, said: dict[str, object]) -> list[dict[str, object]]:
        match said["type"]:
            case "config":
                return [self._ready(0)]
            case "resume":
                assert self._keeps is not None
                self.audio = self.audio[: self._keeps * SIZE]
                return [self._ready(len(self.audio))]
            case "finalize":
                return [final("that was all"), {"type": "marker", "id": said["id"]}]
            case "cancel":
                return [{"type": "cancelled"}]
        return [{"type": "finished", "seconds": 0.2}]

    def _ready(self, received: int) -> dict[str, object]:
        facts = {"token": "a token", "model": "m", "latency_ms": 160, "resume_seconds": 5, "received": received}
        return {"type": "ready", "stream_id": 1} | facts


def final(text: str) -> dict[str, object]:
    return {"type": "final", "utterance": 1, "text": text, "start": 0, "end": 1, "reason": "asked", "model": "m"}


def partial(until: float, text: str = "so") -> dict[str, object]:
    return {"type": "partial", "utterance": 1, "stable": "", "tail": text, "until": until}


def speak(server: Pretender, talk: Callable[[PacedStream], Awaitable[object]]) -> Notes:
    async def run() -> Notes:
        async with serve(server, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            stream = PacedStream(PacedStreamSettings(f"ws://127.0.0.1:{port}/v1/stream", 160, "m", PACKET_MS), PCM)
            await stream.open()
            await talk(stream)
            return stream.notes

    return asyncio.run(run())


async def all_of_it(stream: PacedStream) -> None:
    await stream.speak(time.monotonic())
    await stream.finish()


def test_what_was_heard_is_noted() -> None:
    server = Pretender(
        {
            2: [{"type": "speech_started", "utterance": 1, "at": 0.01}, {"type": "lag", "seconds": 0.125}],
            4: [partial(0.06), partial(0.06, "so it")],
            8: [
                partial(0.14),
                partial(0.15),
                END_OF_UTTERANCE,
            ],
            9: [final("so it goes")],
        }
    )
    notes = speak(server, all_of_it)
    assert notes.is_whole
    assert notes.words == ["so", "it", "goes", "that", "was", "all"]
    assert (len(notes.lags), notes.guesses, notes.told_lags) == (2, 1, [0.125])
    assert len(notes.first_words) == 1
    assert all(lag > 0 for lag in (*notes.lags, *notes.first_words, notes.final or 0))
    assert notes.lags[0] < notes.first_words[0]
    assert notes.sent == pytest.approx(0.2)
    assert server.audio == PCM
    config = {"type": "config", "model": "m", "latency_ms": 160, "lag": True, "words": False}
    assert server.said == [config, {"type": "finalize", "id": 1}, {"type": "close"}]


def test_it_comes_back_and_goes_on_after_what_the_server_has() -> None:
    async def break_off(stream: PacedStream) -> None:
        await stream.speak(time.monotonic(), 6)
        while not stream._seq:  # the partial is still on its way
            await asyncio.sleep(0.001)
        await stream.drop()
        await stream.resume()
        await stream.speak(time.monotonic())
        await stream.finish()

    server = Pretender({3: [partial(0.04)]}, keeps=4)
    notes = speak(server, break_off)
    assert notes.is_whole
    assert server.audio == PCM
    assert notes.sent == pytest.approx(0.2)
    assert {"type": "resume", "token": "a token", "seq": 7} in server.said


def test_a_stream_that_fails_says_nothing_more() -> None:
    notes = speak(Pretender({3: [{"type": "failed", "code": "busy", "message": "no room"}]}), all_of_it)
    assert notes.end == "busy: no room"
    assert not notes.is_whole


def test_a_stream_may_be_cancelled() -> None:
    assert speak(Pretender({}), PacedStream.cancel).end == "cancelled"
