"""A paced client with a scripted server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve

from conure.bench.paced_stream import PacedStream, PacedStreamSettings, StreamResult

PACKET_MS = 20
PCM = bytes(range(256)) * 25
"""Ten packets."""
SIZE = 640
END_OF_UTTERANCE = {"type": "utterance_end", "utterance": 1, "at": 0.15, "reason": "silence"}


class FakeServer:
    """Answers packets with the messages scripted for their number; keeps what it received."""

    def __init__(self, answers: dict[int, list[dict[str, object]]], keeps: int | None = None) -> None:
        self.answers = answers
        self.messages: list[dict[str, object]] = []
        self.audio = b""
        self._keeps = keeps
        """Number of packets that survive a lost connection."""

    async def __call__(self, socket: ServerConnection) -> None:
        async for message in socket:
            for answer in self._handle_message(message):
                await socket.send(json.dumps({"seq": 7} | answer))
                if answer["type"] in ("finished", "failed", "cancelled"):
                    return

    def _handle_message(self, message: str | bytes) -> list[dict[str, object]]:
        if isinstance(message, bytes):
            self.audio += message
            return self.answers.get(len(self.audio) // SIZE, [])
        self.messages.append(json.loads(message))
        return self._answers(self.messages[-1])

    def _answers(self, messages: dict[str, object]) -> list[dict[str, object]]:
        match messages["type"]:
            case "config":
                return [self._ready(0)]
            case "resume":
                assert self._keeps is not None
                self.audio = self.audio[: self._keeps * SIZE]
                return [self._ready(len(self.audio))]
            case "finalize":
                return [final("that was all"), {"type": "marker", "id": messages["id"]}]
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


def run_stream(server: FakeServer, talk: Callable[[PacedStream], Awaitable[object]]) -> StreamResult:
    async def run() -> StreamResult:
        async with serve(server, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            stream = PacedStream(PacedStreamSettings(f"ws://127.0.0.1:{port}/v1/stream", 160, "m", PACKET_MS), PCM)
            await stream.open()
            await talk(stream)
            return stream.result

    return asyncio.run(run())


async def send_all(stream: PacedStream) -> None:
    await stream.send_paced(time.monotonic())
    await stream.finish()


def test_results() -> None:
    server = FakeServer(
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
    result = run_stream(server, send_all)
    assert result.is_whole
    assert result.words == ["so", "it", "goes", "that", "was", "all"]
    assert (len(result.lags), result.unchanged_partials, result.reported_lags) == (2, 1, [0.125])
    assert len(result.first_words) == 1
    assert all(lag > 0 for lag in (*result.lags, *result.first_words, result.final or 0))
    assert result.lags[0] < result.first_words[0]
    assert result.sent == pytest.approx(0.2)
    assert server.audio == PCM
    config = {"type": "config", "model": "m", "latency_ms": 160, "lag": True, "words": False}
    assert server.messages == [config, {"type": "finalize", "id": 1}, {"type": "close"}]


def test_resumes_after_the_audio_of_the_server() -> None:
    async def reconnect(stream: PacedStream) -> None:
        await stream.send_paced(time.monotonic(), 6)
        while not stream._seq:  # the partial is still on its way
            await asyncio.sleep(0.001)
        await stream.disconnect()
        await stream.resume()
        await stream.send_paced(time.monotonic())
        await stream.finish()

    server = FakeServer({3: [partial(0.04)]}, keeps=4)
    result = run_stream(server, reconnect)
    assert result.is_whole
    assert server.audio == PCM
    assert result.sent == pytest.approx(0.2)
    assert {"type": "resume", "token": "a token", "seq": 7} in server.messages


def test_a_failed_stream_stops_sending() -> None:
    result = run_stream(FakeServer({3: [{"type": "failed", "code": "busy", "message": "no room"}]}), send_all)
    assert result.end == "busy: no room"
    assert not result.is_whole


def test_a_stream_may_be_cancelled() -> None:
    assert run_stream(FakeServer({}), PacedStream.cancel).end == "cancelled"
