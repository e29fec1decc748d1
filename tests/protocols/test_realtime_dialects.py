"""What grew from OpenAI's Realtime protocol, and what came before: each told apart by how its clients come."""

from __future__ import annotations

import base64
import io
import json
import wave

import pytest

from tests.protocols.live_clients import Message, pcm16, pieces
from tests.protocols.realtime_clients import ASR, DIGITS, Talk, session_of, talk, texts
from tests.protocols.servers import SAID, Server, demo

SPOKEN = pcm16(demo(16_000))
NIM = {"input_audio_transcription": {"model": "tiny"}, "input_audio_params": {"sample_rate_hz": 16_000}}


def post(server: Server, path: str, body: Message) -> tuple[int, Message]:
    status, told = server.post(f"/v1/realtime/{path}", json.dumps(body).encode())
    answer: Message = json.loads(told)
    return status, answer


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(SPOKEN)
    return file.getvalue()


def chunk(on: Talk, audio: bytes, **fields: Message) -> None:
    on.say("input_audio_buffer.append", audio=base64.b64encode(audio).decode(), **fields)
    on.commit()


def finals(heard: list[Message]) -> list[Message]:
    return [told for told in heard if told["type"] == f"{ASR}.completed"]


def last_result(on: Talk) -> list[Message]:
    heard = on.until(f"{ASR}.completed")
    while not heard[-1]["is_last_result"]:
        heard += on.until(f"{ASR}.completed")
    return heard


# The first version.


def test_the_first_version(server: Server) -> None:
    with talk(server, **{"OpenAI-Beta": "realtime=v1"}) as on:
        created = on.hear()
        assert created["type"] == "transcription_session.created"
        assert created["session"]["input_audio_format"] == "pcm16"
        changes = {
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "tiny", "language": "en"},
            "input_audio_noise_reduction": {"type": "near_field"},
            "turn_detection": None,
        }
        on.say("transcription_session.update", session=changes)
        updated = on.hear()
        assert updated["type"] == "transcription_session.updated"
        assert {name: updated["session"][name] for name in changes} == changes
        on.say("transcription_session.update", session={"input_audio_format": "pcm16"})
        assert on.hear()["session"]["input_audio_transcription"]["model"] == "tiny"
        on.append(DIGITS)
        on.commit()
        heard = on.until(f"{ASR}.completed")
    assert texts(heard) == SAID
    kinds = [told["type"] for told in heard if told["type"] != f"{ASR}.delta"]
    assert kinds == ["input_audio_buffer.committed", "conversation.item.created", f"{ASR}.completed"]


def test_flat_updates_are_accepted_in_all_dialects(server: Server) -> None:
    with talk(server) as on:
        assert on.hear()["type"] == "session.created"
        on.say("transcription_session.update", session={"turn_detection": None})
        assert on.hear()["type"] == "transcription_session.updated"
        assert on.update(input_audio_format="g711_alaw")["audio"]["input"]["format"] == {"type": "audio/pcma"}


# Secrets.


