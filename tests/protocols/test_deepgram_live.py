"""`/v1/listen`: finals that tile the audio, client messages, rejections and closing."""

from __future__ import annotations

import hashlib
import itertools
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
from websockets.typing import Subprotocol

from tests.audio.recordings import encode
from tests.protocols.live_clients import Message, _reset, pcm16, pieces
from tests.protocols.servers import PATIENCE, SAID, TINY_MODEL, Server, demo
from tests.vad.digits import silences, spoken_apart

DIGITS = pcm16(demo())
SECONDS = len(DIGITS) / 32_000
RAW = {"model": "nova-3", "encoding": "linear16", "sample_rate": "16000"}
FINALIZE, CLOSE = {"type": "Finalize"}, {"type": "CloseStream"}


@contextmanager
def connect_client(server: Server, query: dict[str, str] = RAW, **extra_query: str) -> Iterator[ClientConnection]:
    url = server.url(f"/v1/listen?{urlencode(query | extra_query)}")
    with connect(url, compression=None, open_timeout=PATIENCE, max_size=None) as connection:
        yield connection


def receive(connection: ClientConnection) -> Message:
    event: Message = json.loads(connection.recv(PATIENCE))
    return event


def receive_rest(connection: ClientConnection) -> tuple[list[Message], int, str]:
    """Receives until the server closes; also returns the close code and reason."""
    events: list[Message] = []
    with suppress(ConnectionClosed):
        while True:
            events.append(receive(connection))
    assert connection.close_code
    return events, connection.close_code, connection.close_reason or ""


def transcribe(
    server: Server, messages: list[bytes | Message], query: dict[str, str] = RAW, **extra_query: str
) -> list[Message]:
    """Sends the messages and returns all events; the close must be normal."""
    with connect_client(server, query, **extra_query) as connection:
        for message in messages:
            connection.send(message if isinstance(message, bytes) else json.dumps(message))
        events, code, _ = receive_rest(connection)
    assert code == 1000
    assert [event["type"] for event in events].index("Metadata") == len(events) - 1
    return events


def finals(events: list[Message], channel: int = 0) -> list[Message]:
    results = [event for event in events if event["type"] == "Results" and event["channel_index"][0] == channel]
    return [event for event in results if event["is_final"]]


def text_of(result: Message) -> str:
    text: str = result["channel"]["alternatives"][0]["transcript"]
    return text


def transcript_of(events: list[Message], channel: int = 0) -> str:
    return " ".join(filter(None, map(text_of, finals(events, channel))))


def check_tiles(events: list[Message], seconds: float, channel: int = 0) -> None:
    """Each final, and each interim, begins where the previous final ended; finals cover the whole audio."""
    until = 0.0
    for event in events:
        if event["type"] != "Results" or event["channel_index"][0] != channel:
            continue
        assert event["start"] == pytest.approx(until, abs=1e-6)
        assert event["duration"] >= 0
        assert event["metadata"]["request_id"]
        if event["is_final"]:
            until += event["duration"]
            for word in event["channel"]["alternatives"][0]["words"]:
                assert word["end"] <= until + 0.16  # two steps of the encoder
    assert until == pytest.approx(seconds, abs=1e-5)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    model=st.sampled_from(["nova-3", str(TINY_MODEL)]),
    endpointing=st.sampled_from(["", "10", "300", "true", "false", "2000"]),
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=4),
    silence=st.sampled_from([0, 1_000, 10_000]),
    finalizes=st.lists(st.integers(0, 12), max_size=3),
)
def test_finals_tile_the_audio(
    digits_server: Server, model: str, endpointing: str, sizes: list[int], silence: int, finalizes: list[int]
) -> None:
    data = DIGITS + bytes(2 * 16 * silence)
    packets: list[bytes | Message] = []
    for size in itertools.cycle(sizes):
        if not data:
            break
        packets, data = [*packets, data[: size + 1_000]], data[size + 1_000 :]
    for at in sorted(finalizes, reverse=True):
        packets.insert(min(at, len(packets)), FINALIZE)
    options = {"interim_results": "true", "model": model} | _query(endpointing=endpointing)
    events = transcribe(digits_server, [*packets, CLOSE], **options)
    check_tiles(events, SECONDS + silence / 1000)
    assert sum(event["from_finalize"] for event in finals(events)) == len(finalizes)
    if not finalizes and model == "nova-3":
        assert transcript_of(events) == SAID
        assert any(event["speech_final"] for event in finals(events)) or endpointing == "false"


