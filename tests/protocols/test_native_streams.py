"""The native protocol as clients use it, over WebSocket and over TCP."""

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

Door = Callable[[Server], AbstractContextManager[Client]]
RESULT = {
    *("type", "stream_id", "text", "token_ids", "confidence_scores", "is_final", "last_state", "turn_detection"),
}
CLOSE = {"type": "close"}
DIGITS = pcm16(demo())


@pytest.fixture(params=[socket_of, lines], ids=["websocket", "tcp"])
def door(request: pytest.FixtureRequest) -> Door:
    made: Door = request.param
    return made


def said_of(server: Server, door: Door, said: list[Message | bytes]) -> list[Message]:
    with door(server) as client:
        return converse(client, said)


def hear_until(client: Client, kind: str) -> list[Message]:
    heard = []
    while not heard or heard[-1]["type"] != kind:
        told = client.hear()
        assert told is not None, heard
        heard.append(told)
    return heard


def test_results_carry_the_text_so_far_and_new_tokens(server: Server, door: Door) -> None:
    audio = [spoken(piece, encoding="pcm16", final=False) for piece in pieces(DIGITS)]
    hello = {"type": "hello", "stream_id": 123, "sample_rate": 16000}
    heard = said_of(server, door, [hello, *audio, {"type": "audio", "data": "", "final": True}])
    assert all(set(result) == RESULT for result in heard)
    assert {result["stream_id"] for result in heard} == {123}
    assert [result["is_final"] for result in heard] == [False] * (len(heard) - 1) + [True]
    ids = [index for result in heard for index in result["token_ids"]]
    written = "".join(LABELS[index] for index in ids).replace("▁", "")
    assert len(written) > 20
    assert heard[-1]["text"].replace(" ", "") == written
    for result in heard:
        assert len(result["token_ids"]) == len(result["confidence_scores"])
    turns = [result["turn_detection"] for result in heard]
    assert turns[0] == "start_of_utterance"
    assert turns[-1] == "end_of_utterance"
    assert heard[-1]["last_state"] == "silence"


def greeted(server: Server, over: str) -> AbstractContextManager[Client]:
    return lines(server) if over == "tcp" else socket_of(server, "/")


@pytest.mark.parametrize("over", ["tcp", "websocket"])
def test_clients_may_wait_to_be_greeted(server: Server, over: str) -> None:
    """Before they say anything; and their results have the number that they were told."""
    audio = [spoken(piece, encoding="pcm16", final=False) for piece in pieces(DIGITS)]
    end: Message = {"type": "audio", "data": "", "encoding": "pcm16", "final": True}
    numbers = set()
    for _ in range(2):
        with greeted(server, over) as client:
            hello = client.greeting if isinstance(client, Lines) else client.hear()
            assert hello is not None
            assert hello == {"type": "hello", "stream_id": hello["stream_id"], "sample_rate": 16_000}
            client.say({"type": "ping"})
            assert client.hear() == {"type": "pong"}
            heard = converse(client, [*audio, end])
            assert {told["stream_id"] for told in heard} == {hello["stream_id"]}
            assert heard[-1]["is_final"]
            assert heard[-1]["text"]
            numbers.add(hello["stream_id"])
    assert len(numbers) == 2


def test_samples_may_come_as_numbers(server: Server, door: Door) -> None:
    samples = np.frombuffer(DIGITS, "<i2") / 32768
    said = [{"type": "audio", "samples": part.tolist()} for part in np.array_split(samples, 20)]
    heard = said_of(server, door, [TINY | {"events": False, "encoding": "f32"}, *said, CLOSE])
    assert heard[-1]["text"] == SAID


def test_several_lines_in_one_message(server: Server) -> None:
    whole = "\n".join(map(json.dumps, [TINY, *map(spoken, pieces(DIGITS)), {"type": "ping", "id": 4}, CLOSE]))
    with socket_of(server) as client:
        heard = converse(client, [whole])
    assert finals(heard) == SAID
    assert {"type": "pong", "id": 4} in heard


