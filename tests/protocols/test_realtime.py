"""OpenAI's Realtime protocol, message by message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.protocols.live_clients import Message, pcm16
from tests.protocols.realtime_clients import ASR, CLIENT_COMMITS, DIGITS, Talk, session_of, talk, texts
from tests.protocols.servers import SAID, Server, demo

ADDED = ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
TURNS = ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped")


def kinds(heard: list[Message]) -> list[str]:
    """Without what may come any number of times."""
    return [told["type"] for told in heard if told["type"] != f"{ASR}.delta"]


def completed(on: Talk, **session: Any) -> list[Message]:
    """The digits, with that session and a commit at the end."""
    assert on.hear()["type"] == "session.created"
    on.update(**session)
    on.append(DIGITS)
    on.commit()
    return on.until(f"{ASR}.completed")


def test_commit_creates_an_item(server: Server) -> None:
    with talk(server) as on:
        heard = completed(on, **session_of(**CLIENT_COMMITS))
    assert kinds(heard) == [*ADDED, f"{ASR}.completed"]
    assert texts(heard) == SAID
    assert heard[0]["type"] == f"{ASR}.delta", "words come before the commit is answered"
    assert len({told["event_id"] for told in heard}) == len(heard)
    assert {told["item_id"] for told in heard if "item_id" in told} == {heard[-1]["item_id"]}
    (item,) = [told["item"] for told in heard if told["type"] == ADDED[1]]
    assert (item["role"], item["content"]) == ("user", [{"type": "input_audio", "transcript": None}])
    last = heard[-1]
    assert last["usage"] == {"type": "duration", "seconds": pytest.approx(len(DIGITS) / 48_000, abs=0.1)}
    assert (last["content_index"], last["logprobs"]) == (0, None)


def test_turns_are_detected(server: Server) -> None:
    with talk(server) as on:
        on.hear()
        vad = {"type": "server_vad", "silence_duration_ms": 350, "prefix_padding_ms": 200}
        on.update(**session_of(turn_detection=vad))
        on.append(DIGITS + bytes(48_000))
        heard: list[Message] = []
        while len(texts(heard)) < len(SAID):
            heard += on.until(f"{ASR}.completed")
    assert texts(heard) == SAID
    items = [told["item_id"] for told in heard if told["type"] == ADDED[0]]
    assert len(items) > 1
    assert kinds(heard) == [*TURNS, *ADDED, f"{ASR}.completed"] * len(items)
    before = [told["previous_item_id"] for told in heard if told["type"] == ADDED[0]]
    assert before == [None, *items[:-1]]
    bounds = [told.get("audio_start_ms", told.get("audio_end_ms")) for told in heard if told["type"] in TURNS]
    assert bounds == sorted(bounds)
    assert all(isinstance(bound, int) for bound in bounds)


def test_commit_ends_a_detected_turn(server: Server) -> None:
    slow = {"type": "server_vad", "silence_duration_ms": 2000}
    with talk(server) as on:
        heard = completed(on, **session_of(turn_detection=slow))
        assert texts(heard) == SAID
        assert kinds(heard) == [TURNS[0], *ADDED, f"{ASR}.completed"]
        on.append(bytes(9_600))
        on.commit()
        heard = on.until(f"{ASR}.completed")
    assert kinds(heard) == [*ADDED, f"{ASR}.completed"], "silence is an item, too"
    assert (heard[-1]["transcript"], heard[-1]["usage"]["seconds"]) == ("", pytest.approx(0.2, abs=0.1))


@pytest.mark.parametrize("eagerness", ["low", "high"])
def test_semantic_turn_detection(server: Server, eagerness: str) -> None:
    with talk(server) as on:
        heard = completed(on, **session_of(turn_detection={"type": "semantic_vad", "eagerness": eagerness}))
        while len(texts(heard)) < len(SAID):
            heard += on.until(f"{ASR}.completed")
    assert texts(heard) == SAID


@pytest.mark.parametrize(
    ("audio", "rate"),
    [
        ({"type": "audio/pcm"}, 24_000),
        ({"type": "audio/pcm", "rate": 16_000}, 16_000),
        ({"type": "audio/pcm", "rate": 48_000}, 48_000),
    ],
)
def test_rates(server: Server, audio: Message, rate: int) -> None:
    with talk(server) as on:
        on.hear()
        assert on.update(**session_of(format=audio, **CLIENT_COMMITS))["audio"]["input"]["format"] == audio
        on.append(pcm16(demo(rate)))
        on.commit()
        assert texts(on.until(f"{ASR}.completed")) == SAID


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_telephone_encodings(server: Server, kind: str) -> None:
    with talk(server) as on:
        on.hear()
        on.update(**session_of(format={"type": kind}, **CLIENT_COMMITS))
        on.append(bytes([0xD5 if kind == "audio/pcma" else 0xFF]) * 8_000)
        on.commit()
        last = on.until(f"{ASR}.completed")[-1]
    assert last["usage"]["seconds"] == pytest.approx(1.0, abs=0.1), "a byte is a sample at 8 kHz"


def test_binary_frames_are_audio(server: Server) -> None:
    with talk(server) as on:
        on.hear()
        on.update(**session_of(**CLIENT_COMMITS))
        on.connection.send(DIGITS)
        on.commit()
        assert texts(on.until(f"{ASR}.completed")) == SAID


def test_logprobs_on_request(server: Server) -> None:
    with talk(server) as on:
        heard = completed(on, include=["item.input_audio_transcription.logprobs"], **session_of(**CLIENT_COMMITS))
    whole = heard[-1]["logprobs"]
    assert "".join(each["token"] for each in whole).strip() == SAID
    parts = [each for told in heard if told["type"] == f"{ASR}.delta" for each in told["logprobs"]]
    assert parts == whole
    assert all(each["logprob"] <= 0 and bytes(each["bytes"]).decode() == each["token"] for each in whole)


def test_update_changes_only_its_fields(server: Server) -> None:
    with talk(server, "?intent=transcription&model=whisper-1") as on:
        first = on.hear()["session"]
        assert first["audio"]["input"]["transcription"]["model"] == "whisper-1"
        assert first["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        vad = {"type": "server_vad", "threshold": 0.7}
        changed = on.update(audio={"input": {"turn_detection": vad, "transcription": {"language": "en"}}})
        assert changed["audio"]["input"]["turn_detection"]["threshold"] == 0.7
        assert changed["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": "en"}
        cleared = on.update(audio={"input": {"turn_detection": None}})["audio"]["input"]
        assert cleared == changed["audio"]["input"] | {"turn_detection": None}
        assert on.update() == changed | {"audio": {"input": cleared}}


def test_changing_the_model_opens_another_stream(server: Server) -> None:
    with talk(server) as on:
        on.hear()
        on.update(**session_of(transcription={"model": "small"}, **CLIENT_COMMITS))
        on.append(DIGITS)
        on.commit()
        first = on.until(f"{ASR}.completed")[-1]
        on.update(**session_of())
        on.append(DIGITS)
        on.update(audio={"input": {"transcription": {"model": "small"}}})
        on.append(DIGITS)
        on.commit()
        heard = on.until(f"{ASR}.completed")
        assert server.health()["streams"] == 1
    assert first["transcript"] != SAID
    assert texts(heard).startswith(SAID), "what is not committed is heard to its end as it began"
    assert heard[-1]["item_id"] != first["item_id"]
    (committed,) = [told for told in heard if told["type"] == ADDED[0]]
    assert committed["previous_item_id"] == first["item_id"]


def test_changing_the_language_ends_the_utterance(server: Server) -> None:
    with talk(server) as on:
        on.hear()
        on.update(**session_of(turn_detection={"type": "server_vad", "silence_duration_ms": 2000}))
        on.append(DIGITS)
        on.say("session.update", session={"audio": {"input": {"transcription": {"language": "en"}}}})
        on.append(DIGITS)
        on.commit()
        heard = on.until(f"{ASR}.completed") + on.until(f"{ASR}.completed")
    assert texts(heard) == f"{SAID} {SAID}"
    starts = [told["audio_start_ms"] for told in heard if told["type"] == TURNS[0]]
    assert starts[1] > len(DIGITS) / 48, "times go on"


def test_clear_discards_uncommitted_audio(server: Server) -> None:
    with talk(server) as on:
        heard = completed(on, **session_of(**CLIENT_COMMITS))
        on.append(DIGITS[: len(DIGITS) // 4 * 2])
        on.say("input_audio_buffer.clear")
        on.until("input_audio_buffer.cleared")
        on.commit()
        assert on.refused()["code"] == "input_audio_buffer_commit_empty"
        on.append(DIGITS)
        on.commit()
        again = on.until(f"{ASR}.completed")
        on.say("input_audio_buffer.clear")
        assert on.hear()["type"] == "input_audio_buffer.cleared"
    assert texts(again) == SAID
    assert again[-1]["item_id"] not in {told.get("item_id") for told in heard}


def test_clear_waits_for_committed_audio(server: Server) -> None:
    with talk(server) as on:
        on.hear()
        on.update(**session_of(**CLIENT_COMMITS))
        on.append(DIGITS)
        on.commit()
        on.say("input_audio_buffer.clear")
        assert texts(on.until("input_audio_buffer.cleared")) == SAID


@pytest.mark.parametrize(
    ("said", "code", "param"),
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
def test_rejected_events(server: Server, said: str, code: str, param: str | None) -> None:
    with talk(server) as on:
        on.hear()
        on.connection.send(said)
        fault = on.refused()
        assert fault.pop("message")
        assert fault == {"type": "invalid_request_error", "code": code, "param": param, "event_id": "e"}
        on.update(**session_of())


@pytest.mark.parametrize("said", ["", "{", "[]", "17", '"' * 9, "[" * 100_000])
def test_invalid_messages(server: Server, said: str) -> None:
    with talk(server) as on:
        on.hear()
        on.connection.send(said)
        assert on.refused()["code"] in ("invalid_json", "invalid_value")
        on.update(**session_of())


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
    with talk(server) as on:
        before = on.hear()["session"]
        on.say("session.update", session=session, event_id="e")
        fault = on.refused()
        assert (fault["type"], fault["code"], fault["event_id"]) == ("invalid_request_error", code, "e")
        assert fault["param"].endswith(param)
        assert on.update() == before, "nothing of it was taken"


def test_changing_the_format_requires_a_commit(server: Server) -> None:
    with talk(server) as on:
        on.hear()
        on.update(**session_of(**CLIENT_COMMITS))
        on.append(DIGITS)
        on.say("session.update", session=session_of(format={"type": "audio/pcm", "rate": 16_000}))
        while (told := on.hear())["type"] != "error":
            pass
        assert told["error"]["code"] == "audio_format_in_use"
        on.commit()
        on.until(f"{ASR}.completed")
        on.update(**session_of(format={"type": "audio/pcm", "rate": 16_000}))
        on.append(pcm16(demo(16_000)))
        on.commit()
        assert texts(on.until(f"{ASR}.completed")) == SAID


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("?model=none", 404, "model_not_found"), ("?dialect=none", 400, "invalid_value")],
)
def test_rejected_handshakes(server: Server, query: str, status: int, code: str) -> None:
    with pytest.raises(InvalidStatus) as refused, talk(server, query):
        pass
    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body)["error"]["code"] == code


def test_stream_exists_only_while_audio_comes(server: Server) -> None:
    server.settled(0)
    with talk(server) as on:
        on.hear()
        on.update(**session_of())
        assert server.health()["streams"] == 0
        on.append(DIGITS)
        on.until(TURNS[0])
        assert server.health()["streams"] == 1
        on.connection.socket.shutdown(2)
        with pytest.raises(ConnectionClosed):
            on.until("never")
    server.settled(0)
