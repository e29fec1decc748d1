"""Dialects of the Realtime protocol, detected from the handshake of their clients, and client secrets."""

from __future__ import annotations

import base64
import io
import json
import wave

import pytest

from tests.protocols.live_clients import Message, pcm16, pieces
from tests.protocols.realtime_clients import ASR, DIGITS, RealtimeClient, connect_client, session_of, texts
from tests.protocols.servers import SAID, Server, demo

DEMO_PCM = pcm16(demo(16_000))
NIM = {"input_audio_transcription": {"model": "tiny"}, "input_audio_params": {"sample_rate_hz": 16_000}}


def post(server: Server, path: str, body: Message) -> tuple[int, Message]:
    status, event = server.post(f"/v1/realtime/{path}", json.dumps(body).encode())
    answer: Message = json.loads(event)
    return status, answer


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(DEMO_PCM)
    return file.getvalue()


def chunk(client: RealtimeClient, audio: bytes, **fields: Message) -> None:
    client.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode(), **fields)
    client.commit()


def finals(events: list[Message]) -> list[Message]:
    return [event for event in events if event["type"] == f"{ASR}.completed"]


def last_result(client: RealtimeClient) -> list[Message]:
    events = client.receive_until(f"{ASR}.completed")
    while not events[-1]["is_last_result"]:
        events += client.receive_until(f"{ASR}.completed")
    return events


# The first version of the protocol.


def test_the_first_version(server: Server) -> None:
    with connect_client(server, **{"OpenAI-Beta": "realtime=v1"}) as client:
        created = client.receive()
        assert created["type"] == "transcription_session.created"
        assert created["session"]["input_audio_format"] == "pcm16"
        changes = {
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "tiny", "language": "en"},
            "input_audio_noise_reduction": {"type": "near_field"},
            "turn_detection": None,
        }
        client.send("transcription_session.update", session=changes)
        updated = client.receive()
        assert updated["type"] == "transcription_session.updated"
        assert {name: updated["session"][name] for name in changes} == changes
        client.send("transcription_session.update", session={"input_audio_format": "pcm16"})
        assert client.receive()["session"]["input_audio_transcription"]["model"] == "tiny"
        client.append(DIGITS)
        client.commit()
        events = client.receive_until(f"{ASR}.completed")
    assert texts(events) == SAID
    types = [event["type"] for event in events if event["type"] != f"{ASR}.delta"]
    assert types == ["input_audio_buffer.committed", "conversation.item.created", f"{ASR}.completed"]


def test_flat_updates_are_accepted_in_all_dialects(server: Server) -> None:
    with connect_client(server) as client:
        assert client.receive()["type"] == "session.created"
        client.send("transcription_session.update", session={"turn_detection": None})
        assert client.receive()["type"] == "transcription_session.updated"
        assert client.update(input_audio_format="g711_alaw")["audio"]["input"]["format"] == {"type": "audio/pcma"}


# Secrets.


@pytest.mark.parametrize("subprotocol", ["openai-insecure-api-key.{}", "header"])
def test_secret_opens_with_its_session(server: Server, subprotocol: str) -> None:
    body = {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": session_of(turn_detection=None)}
    status, minted = post(server, "client_secrets", body)
    assert status == 200
    assert minted["session"]["audio"]["input"]["transcription"]["model"] == "tiny"
    assert minted["session"]["object"] == "realtime.transcription_session"
    secret = minted["value"]
    offered = ["realtime", subprotocol.format(secret)] if subprotocol != "header" else []
    headers = {} if offered else {"Authorization": f"Bearer {secret}"}
    with connect_client(server, subprotocols=offered, **headers) as client:
        assert client.connection.subprotocol == ("realtime" if offered else None), "the secret is not echoed"
        assert client.receive()["session"]["audio"] == minted["session"]["audio"]
        client.append(DIGITS)
        client.commit()
        assert texts(client.receive_until(f"{ASR}.completed")) == SAID


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("client_secrets", {"expires_after": {"seconds": 1}}, 400),
        ("client_secrets", {"expires_after": {"seconds": "x"}}, 400),
        ("client_secrets", {"session": session_of(transcription={"model": "none"})}, 404),
        ("client_secrets", {"session": {"type": "realtime"}}, 400),
        ("client_secrets", {"session": session_of(transcription={"prompt": "p" * 5000})}, 400),
        ("client_secrets", {"session": session_of(transcription={"prompt": "p" * 70_000})}, 400),
        ("transcription_sessions", {"input_audio_format": "mp3"}, 400),
        ("transcription_sessions", {"client_secret": {"expires_at": {"seconds": 9000}}}, 400),
    ],
)
def test_rejected_secret_requests(server: Server, path: str, body: Message, status: int) -> None:
    event, answer = post(server, path, body)
    assert event == status
    assert answer["error"].keys() == {"message", "type", "param", "code"}


