"""Python's time per packet in the server process, by stage, and the resulting number of streams per core.

    python -m bench.packets [--packets-ms 20 100] [--latency 160] [--streams 50] [--rounds 40] [--json FILE]

    queued        uvicorn, websockets and starlette: from a socket to a message in an empty application
    socket        the same with the server's fast path for binary audio, which the following stages use too
    conversation  the native protocol
    intake        bytes to samples
    session       replay backlog, arrival times, metrics
    bytes         the request to shared memory and msgpack
    answer        the way back: msgpack, session, event log, a partial in JSON; without the socket
    whole         everything with sockets, including answers; for comparison with the sum

A stand-in for the engine answers each chunk with a word; its own time is not counted. Times are CPU times of the event
loop's thread, so other programs hardly affect them. Clients run in a process of their own. The rate of packets is the
same for all sizes, since wake-ups of the loop are a part of the cost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from msgspec import msgpack
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect

from conure.audio.formats import AudioFormat
from conure.bench.machine import machine
from conure.bench.sample_speech import read_voices, sample_recording
from conure.cli.tables import table
from conure.client import protocol
from conure.constants import SAMPLE_RATE
from conure.engine.client import EngineClient
from conure.engine.ipc.frames import encode_frame
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.transport import RING_SAMPLES
from conure.engine.ipc.wire import RequestDecoder, RequestEncoder, message_decoder
from conure.engine.messages import (
    Audio,
    Close,
    EngineEvent,
    Finished,
    Open,
    Ping,
    Pong,
    Request,
    SpeechStarted,
    StreamEvent,
    StreamOpened,
    StreamTokens,
)
from conure.engine.plan import ModelInfo
from conure.event_loop import new_event_loop
from conure.protocols.http.uvicorn_websocket import DIRECT_AUDIO, SET_RECEIVER, DirectWebSocket
from conure.protocols.native.connection import NativeConnection
from conure.protocols.native.websocket import stream_socket
from conure.protocols.services import Services
from conure.server import LONGEST_MESSAGE
from conure.service.access import AnonymousAccess
from conure.service.file_service import FileService
from conure.service.live_service import LiveService, StreamRequest
from conure.service.model_directory import ModelDirectory
from conure.service.status import ProcessStatus
from conure.service.stream_decoder import StreamAudioDecoder
from conure.service.tokenizer_cache import TokenizerCache
from conure.types import Token

TOKENIZER = Path(__file__).parents[1] / "src" / "conure" / "data" / "tiny" / "tokenizer.model"
MODEL, VOCABULARY = "stand-in", 384
LATENCIES = (80, 160, 320, 560, 1120)
PACKETS = 3000
"""Packets per second, over sockets."""
SECONDS = 6.0
"""Duration of measurements over sockets."""


class StandIn:
    """An engine transport with the real message format; answers each chunk with a word and measures its own time."""

    def __init__(self, latency_ms: int) -> None:
        self.chunk = SAMPLE_RATE * latency_ms // 1000
        self.engine_seconds = 0.0
        """CPU seconds of the engine's part."""
        self.answers = 0
        self._ring = SampleRing.create(RING_SAMPLES)
        self._writer, self._reader = RequestEncoder(self._ring), RequestDecoder(self._ring)
        self._encoder, self._decoder = msgpack.Encoder(), message_decoder()
        self._queued_answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._received: dict[int, int] = {}

    async def start(self) -> tuple[ModelInfo, ...]:
        model_info = ModelInfo(
            MODEL,
            MODEL,
            TOKENIZER.name,
            TOKENIZER.read_bytes(),
            VOCABULARY,
            latencies=LATENCIES,
            capacity=(1,) * len(LATENCIES),
        )
        return (model_info,)

    async def send(self, requests: list[Request]) -> None:
        payload = encode_frame(self._writer.encode(requests))
        begin = time.thread_time()
        answers = [answer for request in self._reader.decode(payload[4:]) for answer in self._answer(request)]
        if answers:
            self._queued_answers.put_nowait(self._encoder.encode(answers))
        self.engine_seconds += time.thread_time() - begin

    async def receive(self) -> list[StreamEvent | EngineEvent]:
        return self._decoder.decode(await self._queued_answers.get())  # type: ignore[return-value]

    async def stop(self) -> None:
        self._ring.close()

    def kill(self) -> None:
        raise NotImplementedError

    def _answer(self, request: Request) -> Iterator[StreamEvent | EngineEvent]:
        match request:
            case Open(stream):
                self._received[stream] = 0
                yield StreamOpened(stream)
                yield SpeechStarted(stream, 0.0)
            case Audio(stream, samples):
                before = self._received[stream]
                self._received[stream] = after = before + len(samples)
                if after // self.chunk > before // self.chunk:
                    self.answers += 1
                    yield word(stream, after // self.chunk * self.chunk / SAMPLE_RATE)
            case Close(stream):
                yield Finished(stream)
            case Ping(number):
                yield Pong(number)


def word(stream: int, until: float) -> StreamTokens:
    return StreamTokens(stream, (Token(7, round(until - 0.08, 3), until),), until)


def main() -> None:
    options = _parser().parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as loop:
        found = {size: loop.run(_measure(size, options)) for size in options.packets_ms}
    print(f"{machine()['processor']}, {machine()['cores']} cores; microseconds of one core")
    print(_table(found, options.latency), end="")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "latency_ms": options.latency, "us": found}) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets-ms", type=int, nargs="*", default=[20, 100])
    parser.add_argument("--latency", type=int, default=160, help="milliseconds between answers")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    return parser


