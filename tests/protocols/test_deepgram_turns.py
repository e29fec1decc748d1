"""`/v2/listen`: turns from first words to end, client messages, rejections and closing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlencode

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.audio.recordings import encode
from tests.protocols.live_clients import Message, _reset, pcm16, pieces
from tests.protocols.servers import PATIENCE, SAID, TINY_MODEL, Server, demo

DIGITS = pcm16(demo())
RAW = {"model": "flux-general-en", "encoding": "linear16", "sample_rate": "16000"}
FORCE, CLOSE = {"type": "ForceEndTurn"}, {"type": "CloseStream"}
ONE_TURN = {"eot_threshold": "1.0", "eot_timeout_ms": "5000"}


@contextmanager
def connect_client(server: Server, query: dict[str, str] = RAW, **extra_query: str) -> Iterator[ClientConnection]:
    url = server.url(f"/v2/listen?{urlencode(query | extra_query)}")
    with connect(url, compression=None, open_timeout=PATIENCE, max_size=None) as connection:
        assert receive(connection).keys() == {"type", "request_id", "sequence_id"}
        yield connection


def receive(connection: ClientConnection) -> Message:
    event: Message = json.loads(connection.recv(PATIENCE))
    return event


def receive_rest(connection: ClientConnection) -> tuple[list[Message], int]:
    events: list[Message] = []
    with suppress(ConnectionClosed):
        while True:
            events.append(receive(connection))
    assert connection.close_code
    return events, connection.close_code


def transcribe(
    server: Server, messages: list[bytes | Message], query: dict[str, str] = RAW, **extra_query: str
) -> list[Message]:
    """Sends the messages and returns the turn events; the close must be normal."""
    with connect_client(server, query, **extra_query) as connection:
        for message in messages:
            connection.send(message if isinstance(message, bytes) else json.dumps(message))
        events, code = receive_rest(connection)
    assert code == 1000
    assert [event["sequence_id"] for event in events] == list(range(1, len(events) + 1))
    turns = [event for event in events if event["type"] == "TurnInfo"]
    check_order(turns)
    return turns


def check_order(turns: list[Message]) -> None:
    """Turns follow one another; each starts once and ends once, with its updates in between."""
    index, is_open, is_eager, until = 0, False, False, 0.0
    for turn in turns:
        event = turn["event"]
        assert turn["turn_index"] == index
        assert is_open == (event != "StartOfTurn")
        assert is_eager or event != "TurnResumed"
        assert turn["audio_window_start"] == until
        assert turn["audio_window_end"] >= turn["audio_window_start"]
        assert turn["transcript"] == " ".join(word["word"] for word in turn["words"]) != ""
        assert 0 <= turn["end_of_turn_confidence"] <= 1
        assert ("trigger" in turn) == (event == "EndOfTurn")
        is_open, is_eager = event != "EndOfTurn", event == "EagerEndOfTurn"
        if event == "EndOfTurn":
            index, until = index + 1, turn["audio_window_end"]
    assert not is_open


def ended_transcripts(turns: list[Message]) -> list[str]:
    return [event["transcript"] for event in turns if event["event"] == "EndOfTurn"]


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    model=st.sampled_from(["flux-general-en", str(TINY_MODEL)]),
    threshold=st.sampled_from(["0.5", "0.7", "0.95", "1.0"]),
    eager=st.sampled_from([None, "0.3", "0.6"]),
    size=st.integers(500, 60_000),
    forced=st.lists(st.integers(0, 20), max_size=3),
)
def test_turns_follow_one_another(
    digits_server: Server, model: str, threshold: str, eager: str | None, size: int, forced: list[int]
) -> None:
    packets: list[bytes | Message] = [*pieces(DIGITS + bytes(32_000), size)]
    for at in sorted(forced, reverse=True):
        packets.insert(min(at, len(packets)), FORCE)
    options = {"model": model, "eot_threshold": threshold} | ({"eager_eot_threshold": eager} if eager else {})
    turns = transcribe(digits_server, [*packets, CLOSE], **options)
    assert len(" ".join(ended_transcripts(turns)).split()) >= 6
    if not eager:
        assert {event["event"] for event in turns} <= {"StartOfTurn", "Update", "EndOfTurn"}
    if not forced and model == RAW["model"]:
        assert " ".join(ended_transcripts(turns)) == SAID


def test_force_end_turn(digits_server: Server) -> None:
    with connect_client(digits_server, **ONE_TURN) as connection:
        connection.send(json.dumps(FORCE))  # of no turn
        for piece in pieces(DIGITS):
            connection.send(piece)
        connection.send(json.dumps(FORCE))
        event = receive(connection)
        while event["type"] != "TurnInfo" or event["event"] != "EndOfTurn":
            event = receive(connection)
        assert (event["trigger"], event["turn_index"]) == ("manual", 0)
        assert event["words"][-1].keys() == {"word", "confidence", "start", "end"}
        connection.send(json.dumps(CLOSE))
        assert receive_rest(connection) == ([], 1000)


def test_turn_ends_after_timeout(digits_server: Server) -> None:
    options = {"eot_threshold": "1.0", "eot_timeout_ms": "1500"}
    turns = transcribe(digits_server, [*pieces(DIGITS + bytes(32_000 * 3)), CLOSE], **options)
    assert turns[-1]["trigger"] == "timeout"
    assert turns[-1]["end_of_turn_confidence"] > 0.9


def test_thresholds_can_be_changed(digits_server: Server) -> None:
    with connect_client(digits_server, **ONE_TURN) as connection:
        for thresholds, expected in [
            ({}, {"eot_threshold": 1.0, "eot_timeout_ms": 5000}),
            ({"eot_threshold": 0.6, "eager_eot_threshold": 0.4}, {"eot_threshold": 0.6, "eager_eot_threshold": 0.4}),
            ({"eager_eot_threshold": None, "eot_timeout_ms": 900}, {"eot_threshold": 0.6, "eot_timeout_ms": 900}),
        ]:
            connection.send(json.dumps({"type": "Configure", "thresholds": thresholds}))
            answer = receive(connection)
            assert answer["type"] == "ConfigureSuccess"
            assert expected.items() <= answer["thresholds"].items()
            assert answer["keyterms"] == []
        for piece in pieces(DIGITS + bytes(32_000 * 2)):
            connection.send(piece)
        while (event := receive(connection)).get("event") != "EndOfTurn":
            pass
        assert event["trigger"] == "model"


@pytest.mark.parametrize(
    ("configure", "code"),
    [
        ({"thresholds": {"eot_threshold": 0.2}}, "INVALID_THRESHOLD"),
        ({"thresholds": {"eager_eot_threshold": 0.95}}, "INVALID_THRESHOLD"),
        ({"thresholds": {"eot_timeout_ms": 5, "eot_threshold": 0.6}}, "INVALID_THRESHOLD"),
        ({"keyterms": ["Conure"]}, "KEYTERMS_NOT_SUPPORTED"),
        ({"numerals": True}, "FEATURE_NOT_SUPPORTED"),
        ({"language_hints": ["de"]}, "FEATURE_NOT_SUPPORTED"),
    ],
)
def test_unsupported_configure_is_rejected_whole(digits_server: Server, configure: Message, code: str) -> None:
    with connect_client(digits_server) as connection:
        connection.send(json.dumps({"type": "Configure"} | configure))
        event = receive(connection)
        assert (event["type"], event["code"], event["error_code"]) == ("ConfigureFailure", code, code)
        assert event["description"]
        connection.send(json.dumps({"type": "Configure"}))
        assert receive(connection)["thresholds"] == {"eot_threshold": 0.7, "eot_timeout_ms": 5000}


@pytest.mark.parametrize("text", ["hello", '{"type": "Finalize"}', '{"type": "Configure", "thresholds": 5}'])
def test_invalid_message_closes_the_connection(digits_server: Server, text: str) -> None:
    with connect_client(digits_server) as connection:
        connection.send(text)
        (event,), code = receive_rest(connection)
    assert (event["type"], event["code"], code) == ("Error", "UNPARSABLE_CLIENT_MESSAGE", 1008)
    digits_server.settled(0)


def test_unreadable_audio_closes_the_connection(digits_server: Server) -> None:
    with connect_client(digits_server, RAW | {"encoding": "linear32"}) as connection:
        connection.send(np.full(9, np.nan, "<f4").tobytes())
        events, code = receive_rest(connection)
    assert (events[-1]["type"], events[-1]["code"], code) == ("Error", "DATA-0000", 1008)


def test_container(digits_server: Server) -> None:
    recording = encode(demo(48_000)[None], 48_000, "ogg", "libopus")
    turns = transcribe(digits_server, [*pieces(recording, 2_000), CLOSE], {"model": "flux-general-en"}, **ONE_TURN)
    assert len(ended_transcripts(turns)[-1].split()) >= 6


def test_ignored_parameters_cause_warnings(digits_server: Server) -> None:
    with connect_client(digits_server, keyterm="parrot", numerals="true", zzz="1") as connection:
        for name in ("keyterm", "numerals", "zzz"):
            event = receive(connection)
            assert (event["type"], event["code"]) == ("Warning", "PARAMETER_IGNORED")
            assert event["description"].startswith(name)


@pytest.mark.parametrize(
    ("invalid_query", "message"),
    [
        ({"eot_threshold": "0.4"}, "0.4"),
        ({"eot_threshold": "high"}, "high"),
        ({"eager_eot_threshold": "0.95"}, "0.95"),
        ({"eot_timeout_ms": "100"}, "100"),
        ({"encoding": "g729"}, "g729"),
        ({"model": "nothing-like-it"}, "nothing-like-it"),
    ],
)
def test_rejected_handshake_names_the_reason(
    digits_server: Server, invalid_query: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidStatus) as refused, connect_client(digits_server, RAW | invalid_query):
        pass
    response = refused.value.response
    assert response.status_code == 400
    assert message in response.headers["dg-error"]
    assert message in json.loads(response.body)["err_msg"]


def test_disconnect_ends_the_stream(digits_server: Server) -> None:
    with connect_client(digits_server) as connection:
        connection.send(DIGITS)
        receive(connection)
        assert digits_server.health()["streams"] == 1
        _reset(connection.socket)
    digits_server.settled(0)