def test_events_come_in_order_and_are_numbered(server: Server, door: Door) -> None:
    heard = said_of(server, door, [TINY, *pieces(DIGITS), CLOSE])
    ready, *events = [told for told in heard if told["type"] != "received"]
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


def test_what_was_not_asked_for_is_not_told(server: Server, door: Door) -> None:
    heard = said_of(server, door, [TINY | {"partials": False, "words": False}, *pieces(DIGITS), CLOSE])
    assert not [told for told in heard if told["type"] in ("partial", "lag")]
    assert finals(heard) == SAID
    assert all(told["words"] is None for told in heard if told["type"] == "final")


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("encoding", ["pcm16", "f32", "mulaw", "alaw"])
def test_every_encoding_at_every_rate(server: Server, encoding: str, rate: int) -> None:
    samples = demo(rate)
    said = [TINY | {"sample_rate": rate, "encoding": encoding}, *pieces(encoded(samples, encoding), 7_001), CLOSE]
    heard = said_of(server, socket_of, said)
    assert heard[-1]["seconds"] == pytest.approx(len(samples) / rate, abs=2e-3)
    words = finals(heard).split()
    if rate >= 16_000:
        assert words == SAID.split()
    else:  # the model was never taught so narrow a band
        assert len(words) >= 6


def encoded(samples: np.ndarray, encoding: str) -> bytes:
    if encoding == "f32":
        return samples.astype("<f4").tobytes()
    if encoding == "pcm16":
        return pcm16(samples)
    return contained(samples, "wav", f"pcm_{encoding}", 8_000)[-len(samples) :]