def _query(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def test_metadata_describes_the_audio(digits_server: Server) -> None:
    events = transcribe(digits_server, [*pieces(DIGITS), CLOSE])
    event = events[-1]
    assert event["sha256"] == hashlib.sha256(DIGITS).hexdigest()
    assert event["duration"] == pytest.approx(SECONDS)
    assert event["channels"] == 1
    assert event["request_id"] == events[0]["metadata"]["request_id"]
    assert event["created"].endswith("Z")
    assert "warnings" not in event
    info = events[0]["metadata"]["model_info"]
    assert info["name"] == "tiny-live"
    assert info.keys() == {"name", "version", "arch"}


def test_empty_packet_ends_the_stream(digits_server: Server) -> None:
    assert transcript_of(transcribe(digits_server, [*pieces(DIGITS), b""])) == SAID
    (event,) = transcribe(digits_server, [b""])
    assert event["duration"] == 0


def test_interims_replace_each_other_before_finals(digits_server: Server) -> None:
    events = transcribe(digits_server, [*pieces(DIGITS), CLOSE], interim_results="true", endpointing="2000")
    interims = [event for event in events if event["type"] == "Results" and not event["is_final"]]
    assert "seven three" in map(text_of, interims)
    assert all(text_of(event) for event in interims)
    assert events.index(interims[0]) < events.index(finals(events)[0])
    assert all(event["is_final"] for event in transcribe(digits_server, [*pieces(DIGITS), CLOSE])[:-1])


def test_stable_words_of_a_long_utterance_are_finalized(digits_server: Server) -> None:
    events = transcribe(digits_server, [*pieces(DIGITS), CLOSE], endpointing="false")
    assert len(finals(events)) > 1
    assert transcript_of(events) == SAID
    check_tiles(events, SECONDS)
    assert not any(event["speech_final"] for event in finals(events)[:-1])


def test_silence_is_finalized_as_it_passes(digits_server: Server) -> None:
    with connect_client(digits_server) as connection:
        for piece in pieces(bytes(32_000 * 15), 32_000):
            connection.send(piece)
        event = receive(connection)
        assert (event["start"], text_of(event), event["is_final"], event["speech_final"]) == (0.0, "", True, False)
        assert 4.0 <= event["duration"] <= 15.0


def test_words_are_lexical_unless_written_form_is_requested(digits_server: Server) -> None:
    (plain, *_), (written, *_) = (
        finals(transcribe(digits_server, [*pieces(DIGITS), CLOSE], punctuate=punctuate))
        for punctuate in ("false", "true")
    )
    (word, *_), (other, *_) = (result["channel"]["alternatives"][0]["words"] for result in (plain, written))
    assert word.keys() == {"word", "start", "end", "confidence"}
    assert other == word | {"punctuated_word": "seven"}


def test_finalize_is_answered_without_words(digits_server: Server) -> None:
    with connect_client(digits_server, endpointing="2000") as connection:
        connection.send(json.dumps(FINALIZE))
        event = receive(connection)
        assert (event["from_finalize"], text_of(event), event["duration"]) == (True, "", 0.0)
        for piece in pieces(DIGITS):
            connection.send(piece)
        connection.send(json.dumps(FINALIZE))
        event = receive(connection)
        while not event["from_finalize"]:
            assert event["is_final"]
            event = receive(connection)
        assert text_of(event).endswith("two")
        assert event["speech_final"]
        assert event["start"] + event["duration"] == pytest.approx(SECONDS)
        connection.send(json.dumps(FINALIZE))
        second_answer = receive(connection)
        assert (second_answer["from_finalize"], second_answer["start"]) == (True, pytest.approx(SECONDS))
        connection.send(json.dumps(CLOSE))
        events, code, _ = receive_rest(connection)
        assert ([event["type"] for event in events], code) == (["Metadata"], 1000)


@pytest.mark.parametrize("model", ["nova-3", str(TINY_MODEL)])
def test_finalize_in_silence_changes_no_words(digits_server: Server, model: str) -> None:
    """Finalizes at twelve positions in the silence before a word, and at all of them."""
    samples, words = spoken_apart(8)
    data = pcm16(samples)
    begin, end = silences(words, samples)[1]
    places = [2 * round(at) for at in np.linspace(begin, end, 12)]
    for cuts in ([], *([place] for place in places), places):
        packets: list[bytes | Message] = []
        for start, until in itertools.pairwise([0, *cuts, len(data)]):
            packets += [*pieces(data[start:until]), FINALIZE]
        events = transcribe(digits_server, [*packets, CLOSE], model=model, endpointing="false")
        assert transcript_of(events) == " ".join(word.text for word in words), [place / 32_000 for place in cuts]
        sent_words = [word for final in finals(events) for word in final["channel"]["alternatives"][0]["words"]]
        assert sent_words == sorted(sent_words, key=lambda word: (word["start"], word["end"]))
        check_tiles(events, len(data) / 32_000)


def test_finalize_after_each_word_loses_no_words(digits_server: Server) -> None:
    """Like a client that finalizes as soon as its own detector reports silence."""
    quiet = [at for at in range(0, len(DIGITS) // 2, 160) if np.abs(demo()[max(at - 3_200, 0) : at + 1]).max() < 0.02]
    first_of_each = [at for at in quiet if at - 160 not in quiet]
    assert len(first_of_each) >= 4
    packets: list[bytes | Message] = []
    for begin, end in itertools.pairwise([0, *(2 * at for at in first_of_each), len(DIGITS)]):
        packets += [*pieces(DIGITS[begin:end]), FINALIZE]
    assert transcript_of(transcribe(digits_server, [*packets, CLOSE])) == SAID


def test_speech_started_and_utterance_end(digits_server: Server) -> None:
    messages = [*pieces(DIGITS), *pieces(bytes(32_000 * 3)), CLOSE]
    options = {"vad_events": "true", "interim_results": "true", "utterance_end_ms": "1000"}
    events = transcribe(digits_server, messages, **options)
    started = next(event for event in events if event["type"] == "SpeechStarted")
    assert started == {"type": "SpeechStarted", "channel": [0, 1], "timestamp": started["timestamp"]}
    assert 0.2 < started["timestamp"] < 0.8
    ends = [event for event in events if event["type"] == "UtteranceEnd"]
    words = [word for event in finals(events) for word in event["channel"]["alternatives"][0]["words"]]
    assert ends[-1] == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": words[-1]["end"]}
    starts = [event["timestamp"] for event in events if event["type"] == "SpeechStarted"]
    quiet = [
        (a["end"], min([b["start"], *(at for at in starts if a["end"] < at)])) for a, b in itertools.pairwise(words)
    ]  # from a word to where somebody speaks again
    gaps = [begin for begin, end in quiet if end - begin >= 1.0]
    assert [event["last_word_end"] for event in ends] == [*gaps, words[-1]["end"]]
    kinds = [event["type"] for event in events if event["type"] in ("SpeechStarted", "UtteranceEnd", "Results")]
    assert "UtteranceEnd" not in {b for a, b in itertools.pairwise(kinds) if a == "SpeechStarted"}
    quiet = transcribe(digits_server, messages)
    assert {event["type"] for event in quiet} == {"Results", "Metadata"}


def test_configure(digits_server: Server) -> None:
    with connect_client(digits_server) as connection:
        for fields, answer in [
            ({"keyterms": ["Conure"]}, {"type": "ConfigureFailure", "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED"}),
            (
                {"features": {"numerals": True}},
                {"type": "ConfigureFailure", "code": "CONFIGURE_FEATURES_NOT_SUPPORTED"},
            ),
            ({"keyterms": []}, {"type": "ConfigureSuccess", "keyterms": []}),
            ({"features": {"numerals": False}}, {"type": "ConfigureSuccess"}),
        ]:
            connection.send(json.dumps({"type": "Configure"} | fields))
            event = receive(connection)
            assert answer.items() <= event.items()
            assert event["request_id"]
            assert ("description" in event) == (event["type"] == "ConfigureFailure")


@pytest.mark.parametrize(
    "text", ["hello", "[]", '{"type": "Speak"}', '{"type": "Configure", "keyterms": 5}', "[" * 9_999]
)
def test_invalid_message_is_reported_and_survived(digits_server: Server, text: str) -> None:
    with connect_client(digits_server) as connection:
        connection.send(text)
        event = receive(connection)
        assert (event["type"], event["variant"], event["message"]) == ("Error", "SchemaError", text)
        assert event["description"]
        connection.send(json.dumps({"type": "KeepAlive"}))
        connection.send(json.dumps(FINALIZE))
        assert receive(connection)["from_finalize"]


def test_channels_are_transcribed_separately(digits_server: Server) -> None:
    late = np.concatenate([np.zeros(8_000, np.int16), np.frombuffer(DIGITS, "<i2")])
    both = np.stack([np.pad(np.frombuffer(DIGITS, "<i2"), (0, 8_000)), late], axis=1).tobytes()
    data = [*pieces(both, 12_801), FINALIZE, CLOSE]
    events = transcribe(digits_server, data, channels="2", multichannel="true", vad_events="true")
    assert [transcript_of(events, channel) for channel in (0, 1)] == [SAID, SAID]
    for channel in (0, 1):
        check_tiles(events, SECONDS + 0.5, channel)
        assert sum(event["from_finalize"] for event in finals(events, channel)) == 1
    assert {tuple(event["channel"]) for event in events if event["type"] == "SpeechStarted"} == {(0, 2), (1, 2)}
    assert events[-1]["channels"] == 2
    assert events[-1]["sha256"] == hashlib.sha256(both).hexdigest()
    mixed = transcribe(digits_server, [*pieces(both), CLOSE], channels="2")
    assert {tuple(event["channel_index"]) for event in mixed[:-1]} == {(0, 1)}


@pytest.mark.parametrize(
    ("encoding", "rate", "codec"),
    [("linear32", 16_000, "pcm_f32le"), ("mulaw", 8_000, "pcm_mulaw"), ("alaw", 8_000, "pcm_alaw")],
)
def test_raw_encodings(digits_server: Server, encoding: str, rate: int, codec: str) -> None:
    recording = encode(demo(rate)[None], rate, "wav", codec)
    data = recording[recording.index(b"data") + 8 :]
    events = transcribe(digits_server, [*pieces(data), CLOSE], RAW | {"encoding": encoding, "sample_rate": str(rate)})
    assert transcript_of(events) == SAID


@pytest.mark.parametrize(
    ("container", "codec", "encoding"),
    [("ogg", "libopus", "opus"), ("ogg", "libopus", "ogg-opus"), ("flac", "flac", "flac"), ("webm", "libopus", "")],
)
def test_containers(digits_server: Server, container: str, codec: str, encoding: str) -> None:
    recording = encode(demo(48_000)[None], 48_000, container, codec)
    events = transcribe(
        digits_server, [*pieces(recording, 2_000), CLOSE], {"model": "nova-3"} | _query(encoding=encoding)
    )
    assert transcript_of(events) == SAID


def test_ignored_options_are_reported(digits_server: Server) -> None:
    options = {"keywords": "parrot:2", "diarize": "true", "redact": "pci", "numerals": "false", "tag": "a", "zzz": "1"}
    with connect_client(digits_server, **options) as connection:
        assert connection.response
        assert connection.response.headers["Conure-Ignored"] == "keywords, diarize, redact, zzz"
        assert connection.response.headers["dg-request-id"]
        connection.send(json.dumps(CLOSE))
        events, _, _ = receive_rest(connection)
    assert [warning["parameter"] for warning in events[-1]["warnings"]] == ["keywords", "diarize", "redact", "zzz"]


@pytest.mark.parametrize("scheme", ["token", "bearer"])
def test_key_as_subprotocol(digits_server: Server, scheme: str) -> None:
    offered = [Subprotocol(scheme), Subprotocol("a-key")]
    with connect(digits_server.url(f"/v1/listen?{urlencode(RAW)}"), subprotocols=offered) as connection:
        assert connection.subprotocol == scheme


@pytest.mark.parametrize(
    ("invalid_query", "message"),
    [
        ({"encoding": "speex"}, "speex"),
        ({"encoding": "amr-nb"}, "amr-nb"),
        ({"sample_rate": ""}, "sample_rate"),
        ({"sample_rate": "400"}, "400"),
        ({"sample_rate": "fast"}, "fast"),
        ({"channels": "9"}, "9"),
        ({"channels": "1.5"}, "1.5"),
        ({"model": "nothing-like-it"}, "nothing-like-it"),
        ({"language": "tlh"}, "tlh"),
        ({"endpointing": "soon"}, "soon"),
        ({"endpointing": "-1"}, "-1"),
        ({"interim_results": "perhaps"}, "perhaps"),
        ({"utterance_end_ms": "1000"}, "interim_results"),
        ({"utterance_end_ms": "999", "interim_results": "true"}, "999"),
        ({"utterance_end_ms": "true", "interim_results": "true"}, "utterance_end_ms"),
        ({"encoding": "flac", "multichannel": "true"}, "channels"),
    ],
)
def test_rejected_handshake_names_the_reason(
    digits_server: Server, invalid_query: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidStatus) as refused, connect_client(digits_server, RAW | invalid_query):
        pass
    response = refused.value.response
    assert response.status_code == 400
    body = json.loads(response.body)
    assert body.keys() == {"err_code", "err_msg", "request_id"}
    assert message in body["err_msg"]
    assert response.headers["dg-error"] == body["err_msg"]
    assert response.headers["dg-request-id"] == body["request_id"]
    digits_server.settled(0)


def test_unreadable_audio_closes_with_a_reason(digits_server: Server) -> None:
    with connect_client(digits_server, {"model": "nova-3"}) as connection:
        connection.send(b"this is no recording at all" * 100)
        connection.send(json.dumps(CLOSE))
        events, code, reason = receive_rest(connection)
    assert (events[-1]["type"], events[-1]["variant"]) == ("Error", "unsupported_audio")
    assert (code, reason[:9]) == (1008, "DATA-0000")
    with connect_client(digits_server, RAW | {"encoding": "linear32"}) as connection:
        connection.send(demo().astype("<f4").tobytes())
        connection.send(np.full(9, np.nan, "<f4").tobytes())
        events, code, _ = receive_rest(connection)
    assert (transcript_of(events), code) == (SAID, 1008)  # the audio before it is transcribed


def test_idle_timeout_and_keep_alive(digits_server: Server) -> None:
    with connect_client(digits_server) as silent, connect_client(digits_server) as alive:
        with suppress(ConnectionClosed):
            while True:
                alive.send(json.dumps({"type": "KeepAlive"}))
                with suppress(TimeoutError):
                    silent.recv(2.0)
        assert silent.close_code == 1011
        assert (silent.close_reason or "").startswith("NET-0001")
        alive.send(json.dumps(FINALIZE))
        assert receive(alive)["from_finalize"]


@pytest.mark.parametrize("extra_query", [{}, {"channels": "2", "multichannel": "true"}])
def test_disconnect_ends_the_streams(digits_server: Server, extra_query: dict[str, str]) -> None:
    with connect_client(digits_server, **extra_query) as connection:
        connection.send(DIGITS)
        connection.send(json.dumps(FINALIZE))
        receive(connection)
        assert digits_server.health()["streams"] == (2 if extra_query else 1)
        _reset(connection.socket)
    digits_server.settled(0)
    with connect_client(digits_server, **extra_query) as connection:
        connection.send(DIGITS)
        connection.send(json.dumps(CLOSE))
        _reset(connection.socket)
    digits_server.settled(0)