def test_invalid_bodies(server: Server) -> None:
    for body in (b"{", b"[]", b"\xff"):
        assert server.post("/v1/realtime/client_secrets", body)[0] == 400
        assert server.post("/v1/realtime/transcription_sessions", body)[0] == 400
    assert server.post("/v1/realtime/client_secrets", b"")[0] == 200


# Riva and NIM.


def test_commits_do_not_end_utterances(server: Server) -> None:
    _, session = post(server, "transcription_sessions", {})
    secret = session["client_secret"]["value"]
    with connect_client(server, subprotocols=["realtime", f"realtime-token.{secret}"]) as client:
        assert client.connection.subprotocol == "realtime"
        assert client.receive()["type"] == "conversation.created"
        timed = {"recognition_config": session["recognition_config"] | {"enable_word_time_offsets": True}}
        client.send("transcription_session.update", session=session | NIM | timed)
        updated = client.receive()
        assert updated["type"] == "transcription_session.updated"
        assert updated["session"]["input_audio_params"] == {"sample_rate_hz": 16_000, "num_channels": 1}
        assert secret not in json.dumps(updated)
        for piece in pieces(DEMO_PCM):
            chunk(client, piece)
        client.send("input_audio_buffer.done")
        events = last_result(client)
    *parts, whole = finals(events)
    assert texts([event for event in events if not event.get("is_last_result")]) == SAID
    assert whole["transcript"] == SAID
    words = whole["words_info"]["words"]
    assert " ".join(word["word"] for word in words) == SAID
    assert words == [word for part in parts for word in part["words_info"]["words"]]
    times = [time for word in words for time in (word["start_time"], word["end_time"])]
    assert times == sorted(times)
    assert whole["usage"]["seconds"] == pytest.approx(len(DEMO_PCM) / 32_000, abs=0.1)
    assert sum(event["type"] == "input_audio_buffer.committed" for event in events) == len(pieces(DEMO_PCM))


def test_containers_are_detected(server: Server) -> None:
    with connect_client(server, "?dialect=nim") as client:
        client.receive()
        client.send("transcription_session.update", session=NIM | {"input_audio_format": "none"})
        client.receive()
        for piece in pieces(wav()):
            chunk(client, piece)
        client.send("input_audio_buffer.done")
        assert last_result(client)[-1]["transcript"] == SAID


def test_force_eou_ends_the_utterance(server: Server) -> None:
    half = len(DEMO_PCM) // 4 * 2
    with connect_client(server, "?dialect=nim") as client:
        client.receive()
        client.send("transcription_session.update", session=NIM | {"endpointing_config": {"stop_history": 3000}})
        client.receive()
        chunk(client, DEMO_PCM[:half], runtime_config={"force_eou": "true"})
        first = client.receive_until(f"{ASR}.completed")[-1]
        chunk(client, DEMO_PCM[half:])
        client.send("input_audio_buffer.done")
        whole = last_result(client)[-1]
        assert first["transcript"]
        assert whole["transcript"].startswith(first["transcript"])
        client.send("input_audio_buffer.done")
        assert (client.receive()["transcript"], server.health()["streams"]) == ("", 0)


