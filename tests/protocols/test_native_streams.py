"""The native protocol over WebSocket and TCP."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import av
import msgspec
import numpy as np
import pytest
from websockets.sync.client import connect

from tests.engine.live_model import LABELS
from tests.protocols.live_clients import (
    TINY,
    Client,
    Lines,
    Message,
    converse,
    finals,
    lines,
    pcm16,
    pieces,
    socket_of,
    spoken,
)
from tests.protocols.servers import DEMO, PATIENCE, QUIET, SAID, Server, demo

OpenClient = Callable[[Server], AbstractContextManager[Client]]
RESULT = {
    *("type", "stream_id", "text", "token_ids", "confidence_scores", "is_final", "last_state", "turn_detection"),
}
CLOSE = {"type": "close"}
DIGITS = pcm16(demo())


@pytest.fixture(params=[socket_of, lines], ids=["websocket", "tcp"])
def open_client(request: pytest.FixtureRequest) -> OpenClient:
    made: OpenClient = request.param
    return made


def exchange(server: Server, open_client: OpenClient, sent: list[Message | bytes]) -> list[Message]:
    with open_client(server) as client:
        return converse(client, sent)


def receive_until(client: Client, kind: str) -> list[Message]:
    received = []
    while not received or received[-1]["type"] != kind:
        message = client.hear()
        assert message is not None, received
        received.append(message)
    return received


def test_results_have_the_text_so_far_and_new_tokens(server: Server, open_client: OpenClient) -> None:
    audio = [spoken(piece, encoding="pcm16", final=False) for piece in pieces(DIGITS)]
    hello = {"type": "hello", "stream_id": 123, "sample_rate": 16000}
    received = exchange(server, open_client, [hello, *audio, {"type": "audio", "data": "", "final": True}])
    assert all(set(result) == RESULT for result in received)
    assert {result["stream_id"] for result in received} == {123}
    assert [result["is_final"] for result in received] == [False] * (len(received) - 1) + [True]
    ids = [index for result in received for index in result["token_ids"]]
    written = "".join(LABELS[index] for index in ids).replace("▁", "")
    assert len(written) > 20
    assert received[-1]["text"].replace(" ", "") == written
    for result in received:
        assert len(result["token_ids"]) == len(result["confidence_scores"])
    turns = [result["turn_detection"] for result in received]
    assert turns[0] == "start_of_utterance"
    assert turns[-1] == "end_of_utterance"
    assert received[-1]["last_state"] == "silence"


def open_greeted(server: Server, transport: str) -> AbstractContextManager[Client]:
    return lines(server) if transport == "tcp" else socket_of(server, "/")


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
def test_clients_may_wait_for_the_greeting(server: Server, transport: str) -> None:
    """The greeting comes before any message of the client; results have its stream id."""
    audio = [spoken(piece, encoding="pcm16", final=False) for piece in pieces(DIGITS)]
    end: Message = {"type": "audio", "data": "", "encoding": "pcm16", "final": True}
    numbers = set()
    for _ in range(2):
        with open_greeted(server, transport) as client:
            hello = client.greeting if isinstance(client, Lines) else client.hear()
            assert hello is not None
            assert hello == {"type": "hello", "stream_id": hello["stream_id"], "sample_rate": 16_000}
            client.say({"type": "ping"})
            assert client.hear() == {"type": "pong"}
            received = converse(client, [*audio, end])
            assert {message["stream_id"] for message in received} == {hello["stream_id"]}
            assert received[-1]["is_final"]
            assert received[-1]["text"]
            numbers.add(hello["stream_id"])
    assert len(numbers) == 2


def test_samples_as_numbers(server: Server, open_client: OpenClient) -> None:
    samples = np.frombuffer(DIGITS, "<i2") / 32768
    sent = [{"type": "audio", "samples": part.tolist()} for part in np.array_split(samples, 20)]
    received = exchange(server, open_client, [TINY | {"events": False, "encoding": "f32"}, *sent, CLOSE])
    assert received[-1]["text"] == SAID


def test_several_lines_in_one_message(server: Server) -> None:
    whole = "\n".join(map(json.dumps, [TINY, *map(spoken, pieces(DIGITS)), {"type": "ping", "id": 4}, CLOSE]))
    with socket_of(server) as client:
        received = converse(client, [whole])
    assert finals(received) == SAID
    assert {"type": "pong", "id": 4} in received


def test_events_are_ordered_and_numbered(server: Server, open_client: OpenClient) -> None:
    received = exchange(server, open_client, [TINY, *pieces(DIGITS), CLOSE])
    ready, *events = [message for message in received if message["type"] != "received"]
    assert ready["type"] == "ready"
    assert (ready["model"], ready["latency_ms"], ready["resume_seconds"]) == ("tiny", 160, 2.0)
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))
    assert finals(events) == SAID
    assert events[-1]["type"] == "finished"
    assert events[-1]["seconds"] == pytest.approx(len(DIGITS) / 32_000, abs=1e-3)
    for utterance in {event["utterance"] for event in events if "utterance" in event}:
        kinds = [
            event["type"] for event in events if event.get("utterance") == utterance and event["type"] != "partial"
        ]
        assert kinds == ["speech_started", "utterance_end", "final"]
    words = [word for event in events if event["type"] == "final" for word in event["words"]]
    assert [word["text"] for word in words] == SAID.split()
    assert [word["start"] for word in words] == sorted(word["start"] for word in words)


def test_disabled_events_are_not_sent(server: Server, open_client: OpenClient) -> None:
    received = exchange(server, open_client, [TINY | {"partials": False, "words": False}, *pieces(DIGITS), CLOSE])
    assert not [message for message in received if message["type"] in ("partial", "lag")]
    assert finals(received) == SAID
    assert all(message["words"] is None for message in received if message["type"] == "final")


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("encoding", ["pcm16", "f32", "mulaw", "alaw"])
def test_every_encoding_at_every_rate(server: Server, encoding: str, rate: int) -> None:
    samples = demo(rate)
    sent = [TINY | {"sample_rate": rate, "encoding": encoding}, *pieces(encoded(samples, encoding), 7_001), CLOSE]
    received = exchange(server, socket_of, sent)
    assert received[-1]["seconds"] == pytest.approx(len(samples) / rate, abs=2e-3)
    words = finals(received).split()
    if rate >= 16_000:
        assert words == SAID.split()
    else:  # the model was not trained on such a narrow band
        assert len(words) >= 6


def encoded(samples: np.ndarray, encoding: str) -> bytes:
    if encoding == "f32":
        return samples.astype("<f4").tobytes()
    if encoding == "pcm16":
        return pcm16(samples)
    return in_container(samples, "wav", f"pcm_{encoding}", 8_000)[-len(samples) :]


def in_container(samples: np.ndarray, container: str, codec: str, rate: int) -> bytes:
    """Encodes samples of that rate as a file in memory."""
    made = io.BytesIO()
    with av.open(made, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm16(samples), "<i2")[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["flac", "ogg", "webm", "wav"])
def test_containers(server: Server, open_client: OpenClient, kind: str) -> None:
    if kind == "flac":
        data = DEMO.read_bytes()
    elif kind == "wav":
        data = in_container(demo(), "wav", "pcm_s16le", 16_000)
    else:
        data = in_container(demo(48_000), kind, "libopus", 48_000)
    received = exchange(server, open_client, [TINY | {"encoding": kind}, *pieces(data, 1_000), CLOSE])
    assert finals(received) == SAID
    assert received[-1]["type"] == "finished"
    assert received[-1]["problems"] == []


def test_stereo_is_averaged(server: Server, open_client: OpenClient) -> None:
    both = np.repeat(np.frombuffer(DIGITS, "<i2"), 2).tobytes()
    received = exchange(server, open_client, [TINY | {"channels": 2}, *pieces(both, 9_999), CLOSE])
    assert finals(received) == SAID


def test_odd_last_byte_is_reported(server: Server, open_client: OpenClient) -> None:
    received = exchange(server, open_client, [TINY, *pieces(DIGITS + b"\0"), CLOSE])
    assert finals(received) == SAID
    (problem,) = received[-1]["problems"]
    assert "last 1 bytes" in problem


def test_options_in_the_query(server: Server) -> None:
    with socket_of(
        server, "/v1/stream?model=tiny&endpointing={%22silence%22:1.5}&events=true&latency_ms=320&language=en&lag=true"
    ) as client:
        received = converse(client, [*pieces(DIGITS), CLOSE])
    assert (received[0]["model"], received[0]["latency_ms"]) == ("tiny", 320)
    assert finals(received) == SAID
    assert [message for message in received if message["type"] == "lag"]


def test_msgpack(server: Server) -> None:
    def to_msgpack(message: Message) -> bytes:
        return msgspec.msgpack.encode(message)

    received: list[Message] = []
    with connect(server.url("/v1/stream?format=msgpack"), compression=None, open_timeout=PATIENCE) as connection:
        connection.send(to_msgpack(TINY))
        for piece in pieces(DIGITS):
            connection.send(to_msgpack({"type": "audio", "data": piece}))
        connection.send(to_msgpack({"type": "finalize", "id": 9}))
        connection.send(to_msgpack(CLOSE))
        received.extend(msgspec.msgpack.decode(sent) for sent in connection)
    assert finals(received) == SAID
    assert [response["id"] for response in received if response["type"] == "marker"] == [9]


def test_marker_follows_the_events_before_it(server: Server, open_client: OpenClient) -> None:
    with open_client(server) as client:
        for message in [TINY, *pieces(DIGITS[: 2 * QUIET]), {"type": "finalize", "id": -1}]:
            client.say(message)
        first = receive_until(client, "marker")
        assert first[-1]["id"] == -1
        rest = converse(client, [*pieces(DIGITS[2 * QUIET :]), {"type": "finalize", "id": 2**63 - 1}, CLOSE])
    assert [finals(first), finals(rest)] == [SAID[:21], SAID[22:]]
    late = [response["type"] for response in rest if response["type"] in ("final", "marker", "finished")]
    assert late[-2:] == ["marker", "finished"]


def test_endpointing_changes_during_a_stream(server: Server, open_client: OpenClient) -> None:
    with open_client(server) as client:
        for message in [TINY, *pieces(DIGITS[: 2 * QUIET]), {"type": "finalize"}]:
            client.say(message)
        first = receive_until(client, "marker")
        change = {"type": "config", "endpointing": {"silence": 0.3}}
        rest = converse(client, [change, *pieces(DIGITS[2 * QUIET :]), CLOSE])
    assert [response["reason"] for response in first if response["type"] == "final"] == ["asked"]
    assert [response["reason"] for response in rest if response["type"] == "final"][:3] == ["silence"] * 3
    assert len(finals(first + rest).split()) == len(SAID.split())


def test_finals_from_a_second_model(server: Server, open_client: OpenClient) -> None:
    expected = {"type": "config", "model": "small", "finals": {"model": "tiny", "budget_ms": 60000}}
    received = exchange(server, open_client, [expected, *pieces(DIGITS), CLOSE])
    assert {message["model"] for message in received if message["type"] == "final" and message["text"]} == {"tiny"}
    assert set(finals(received).split()) <= set(SAID.split())
    assert len(finals(received).split()) >= 6
    assert [message["tail"] for message in received if message["type"] == "partial"]


def test_cancel(server: Server, open_client: OpenClient) -> None:
    with open_client(server) as client:
        for message in [TINY, *pieces(DIGITS), {"type": "cancel"}]:
            client.say(message)
        received = receive_until(client, "cancelled")
        assert client.hear() is None
    assert len([response for response in received if response["type"] in ("finished", "failed", "cancelled")]) == 1


def test_stream_without_audio(server: Server, open_client: OpenClient) -> None:
    received = exchange(server, open_client, [TINY, CLOSE])
    assert [message["type"] for message in received] == ["ready", "finished"]
    assert received[-1]["seconds"] == 0


def test_close_without_audio_sends_a_result(server: Server, open_client: OpenClient) -> None:
    (result,) = exchange(server, open_client, [CLOSE])
    assert (result["text"], result["is_final"]) == ("", True)


def test_audio_after_close_is_refused(server: Server, open_client: OpenClient) -> None:
    received = exchange(server, open_client, [TINY, *pieces(DIGITS), CLOSE, DIGITS[:640], {"type": "finalize"}, CLOSE])
    assert finals(received) == SAID
    codes = [message["code"] for message in received if message["type"] == "error"]
    assert set(codes) <= {"bad_option"}  # empty if the stream ended before the messages arrived
    assert received[-1]["type"] == "finished"


def test_recordings_do_not_wait_for_idle_streams(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket_of(server, "/v1/stream?events=true&model=small"))
        server.settled(40)
        status, body = server.post("/v1/transcribe", DEMO.read_bytes())
        assert (status, json.loads(body)["text"]) == (200, SAID)