def contained(samples: np.ndarray, container: str, codec: str, rate: int) -> bytes:
    """A file in memory; the samples are taken to be at that rate."""
    made = io.BytesIO()
    with av.open(made, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.frombuffer(pcm16(samples), "<i2")[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return made.getvalue()


@pytest.mark.parametrize("kind", ["flac", "ogg", "webm", "wav"])
def test_containers(server: Server, door: Door, kind: str) -> None:
    if kind == "flac":
        data = DEMO.read_bytes()
    elif kind == "wav":
        data = contained(demo(), "wav", "pcm_s16le", 16_000)
    else:
        data = contained(demo(48_000), kind, "libopus", 48_000)
    heard = said_of(server, door, [TINY | {"encoding": kind}, *pieces(data, 1_000), CLOSE])
    assert finals(heard) == SAID
    assert heard[-1]["type"] == "finished"
    assert heard[-1]["problems"] == []


def test_stereo_is_averaged(server: Server, door: Door) -> None:
    both = np.repeat(np.frombuffer(DIGITS, "<i2"), 2).tobytes()
    heard = said_of(server, door, [TINY | {"channels": 2}, *pieces(both, 9_999), CLOSE])
    assert finals(heard) == SAID


def test_an_odd_last_byte_is_named(server: Server, door: Door) -> None:
    heard = said_of(server, door, [TINY, *pieces(DIGITS + b"\0"), CLOSE])
    assert finals(heard) == SAID
    (problem,) = heard[-1]["problems"]
    assert "last 1 bytes" in problem


def test_the_query_may_choose(server: Server) -> None:
    with socket_of(
        server, "/v1/stream?model=tiny&endpointing={%22silence%22:1.5}&events=true&latency_ms=320&language=en&lag=true"
    ) as client:
        heard = converse(client, [*pieces(DIGITS), CLOSE])
    assert (heard[0]["model"], heard[0]["latency_ms"]) == ("tiny", 320)
    assert finals(heard) == SAID
    assert [told for told in heard if told["type"] == "lag"]


def test_msgpack(server: Server) -> None:
    def packed(message: Message) -> bytes:
        return msgspec.msgpack.encode(message)

    heard: list[Message] = []
    with connect(server.url("/v1/stream?format=msgpack"), compression=None, open_timeout=PATIENCE) as connection:
        connection.send(packed(TINY))
        for piece in pieces(DIGITS):
            connection.send(packed({"type": "audio", "data": piece}))
        connection.send(packed({"type": "finalize", "id": 9}))
        connection.send(packed(CLOSE))
        heard.extend(msgspec.msgpack.decode(said) for said in connection)
    assert finals(heard) == SAID
    assert [told["id"] for told in heard if told["type"] == "marker"] == [9]


def test_markers_come_after_what_was_said_before(server: Server, door: Door) -> None:
    with door(server) as client:
        for message in [TINY, *pieces(DIGITS[: 2 * QUIET]), {"type": "finalize", "id": -1}]:
            client.say(message)
        first = hear_until(client, "marker")
        assert first[-1]["id"] == -1
        rest = converse(client, [*pieces(DIGITS[2 * QUIET :]), {"type": "finalize", "id": 2**63 - 1}, CLOSE])
    assert [finals(first), finals(rest)] == [SAID[:21], SAID[22:]]
    late = [told["type"] for told in rest if told["type"] in ("final", "marker", "finished")]
    assert late[-2:] == ["marker", "finished"]


def test_endpointing_changes_midway(server: Server, door: Door) -> None:
    with door(server) as client:
        for message in [TINY, *pieces(DIGITS[: 2 * QUIET]), {"type": "finalize"}]:
            client.say(message)
        first = hear_until(client, "marker")
        change = {"type": "config", "endpointing": {"silence": 0.3}}
        rest = converse(client, [change, *pieces(DIGITS[2 * QUIET :]), CLOSE])
    assert [told["reason"] for told in first if told["type"] == "final"] == ["asked"]
    assert [told["reason"] for told in rest if told["type"] == "final"][:3] == ["silence"] * 3
    assert len(finals(first + rest).split()) == len(SAID.split())


def test_finals_from_a_second_model(server: Server, door: Door) -> None:
    wanted = {"type": "config", "model": "small", "finals": {"model": "tiny", "budget_ms": 60000}}
    heard = said_of(server, door, [wanted, *pieces(DIGITS), CLOSE])
    assert {told["model"] for told in heard if told["type"] == "final" and told["text"]} == {"tiny"}
    assert set(finals(heard).split()) <= set(SAID.split())
    assert len(finals(heard).split()) >= 6
    assert [told["tail"] for told in heard if told["type"] == "partial"]


def test_cancel(server: Server, door: Door) -> None:
    with door(server) as client:
        for message in [TINY, *pieces(DIGITS), {"type": "cancel"}]:
            client.say(message)
        heard = hear_until(client, "cancelled")
        assert client.hear() is None
    assert len([told for told in heard if told["type"] in ("finished", "failed", "cancelled")]) == 1


def test_a_stream_without_audio(server: Server, door: Door) -> None:
    heard = said_of(server, door, [TINY, CLOSE])
    assert [told["type"] for told in heard] == ["ready", "finished"]
    assert heard[-1]["seconds"] == 0


def test_close_alone_is_a_result(server: Server, door: Door) -> None:
    (result,) = said_of(server, door, [CLOSE])
    assert (result["text"], result["is_final"]) == ("", True)


def test_what_comes_after_close_is_refused_by_name(server: Server, door: Door) -> None:
    heard = said_of(server, door, [TINY, *pieces(DIGITS), CLOSE, DIGITS[:640], {"type": "finalize"}, CLOSE])
    assert finals(heard) == SAID
    codes = [told["code"] for told in heard if told["type"] == "error"]
    assert set(codes) <= {"bad_option"}  # none where the stream had ended before they came
    assert heard[-1]["type"] == "finished"


def test_recordings_do_not_wait_for_streams_that_say_nothing(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket_of(server, "/v1/stream?events=true&model=small"))
        server.settled(40)
        status, told = server.post("/v1/transcribe", DEMO.read_bytes())
        assert (status, json.loads(told)["text"]) == (200, SAID)