async def _measure(packet_ms: int, options: argparse.Namespace) -> dict[str, float]:
    """Microseconds of each stage: per packet, `answer` per answer."""
    (pcm,) = read_voices(sample_recording(), 1.0, 1)
    packet = pcm[: 2 * SAMPLE_RATE * packet_ms // 1000]
    found = await _stages(packet, options)
    found["queued"] = await _at_sockets(_empty(), packet_ms, options.streams)
    found["socket"] = await _at_sockets(_empty(), packet_ms, options.streams, ws=DirectWebSocket)
    async with service(options.latency) as (live, stand_in):
        app = FastAPI()
        app.include_router(
            stream_socket(Services(live, FileService(live.engine, TokenizerCache()), ProcessStatus(live)))
        )
        found["whole"] = await _at_sockets(app, packet_ms, options.streams, stand_in, DirectWebSocket)
    return found


@contextlib.asynccontextmanager
async def service(latency: int) -> Any:
    stand_in = StandIn(latency)
    handle = EngineClient(stand_in)
    await handle.start()
    try:
        yield LiveService(handle, ModelDirectory(handle, (MODEL,), ()), TokenizerCache()), stand_in
    finally:
        await handle.stop()


async def _stages(packet: bytes, options: argparse.Namespace) -> dict[str, float]:
    """Stages are measured together with those that follow, whose time is then subtracted."""
    intake = StreamAudioDecoder(AudioFormat())
    samples = await intake.decode(packet)
    async with service(options.latency) as (live, stand_in):
        streams = [
            await live.open_stream(StreamRequest(latency_ms=options.latency), AudioFormat())
            for _ in range(options.streams)
        ]
        connections = [await _open_connection(live, options.latency) for _ in range(options.streams)]
        numbers = [stream.session._number for stream in streams]
        handle = live.engine
        decoded = await _rounds(options, stand_in, [lambda: _now(intake.decode_now, packet)] * options.streams)
        sent = await _rounds(options, stand_in, [lambda n=n: _ask(handle, n, samples) for n in numbers])
        pushed = await _rounds(
            options, stand_in, [lambda s=s: _now(s.session.push_audio_now, samples) for s in streams]
        )
        received = await _rounds(options, stand_in, [lambda t=t: _push_audio(t, packet) for t in connections])
        opened = [connection._stream for connection in connections if connection._stream]
        answer = await _answers(options, live, [stream.session._number for stream in opened])
        for connection in connections:
            connection.disconnect()
    return {
        "conversation": received - pushed - decoded,
        "intake": decoded,
        "session": pushed - sent,
        "bytes": sent,
        "answer": answer,
    }


async def _now(call: Callable[[Any], Any], given: Any) -> None:
    call(given)


async def _push_audio(connection: NativeConnection, packet: bytes) -> None:
    """As the WebSocket does: synchronously unless a receipt is due."""
    if not connection.try_push_audio(packet):
        await connection.handle_message(packet)


async def _ask(handle: EngineClient, number: int, samples: Any) -> None:
    handle.send(Audio(number, samples))


async def _open_connection(live: LiveService, latency: int) -> NativeConnection:
    encoder = msgpack.Encoder()

    async def send(message: protocol.FromServer) -> None:
        encoder.encode(message)

    connection = NativeConnection(live, AnonymousAccess(), send)
    await connection.handle_message(protocol.Config(latency_ms=latency))
    connection.event_sender = asyncio.create_task(connection.send_events())  # type: ignore[attr-defined]
    return connection


async def _rounds(options: argparse.Namespace, stand_in: StandIn, calls: list[Callable[[], Awaitable[Any]]]) -> float:
    """Median microseconds of a call. Requests are sent between rounds, as in the server.

    Answers are received in between and not counted.
    """
    spent = []
    for _ in range(options.rounds):
        engine_seconds, begin = stand_in.engine_seconds, time.thread_time()
        for call in calls:
            await call()
        await asyncio.sleep(0)
        spent.append(time.thread_time() - begin - (stand_in.engine_seconds - engine_seconds))
        await asyncio.sleep(0.002)
    return statistics.median(spent) / len(calls) * 1e6


async def _answers(options: argparse.Namespace, live: LiveService, numbers: list[int]) -> float:
    """Microseconds of an answer with a word, up to its encoded partial."""
    encoder, decoder, spent = msgpack.Encoder(), message_decoder(), []
    for turn in range(options.rounds):
        payload = encoder.encode([word(number, 1000.0 + turn) for number in numbers])
        begin = time.thread_time()
        for answer in decoder.decode(payload):
            live.engine._take(answer)  # type: ignore[arg-type]
        for _ in range(3):
            await asyncio.sleep(0)
        spent.append(time.thread_time() - begin)
    return statistics.median(spent) / len(numbers) * 1e6


def _empty() -> FastAPI:
    """An application that discards all messages."""
    app = FastAPI()

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        if direct := socket.scope["extensions"].get(DIRECT_AUDIO):
            direct[SET_RECEIVER](lambda data: True)
        with contextlib.suppress(WebSocketDisconnect):
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass

    return app


async def _at_sockets(
    app: FastAPI, packet_ms: int, streams: int, stand_in: StandIn | None = None, ws: Any = WebSocketsSansIOProtocol
) -> float:
    """Microseconds of this thread per packet, while clients send audio."""
    config = uvicorn.Config(
        app, port=0, log_config=None, access_log=False, lifespan="off", ws_max_size=LONGEST_MESSAGE,
        ws_per_message_deflate=False, ws=ws,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    parent_end, child_end = get_context("spawn").Pipe()
    clients = get_context("spawn").Process(target=_clients, args=(child_end, port, packet_ms, streams))
    clients.start()
    await asyncio.to_thread(parent_end.recv)
    engine_seconds, begin = stand_in.engine_seconds if stand_in else 0.0, time.thread_time()
    parent_end.send(None)
    packets = await asyncio.to_thread(parent_end.recv)
    spent = time.thread_time() - begin - ((stand_in.engine_seconds if stand_in else 0.0) - engine_seconds)
    parent_end.send(None)
    await asyncio.to_thread(clients.join)
    server.should_exit = True
    await serving
    return spent / packets * 1e6


def _clients(end: Any, port: int, packet_ms: int, streams: int) -> None:
    asyncio.run(_send_packets(end, port, packet_ms, streams))


async def _send_packets(end: Any, port: int, packet_ms: int, streams: int) -> None:
    """Sends packets evenly spread over the streams, so the server wakes up for few packets at a time."""
    (pcm,) = read_voices(sample_recording(), 1.0, 1)
    packet = pcm[: 2 * SAMPLE_RATE * packet_ms // 1000]
    sockets = [await connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None) for _ in range(streams)]
    for socket in sockets:
        await socket.send('{"type": "config"}')
    reading = [asyncio.create_task(_drain(socket)) for socket in sockets]
    end.send(None)
    await asyncio.to_thread(end.recv)
    begin, sent = time.monotonic(), 0
    while (now := time.monotonic()) < begin + SECONDS:
        due = begin + sent / PACKETS
        if due > now:
            await asyncio.sleep(due - now)
        await sockets[sent % streams].send(packet)
        sent += 1
    end.send(sent)
    await asyncio.to_thread(end.recv)
    for task in reading:
        task.cancel()
    for socket in sockets:
        socket.transport.abort()


async def _drain(socket: Any) -> None:
    async for _ in socket:
        pass


def _table(found: dict[int, dict[str, float]], latency: int) -> str:
    stages = ("socket", "conversation", "intake", "session", "bytes")
    rows = [("packet", "queued", *stages, "sum", "answer", "whole", "streams by sum", "by whole")]
    for size, cost in found.items():
        packets, answers = 1000 / size, 1000 / latency
        total = sum(cost[stage] for stage in stages)
        by_sum = 1e6 / (total * packets + cost["answer"] * answers)
        by_whole = 1e6 / (cost["whole"] * packets)
        numbers = [cost["queued"], *(cost[stage] for stage in stages), total, cost["answer"], cost["whole"]]
        rows.append((f"{size} ms", *(f"{number:.1f}" for number in numbers), f"{by_sum:.0f}", f"{by_whole:.0f}"))
    return table(rows)


if __name__ == "__main__":
    main()
