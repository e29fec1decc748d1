"""OpenAI's Realtime protocol over a real server, message by message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.protocols.live_clients import Message, pcm16
from tests.protocols.realtime_clients import (
    ASR,
    CLIENT_COMMITS,
    DIGITS,
    RealtimeClient,
    connect_client,
    session_of,
    texts,
)
from tests.protocols.servers import SAID, Server, demo

ADDED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
TURNS = ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped")


def types(events: list[Message]) -> list[str]:
    """The event types, without deltas."""
    return [event["type"] for event in events if event["type"] != f"{ASR}.delta"]


def completed(client: RealtimeClient, **session: Any) -> list[Message]:
    """Sends and commits the digits in a session with these settings."""
    assert client.receive()["type"] == "session.created"
    client.update(**session)
    client.append(DIGITS)
    client.commit()
    return client.receive_until(f"{ASR}.completed")


def test_commit_creates_an_item(server: Server) -> None:
    with connect_client(server) as client:
        events = completed(client, **session_of(**CLIENT_COMMITS))
    assert types(events) == [*ADDED, f"{ASR}.completed"]
    assert texts(events) == SAID
    assert events[0]["type"] == f"{ASR}.delta", "words come before the commit is answered"
    assert len({event["event_id"] for event in events}) == len(events)
    assert {event["item_id"] for event in events if "item_id" in event} == {events[-1]["item_id"]}
    (item,) = [event["item"] for event in events if event["type"] == ADDED[1]]
    assert (item["role"], item["content"]) == ("user", [{"type": "input_audio", "transcript": None}])
    last = events[-1]
    assert last["usage"] == {"type": "duration", "seconds": pytest.approx(len(DIGITS) / 48_000, abs=0.1)}
    assert (last["content_index"], last["logprobs"]) == (0, None)


def test_turns_are_detected(server: Server) -> None:
    with connect_client(server) as client:
        client.receive()
        vad = {"type": "server_vad", "silence_duration_ms": 350, "prefix_padding_ms": 200}
        client.update(**session_of(turn_detection=vad))
        client.append(DIGITS + bytes(48_000))
        events: list[Message] = []
        while len(texts(events)) < len(SAID):
            events += client.receive_until(f"{ASR}.completed")
    assert texts(events) == SAID
    items = [event["item_id"] for event in events if event["type"] == ADDED[0]]
    assert len(items) > 1
    assert types(events) == [*TURNS, *ADDED, f"{ASR}.completed"] * len(items)
    previous = [event["previous_item_id"] for event in events if event["type"] == ADDED[0]]
    assert previous == [None, *items[:-1]]
    bounds = [event.get("audio_start_ms", event.get("audio_end_ms")) for event in events if event["type"] in TURNS]
    assert bounds == sorted(bounds)
    assert all(isinstance(bound, int) for bound in bounds)


def test_commit_ends_a_detected_turn(server: Server) -> None:
    slow = {"type": "server_vad", "silence_duration_ms": 2000}
    with connect_client(server) as client:
        events = completed(client, **session_of(turn_detection=slow))
        assert texts(events) == SAID
        assert types(events) == [TURNS[0], *ADDED, f"{ASR}.completed"]
        client.append(bytes(9_600))
        client.commit()
        events = client.receive_until(f"{ASR}.completed")
    assert types(events) == [*ADDED, f"{ASR}.completed"], "silence is an item, too"
    assert (events[-1]["transcript"], events[-1]["usage"]["seconds"]) == ("", pytest.approx(0.2, abs=0.1))


@pytest.mark.parametrize("eagerness", ["low", "high"])
def test_semantic_turn_detection(server: Server, eagerness: str) -> None:
    with connect_client(server) as client:
        events = completed(client, **session_of(turn_detection={"type": "semantic_vad", "eagerness": eagerness}))
        while len(texts(events)) < len(SAID):
            events += client.receive_until(f"{ASR}.completed")
    assert texts(events) == SAID


@pytest.mark.parametrize(
    ("audio", "rate"),
    [
        ({"type": "audio/pcm"}, 24_000),
        ({"type": "audio/pcm", "rate": 16_000}, 16_000),
        ({"type": "audio/pcm", "rate": 48_000}, 48_000),
    ],
)
def test_rates(server: Server, audio: Message, rate: int) -> None:
    with connect_client(server) as client:
        client.receive()
        assert client.update(**session_of(format=audio, **CLIENT_COMMITS))["audio"]["input"]["format"] == audio
        client.append(pcm16(demo(rate)))
        client.commit()
        assert texts(client.receive_until(f"{ASR}.completed")) == SAID


@pytest.mark.parametrize("type_", ["audio/pcmu", "audio/pcma"])
def test_telephone_encodings(server: Server, type_: str) -> None:
    with connect_client(server) as client:
        client.receive()
        client.update(**session_of(format={"type": type_}, **CLIENT_COMMITS))
        client.append(bytes([0xD5 if type_ == "audio/pcma" else 0xFF]) * 8_000)
        client.commit()
        last = client.receive_until(f"{ASR}.completed")[-1]
    assert last["usage"]["seconds"] == pytest.approx(1.0, abs=0.1), "a byte is a sample at 8 kHz"


def test_binary_frames_are_audio(server: Server) -> None:
    with connect_client(server) as client:
        client.receive()
        client.update(**session_of(**CLIENT_COMMITS))
        client.connection.send(DIGITS)
        client.commit()
        assert texts(client.receive_until(f"{ASR}.completed")) == SAID


def test_logprobs_on_request(server: Server) -> None:
    with connect_client(server) as client:
        events = completed(client, include=["item.input_audio_transcription.logprobs"], **session_of(**CLIENT_COMMITS))
    whole = events[-1]["logprobs"]
    assert "".join(each["token"] for each in whole).strip() == SAID
    parts = [each for event in events if event["type"] == f"{ASR}.delta" for each in event["logprobs"]]
    assert parts == whole
    assert all(each["logprob"] <= 0 and bytes(each["bytes"]).decode() == each["token"] for each in whole)


def test_update_changes_only_its_fields(server: Server) -> None:
    with connect_client(server, "?intent=transcription&model=whisper-1") as client:
        first = client.receive()["session"]
        assert first["audio"]["input"]["transcription"]["model"] == "whisper-1"
        assert first["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        vad = {"type": "server_vad", "threshold": 0.7}
        changed = client.update(audio={"input": {"turn_detection": vad, "transcription": {"language": "en"}}})
        assert changed["audio"]["input"]["turn_detection"]["threshold"] == 0.7
        assert changed["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": "en"}
        cleared = client.update(audio={"input": {"turn_detection": None}})["audio"]["input"]
        assert cleared == changed["audio"]["input"] | {"turn_detection": None}
        assert client.update() == changed | {"audio": {"input": cleared}}


def test_changing_the_model_opens_another_stream(server: Server) -> None:
    with connect_client(server) as client:
        client.receive()
        client.update(**session_of(transcription={"model": "small"}, **CLIENT_COMMITS))
        client.append(DIGITS)
        client.commit()
        first = client.receive_until(f"{ASR}.completed")[-1]
        client.update(**session_of())
        client.append(DIGITS)
        client.update(audio={"input": {"transcription": {"model": "small"}}})
        client.append(DIGITS)
        client.commit()
        events = client.receive_until(f"{ASR}.completed")
        assert server.health()["streams"] == 1
    assert first["transcript"] != SAID
    assert texts(events).startswith(SAID), "uncommitted audio stays in its stream"
    assert events[-1]["item_id"] != first["item_id"]
    (committed,) = [event for event in events if event["type"] == ADDED[0]]
    assert committed["previous_item_id"] == first["item_id"]


def test_changing_the_language_ends_the_utterance(server: Server) -> None:
    with connect_client(server) as client:
        client.receive()
        client.update(**session_of(turn_detection={"type": "server_vad", "silence_duration_ms": 2000}))
        client.append(DIGITS)
        client.send("session.update", session={"audio": {"input": {"transcription": {"language": "en"}}}})
        client.append(DIGITS)
        client.commit()
        events = client.receive_until(f"{ASR}.completed") + client.receive_until(f"{ASR}.completed")
    assert texts(events) == f"{SAID} {SAID}"
    starts = [event["audio_start_ms"] for event in events if event["type"] == TURNS[0]]
    assert starts[1] > len(DIGITS) / 48, "times go on"


def test_clear_discards_uncommitted_audio(server: Server) -> None:
    with connect_client(server) as client:
        events = completed(client, **session_of(**CLIENT_COMMITS))
        client.append(DIGITS[: len(DIGITS) // 4 * 2])
        client.send("input_audio_buffer.clear")
        client.receive_until("input_audio_buffer.cleared")
        client.commit()
        assert client.receive_error()["code"] == "input_audio_buffer_commit_empty"
        client.append(DIGITS)
        client.commit()
        next_events = client.receive_until(f"{ASR}.completed")
        client.send("input_audio_buffer.clear")
        assert client.receive()["type"] == "input_audio_buffer.cleared"
    assert texts(next_events) == SAID
    assert next_events[-1]["item_id"] not in {event.get("item_id") for event in events}


def test_clear_waits_for_committed_audio(server: Server) -> None:
    with connect_client(server) as client:
        client.receive()
        client.update(**session_of(**CLIENT_COMMITS))
        client.append(DIGITS)
        client.commit()
        client.send("input_audio_buffer.clear")
        assert texts(client.receive_until("input_audio_buffer.cleared")) == SAID


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ('{"type": "input_audio_buffer.commit", "event_id": "e"}', "input_audio_buffer_commit_empty", None),
        ('{"type": "conversation.item.create", "event_id": "e"}', "unknown_event", "type"),
        ('{"type": "input_audio_buffer.append", "event_id": "e"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "a?", "event_id": "e"}', "invalid_base64", "audio"),
        ('{"type": "response.create", "event_id": "e"}', "no_audio", None),
        ('{"type": 17, "event_id": "e"}', "invalid_value", "type"),
        ('{"event_id": "e"}', "invalid_value", None),
    ],
)
def test_rejected_events(server: Server, message: str, code: str, param: str | None) -> None:
    with connect_client(server) as client:
        client.receive()
        client.connection.send(message)
        error = client.receive_error()
        assert error.pop("message")
        assert error == {"type": "invalid_request_error", "code": code, "param": param, "event_id": "e"}
        client.update(**session_of())


@pytest.mark.parametrize("message", ["", "{", "[]", "17", '"' * 9, "[" * 100_000])
def test_invalid_messages(server: Server, message: str) -> None:
    with connect_client(server) as client:
        client.receive()
        client.connection.send(message)
        assert client.receive_error()["code"] in ("invalid_json", "invalid_value")
        client.update(**session_of())


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        (session_of(transcription={"model": "none"}), "model_not_found", "session.audio.input.transcription.model"),
        (
            session_of(transcription={"model": "tiny", "language": "xx"}),
            "unsupported_language",
            "session.audio.input.transcription.language",
        ),
        (
            session_of(turn_detection={"type": "server_vad", "threshold": 2}),
            "invalid_value",
            "turn_detection.threshold",
        ),
        (session_of(turn_detection={"type": "magic"}), "invalid_value", "turn_detection.type"),
        (session_of(format={"type": "audio/pcm", "rate": 1}), "invalid_value", "session.audio.input.format.rate"),
        (session_of(format={"type": "audio/opus"}), "invalid_value", "session.audio.input.format.type"),
        ({"type": "realtime"}, "invalid_value", "session.type"),
        ({"audio": 17}, "invalid_value", "session.audio"),
        ({"input_audio_format": "mp3"}, "invalid_value", "session.input_audio_format"),
    ],
)
def test_rejected_sessions(server: Server, session: Message, code: str, param: str) -> None:
    with connect_client(server) as client:
        previous = client.receive()["session"]
        client.send("session.update", session=session, event_id="e")
        error = client.receive_error()
        assert (error["type"], error["code"], error["event_id"]) == ("invalid_request_error", code, "e")
        assert error["param"].endswith(param)
        assert client.update() == previous, "a rejected update changes nothing"


def test_changing_the_format_requires_a_commit(server: Server) -> None:
    with connect_client(server) as client:
        client.receive()
        client.update(**session_of(**CLIENT_COMMITS))
        client.append(DIGITS)
        client.send("session.update", session=session_of(format={"type": "audio/pcm", "rate": 16_000}))
        while (event := client.receive())["type"] != "error":
            pass
        assert event["error"]["code"] == "audio_format_in_use"
        client.commit()
        client.receive_until(f"{ASR}.completed")
        client.update(**session_of(format={"type": "audio/pcm", "rate": 16_000}))
        client.append(pcm16(demo(16_000)))
        client.commit()
        assert texts(client.receive_until(f"{ASR}.completed")) == SAID


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("?model=none", 404, "model_not_found"), ("?dialect=none", 400, "invalid_value")],
)
def test_rejected_handshakes(server: Server, query: str, status: int, code: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect_client(server, query):
        pass
    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body)["error"]["code"] == code


def test_stream_exists_only_while_audio_comes(server: Server) -> None:
    server.settled(0)
    with connect_client(server) as client:
        client.receive()
        client.update(**session_of())
        assert server.health()["streams"] == 0
        client.append(DIGITS)
        client.receive_until(TURNS[0])
        assert server.health()["streams"] == 1
        client.connection.socket.shutdown(2)
        with pytest.raises(ConnectionClosed):
            client.receive_until("never")
    server.settled(0)