def test_nim_session_selects_the_dialect(server: Server) -> None:
    with connect_client(server) as client:
        assert client.receive()["type"] == "session.created"
        client.send("transcription_session.update", session=NIM)
        assert client.receive()["session"]["recognition_config"]
        chunk(client, DEMO_PCM)
        client.send("input_audio_buffer.done")
        assert last_result(client)[-1]["transcript"] == SAID


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_audio_params": {"sample_rate_hz": 1}},
        {"input_audio_params": {"sample_rate_hz": "x"}},
        {"input_audio_params": 7},
        {"endpointing_config": {"stop_history": -1}},
        {"input_audio_transcription": {"language": "xx", "model": "tiny"}},
    ],
)
def test_rejected_nim_sessions(server: Server, wrong: Message) -> None:
    with connect_client(server, "?dialect=nim") as client:
        client.receive()
        client.send("transcription_session.update", session=wrong)
        assert client.receive_error()["type"] == "invalid_request_error"
        client.send("transcription_session.update", session={"input_audio_transcription": {"model": "conformer"}})
        assert client.receive()["type"] == "transcription_session.updated", "any name is a model's"


# Responses.


def test_responses(server: Server) -> None:
    with connect_client(server, "", subprotocols=["openai-realtime", "realtime"]) as client:
        assert client.connection.subprotocol == "openai-realtime"
        created = client.receive()
        assert (created["type"], created["id"]) == ("session.created", created["session"]["id"])
        client.send("session.create", session=session_of())
        assert client.receive()["type"] == "session.updated"
        for _ in range(2):
            for piece in pieces(DEMO_PCM):
                client.send("input_audio_buffer.append", audio_base64=base64.b64encode(piece).decode())
            client.commit()
            client.send("response.create")
            events = client.receive_until("response.completed")
            assert [event["type"] for event in events] == [
                *("input_audio_buffer.committed", "response.output_text.delta", "response.completed")
            ]
            assert events[1]["delta"] == SAID
        client.send("response.create")
        assert client.receive()["error"]["type"] == "no_audio"
        client.append(DEMO_PCM)
        client.send("input_audio_buffer.clear")
        assert client.receive()["type"] == "input_audio_buffer.cleared"
        client.send("response.create")
        assert client.receive()["error"]["type"] == "no_audio"


@pytest.mark.parametrize(
    ("message", "type_"),
    [
        ({"type": "input_audio_buffer.append", "audio_base64": "?"}, "invalid_base64"),
        ({"type": "input_audio_buffer.append"}, "missing_audio_base64"),
        ({"type": "input_audio_buffer.commit"}, "no_audio"),
        ({"type": "magic"}, "unsupported_type"),
    ],
)
def test_errors_are_types(server: Server, message: Message, type_: str) -> None:
    with connect_client(server, "?dialect=responses") as client:
        client.receive()
        client.connection.send(json.dumps(message))
        error = client.receive()["error"]
        assert (error["type"], error.keys()) == (type_, {"type", "message"})


def test_cancelled_response_is_not_sent(server: Server) -> None:
    with connect_client(server, "?dialect=responses") as client:
        client.receive()
        client.update(**session_of())
        client.append(DEMO_PCM)
        client.send("response.create")
        client.send("response.cancel")
        assert client.receive()["type"] == "response.cancelled"
        client.append(bytes(6_400))
        client.send("response.create")
        assert client.receive()["type"] == "response.completed", "no speech since the last response"


def test_response_in_the_openai_dialect(server: Server) -> None:
    with connect_client(server) as client:
        client.receive()
        client.update(**session_of(turn_detection=None))
        client.append(DIGITS)
        client.send("response.create")
        events = client.receive_until("response.completed")
    assert texts(events) == SAID
    assert events[-2] == events[-2] | {"type": "response.output_text.delta", "delta": SAID}