@pytest.mark.parametrize("subprotocol", ["openai-insecure-api-key.{}", "header"])
def test_secret_opens_with_its_session(server: Server, subprotocol: str) -> None:
    wish = {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": session_of(turn_detection=None)}
    status, minted = post(server, "client_secrets", wish)
    assert status == 200
    assert minted["session"]["audio"]["input"]["transcription"]["model"] == "tiny"
    assert minted["session"]["object"] == "realtime.transcription_session"
    secret = minted["value"]
    offered = ["realtime", subprotocol.format(secret)] if subprotocol != "header" else []
    headers = {} if offered else {"Authorization": f"Bearer {secret}"}
    with talk(server, subprotocols=offered, **headers) as on:
        assert on.connection.subprotocol == ("realtime" if offered else None), "the secret is not said back"
        assert on.hear()["session"]["audio"] == minted["session"]["audio"]
        on.append(DIGITS)
        on.commit()
        assert texts(on.until(f"{ASR}.completed")) == SAID


@pytest.mark.parametrize(
    ("path", "wish", "status"),
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
def test_rejected_secret_requests(server: Server, path: str, wish: Message, status: int) -> None:
    told, answer = post(server, path, wish)
    assert told == status
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
    with talk(server, subprotocols=["realtime", f"realtime-token.{secret}"]) as on:
        assert on.connection.subprotocol == "realtime"
        assert on.hear()["type"] == "conversation.created"
        timed = {"recognition_config": session["recognition_config"] | {"enable_word_time_offsets": True}}
        on.say("transcription_session.update", session=session | NIM | timed)
        updated = on.hear()
        assert updated["type"] == "transcription_session.updated"
        assert updated["session"]["input_audio_params"] == {"sample_rate_hz": 16_000, "num_channels": 1}
        assert secret not in json.dumps(updated)
        for piece in pieces(SPOKEN):
            chunk(on, piece)
        on.say("input_audio_buffer.done")
        heard = last_result(on)
    *parts, whole = finals(heard)
    assert texts([told for told in heard if not told.get("is_last_result")]) == SAID
    assert whole["transcript"] == SAID
    words = whole["words_info"]["words"]
    assert " ".join(word["word"] for word in words) == SAID
    assert words == [word for part in parts for word in part["words_info"]["words"]]
    times = [time for word in words for time in (word["start_time"], word["end_time"])]
    assert times == sorted(times)
    assert whole["usage"]["seconds"] == pytest.approx(len(SPOKEN) / 32_000, abs=0.1)
    assert sum(told["type"] == "input_audio_buffer.committed" for told in heard) == len(pieces(SPOKEN))


def test_containers_are_detected(server: Server) -> None:
    with talk(server, "?dialect=nim") as on:
        on.hear()
        on.say("transcription_session.update", session=NIM | {"input_audio_format": "none"})
        on.hear()
        for piece in pieces(wav()):
            chunk(on, piece)
        on.say("input_audio_buffer.done")
        assert last_result(on)[-1]["transcript"] == SAID


def test_force_eou_ends_the_utterance(server: Server) -> None:
    half = len(SPOKEN) // 4 * 2
    with talk(server, "?dialect=nim") as on:
        on.hear()
        on.say("transcription_session.update", session=NIM | {"endpointing_config": {"stop_history": 3000}})
        on.hear()
        chunk(on, SPOKEN[:half], runtime_config={"force_eou": "true"})
        first = on.until(f"{ASR}.completed")[-1]
        chunk(on, SPOKEN[half:])
        on.say("input_audio_buffer.done")
        whole = last_result(on)[-1]
        assert first["transcript"]
        assert whole["transcript"].startswith(first["transcript"])
        on.say("input_audio_buffer.done")
        assert (on.hear()["transcript"], server.health()["streams"]) == ("", 0)


def test_nim_session_selects_the_dialect(server: Server) -> None:
    with talk(server) as on:
        assert on.hear()["type"] == "session.created"
        on.say("transcription_session.update", session=NIM)
        assert on.hear()["session"]["recognition_config"]
        chunk(on, SPOKEN)
        on.say("input_audio_buffer.done")
        assert last_result(on)[-1]["transcript"] == SAID


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
    with talk(server, "?dialect=nim") as on:
        on.hear()
        on.say("transcription_session.update", session=wrong)
        assert on.refused()["type"] == "invalid_request_error"
        on.say("transcription_session.update", session={"input_audio_transcription": {"model": "conformer"}})
        assert on.hear()["type"] == "transcription_session.updated", "any name is a model's"


# Responses.


def test_responses(server: Server) -> None:
    with talk(server, "", subprotocols=["openai-realtime", "realtime"]) as on:
        assert on.connection.subprotocol == "openai-realtime"
        created = on.hear()
        assert (created["type"], created["id"]) == ("session.created", created["session"]["id"])
        on.say("session.create", session=session_of())
        assert on.hear()["type"] == "session.updated"
        for _ in range(2):
            for piece in pieces(SPOKEN):
                on.say("input_audio_buffer.append", audio_base64=base64.b64encode(piece).decode())
            on.commit()
            on.say("response.create")
            heard = on.until("response.completed")
            assert [told["type"] for told in heard] == [
                *("input_audio_buffer.committed", "response.output_text.delta", "response.completed")
            ]
            assert heard[1]["delta"] == SAID
        on.say("response.create")
        assert on.hear()["error"]["type"] == "no_audio"
        on.append(SPOKEN)
        on.say("input_audio_buffer.clear")
        assert on.hear()["type"] == "input_audio_buffer.cleared"
        on.say("response.create")
        assert on.hear()["error"]["type"] == "no_audio"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"type": "input_audio_buffer.append", "audio_base64": "?"}, "invalid_base64"),
        ({"type": "input_audio_buffer.append"}, "missing_audio_base64"),
        ({"type": "input_audio_buffer.commit"}, "no_audio"),
        ({"type": "magic"}, "unsupported_type"),
    ],
)
def test_errors_are_types(server: Server, said: Message, kind: str) -> None:
    with talk(server, "?dialect=responses") as on:
        on.hear()
        on.connection.send(json.dumps(said))
        fault = on.hear()["error"]
        assert (fault["type"], fault.keys()) == (kind, {"type", "message"})


def test_cancelled_response_is_not_sent(server: Server) -> None:
    with talk(server, "?dialect=responses") as on:
        on.hear()
        on.update(**session_of())
        on.append(SPOKEN)
        on.say("response.create")
        on.say("response.cancel")
        assert on.hear()["type"] == "response.cancelled"
        on.append(bytes(6_400))
        on.say("response.create")
        assert on.hear()["type"] == "response.completed", "nothing was said since"


def test_response_in_the_openai_dialect(server: Server) -> None:
    with talk(server) as on:
        on.hear()
        on.update(**session_of(turn_detection=None))
        on.append(DIGITS)
        on.say("response.create")
        heard = on.until("response.completed")
    assert texts(heard) == SAID
    assert heard[-2] == heard[-2] | {"type": "response.output_text.delta", "delta": SAID}
