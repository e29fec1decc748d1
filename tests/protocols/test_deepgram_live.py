"""`/v1/listen`: results that tile the time, what is asked for in between, refusals and ends."""

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
def listening(server: Server, query: dict[str, str] = RAW, **more: str) -> Iterator[ClientConnection]:
    url = server.url(f"/v1/listen?{urlencode(query | more)}")
    with connect(url, compression=None, open_timeout=PATIENCE, max_size=None) as connection:
        yield connection


def hear(connection: ClientConnection) -> Message:
    told: Message = json.loads(connection.recv(PATIENCE))
    return told


def rest(connection: ClientConnection) -> tuple[list[Message], int, str]:
    """Until the server closes; with the code and the reason."""
    heard: list[Message] = []
    with suppress(ConnectionClosed):
        while True:
            heard.append(hear(connection))
    assert connection.close_code
    return heard, connection.close_code, connection.close_reason or ""


def converse(server: Server, said: list[bytes | Message], query: dict[str, str] = RAW, **more: str) -> list[Message]:
    """All that is told until the end, which must be a good one."""
    with listening(server, query, **more) as connection:
        for message in said:
            connection.send(message if isinstance(message, bytes) else json.dumps(message))
        heard, code, _ = rest(connection)
    assert code == 1000
    assert [told["type"] for told in heard].index("Metadata") == len(heard) - 1
    return heard


def finals(heard: list[Message], channel: int = 0) -> list[Message]:
    results = [told for told in heard if told["type"] == "Results" and told["channel_index"][0] == channel]
    return [told for told in results if told["is_final"]]


def text_of(result: Message) -> str:
    text: str = result["channel"]["alternatives"][0]["transcript"]
    return text


def said(heard: list[Message], channel: int = 0) -> str:
    return " ".join(filter(None, map(text_of, finals(heard, channel))))


def check_tiles(heard: list[Message], seconds: float, channel: int = 0) -> None:
    """Each final begins where the one before it ended, from 0 to the end; interims begin there too."""
    until = 0.0
    for told in heard:
        if told["type"] != "Results" or told["channel_index"][0] != channel:
            continue
        assert told["start"] == pytest.approx(until, abs=1e-6)
        assert told["duration"] >= 0
        assert told["metadata"]["request_id"]
        if told["is_final"]:
            until += told["duration"]
            for word in told["channel"]["alternatives"][0]["words"]:
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
    asked = {"interim_results": "true", "model": model} | _given(endpointing=endpointing)
    heard = converse(digits_server, [*packets, CLOSE], **asked)
    check_tiles(heard, SECONDS + silence / 1000)
    assert sum(told["from_finalize"] for told in finals(heard)) == len(finalizes)
    if not finalizes and model == "nova-3":
        assert said(heard) == SAID
        assert any(told["speech_final"] for told in finals(heard)) or endpointing == "false"


def _given(**values: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def test_metadata_describes_the_audio(digits_server: Server) -> None:
    heard = converse(digits_server, [*pieces(DIGITS), CLOSE])
    told = heard[-1]
    assert told["sha256"] == hashlib.sha256(DIGITS).hexdigest()
    assert told["duration"] == pytest.approx(SECONDS)
    assert told["channels"] == 1
    assert told["request_id"] == heard[0]["metadata"]["request_id"]
    assert told["created"].endswith("Z")
    assert "warnings" not in told
    info = heard[0]["metadata"]["model_info"]
    assert info["name"] == "tiny-live"
    assert info.keys() == {"name", "version", "arch"}


def test_empty_packet_ends_the_stream(digits_server: Server) -> None:
    assert said(converse(digits_server, [*pieces(DIGITS), b""])) == SAID
    (told,) = converse(digits_server, [b""])
    assert told["duration"] == 0


def test_interims_replace_each_other_before_finals(digits_server: Server) -> None:
    heard = converse(digits_server, [*pieces(DIGITS), CLOSE], interim_results="true", endpointing="2000")
    interims = [told for told in heard if told["type"] == "Results" and not told["is_final"]]
    assert "seven three" in map(text_of, interims)
    assert all(text_of(told) for told in interims)
    assert heard.index(interims[0]) < heard.index(finals(heard)[0])
    assert all(told["is_final"] for told in converse(digits_server, [*pieces(DIGITS), CLOSE])[:-1])


def test_stable_words_of_a_long_utterance_are_finalized(digits_server: Server) -> None:
    heard = converse(digits_server, [*pieces(DIGITS), CLOSE], endpointing="false")
    assert len(finals(heard)) > 1
    assert said(heard) == SAID
    check_tiles(heard, SECONDS)
    assert not any(told["speech_final"] for told in finals(heard)[:-1])


def test_silence_is_finalized_as_it_passes(digits_server: Server) -> None:
    with listening(digits_server) as connection:
        for piece in pieces(bytes(32_000 * 15), 32_000):
            connection.send(piece)
        told = hear(connection)
        assert (told["start"], text_of(told), told["is_final"], told["speech_final"]) == (0.0, "", True, False)
        assert 4.0 <= told["duration"] <= 15.0


def test_words_are_lexical_unless_written_form_is_requested(digits_server: Server) -> None:
    (plain, *_), (written, *_) = (
        finals(converse(digits_server, [*pieces(DIGITS), CLOSE], punctuate=punctuate))
        for punctuate in ("false", "true")
    )
    (word, *_), (other, *_) = (result["channel"]["alternatives"][0]["words"] for result in (plain, written))
    assert word.keys() == {"word", "start", "end", "confidence"}
    assert other == word | {"punctuated_word": "seven"}


def test_finalize_is_answered_without_words(digits_server: Server) -> None:
    with listening(digits_server, endpointing="2000") as connection:
        connection.send(json.dumps(FINALIZE))
        told = hear(connection)
        assert (told["from_finalize"], text_of(told), told["duration"]) == (True, "", 0.0)
        for piece in pieces(DIGITS):
            connection.send(piece)
        connection.send(json.dumps(FINALIZE))
        told = hear(connection)
        while not told["from_finalize"]:
            assert told["is_final"]
            told = hear(connection)
        assert text_of(told).endswith("two")
        assert told["speech_final"]
        assert told["start"] + told["duration"] == pytest.approx(SECONDS)
        connection.send(json.dumps(FINALIZE))
        again = hear(connection)
        assert (again["from_finalize"], again["start"]) == (True, pytest.approx(SECONDS))
        connection.send(json.dumps(CLOSE))
        heard, code, _ = rest(connection)
        assert ([told["type"] for told in heard], code) == (["Metadata"], 1000)


@pytest.mark.parametrize("model", ["nova-3", str(TINY_MODEL)])
def test_finalize_in_silence_changes_no_words(digits_server: Server, model: str) -> None:
    """At twelve places of the silence before a word, up to the sample at which it begins, and at all of them."""
    samples, words = spoken_apart(8)
    data = pcm16(samples)
    begin, end = silences(words, samples)[1]
    places = [2 * round(at) for at in np.linspace(begin, end, 12)]
    for cuts in ([], *([place] for place in places), places):
        packets: list[bytes | Message] = []
        for start, until in itertools.pairwise([0, *cuts, len(data)]):
            packets += [*pieces(data[start:until]), FINALIZE]
        heard = converse(digits_server, [*packets, CLOSE], model=model, endpointing="false")
        assert said(heard) == " ".join(word.text for word in words), [place / 32_000 for place in cuts]
        told = [word for final in finals(heard) for word in final["channel"]["alternatives"][0]["words"]]
        assert told == sorted(told, key=lambda word: (word["start"], word["end"]))
        check_tiles(heard, len(data) / 32_000)


def test_finalize_after_each_word_loses_no_words(digits_server: Server) -> None:
    """As a program does that asks as soon as its own detector hears that nobody speaks."""
    quiet = [at for at in range(0, len(DIGITS) // 2, 160) if np.abs(demo()[max(at - 3_200, 0) : at + 1]).max() < 0.02]
    first_of_each = [at for at in quiet if at - 160 not in quiet]
    assert len(first_of_each) >= 4
    packets: list[bytes | Message] = []
    for begin, end in itertools.pairwise([0, *(2 * at for at in first_of_each), len(DIGITS)]):
        packets += [*pieces(DIGITS[begin:end]), FINALIZE]
    assert said(converse(digits_server, [*packets, CLOSE])) == SAID


def test_speech_started_and_utterance_end(digits_server: Server) -> None:
    said = [*pieces(DIGITS), *pieces(bytes(32_000 * 3)), CLOSE]
    asked = {"vad_events": "true", "interim_results": "true", "utterance_end_ms": "1000"}
    heard = converse(digits_server, said, **asked)
    started = next(told for told in heard if told["type"] == "SpeechStarted")
    assert started == {"type": "SpeechStarted", "channel": [0, 1], "timestamp": started["timestamp"]}
    assert 0.2 < started["timestamp"] < 0.8
    ends = [told for told in heard if told["type"] == "UtteranceEnd"]
    words = [word for told in finals(heard) for word in told["channel"]["alternatives"][0]["words"]]
    assert ends[-1] == {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": words[-1]["end"]}
    starts = [told["timestamp"] for told in heard if told["type"] == "SpeechStarted"]
    quiet = [
        (a["end"], min([b["start"], *(at for at in starts if a["end"] < at)])) for a, b in itertools.pairwise(words)
    ]  # from a word to where somebody speaks again
    gaps = [begin for begin, end in quiet if end - begin >= 1.0]
    assert [told["last_word_end"] for told in ends] == [*gaps, words[-1]["end"]]
    kinds = [told["type"] for told in heard if told["type"] in ("SpeechStarted", "UtteranceEnd", "Results")]
    assert "UtteranceEnd" not in {b for a, b in itertools.pairwise(kinds) if a == "SpeechStarted"}
    quiet = converse(digits_server, said)
    assert {told["type"] for told in quiet} == {"Results", "Metadata"}


def test_configure(digits_server: Server) -> None:
    with listening(digits_server) as connection:
        for asked, answer in [
            ({"keyterms": ["Conure"]}, {"type": "ConfigureFailure", "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED"}),
            (
                {"features": {"numerals": True}},
                {"type": "ConfigureFailure", "code": "CONFIGURE_FEATURES_NOT_SUPPORTED"},
            ),
            ({"keyterms": []}, {"type": "ConfigureSuccess", "keyterms": []}),
            ({"features": {"numerals": False}}, {"type": "ConfigureSuccess"}),
        ]:
            connection.send(json.dumps({"type": "Configure"} | asked))
            told = hear(connection)
            assert answer.items() <= told.items()
            assert told["request_id"]
            assert ("description" in told) == (told["type"] == "ConfigureFailure")


@pytest.mark.parametrize(
    "text", ["hello", "[]", '{"type": "Speak"}', '{"type": "Configure", "keyterms": 5}', "[" * 9_999]
)
def test_invalid_message_is_reported_and_survived(digits_server: Server, text: str) -> None:
    with listening(digits_server) as connection:
        connection.send(text)
        told = hear(connection)
        assert (told["type"], told["variant"], told["message"]) == ("Error", "SchemaError", text)
        assert told["description"]
        connection.send(json.dumps({"type": "KeepAlive"}))
        connection.send(json.dumps(FINALIZE))
        assert hear(connection)["from_finalize"]


def test_channels_are_transcribed_separately(digits_server: Server) -> None:
    late = np.concatenate([np.zeros(8_000, np.int16), np.frombuffer(DIGITS, "<i2")])
    both = np.stack([np.pad(np.frombuffer(DIGITS, "<i2"), (0, 8_000)), late], axis=1).tobytes()
    data = [*pieces(both, 12_801), FINALIZE, CLOSE]
    heard = converse(digits_server, data, channels="2", multichannel="true", vad_events="true")
    assert [said(heard, channel) for channel in (0, 1)] == [SAID, SAID]
    for channel in (0, 1):
        check_tiles(heard, SECONDS + 0.5, channel)
        assert sum(told["from_finalize"] for told in finals(heard, channel)) == 1
    assert {tuple(told["channel"]) for told in heard if told["type"] == "SpeechStarted"} == {(0, 2), (1, 2)}
    assert heard[-1]["channels"] == 2
    assert heard[-1]["sha256"] == hashlib.sha256(both).hexdigest()
    mixed = converse(digits_server, [*pieces(both), CLOSE], channels="2")
    assert {tuple(told["channel_index"]) for told in mixed[:-1]} == {(0, 1)}


@pytest.mark.parametrize(
    ("encoding", "rate", "kind"),
    [("linear32", 16_000, "pcm_f32le"), ("mulaw", 8_000, "pcm_mulaw"), ("alaw", 8_000, "pcm_alaw")],
)
def test_raw_encodings(digits_server: Server, encoding: str, rate: int, kind: str) -> None:
    recording = encode(demo(rate)[None], rate, "wav", kind)
    data = recording[recording.index(b"data") + 8 :]
    heard = converse(digits_server, [*pieces(data), CLOSE], RAW | {"encoding": encoding, "sample_rate": str(rate)})
    assert said(heard) == SAID


@pytest.mark.parametrize(
    ("container", "codec", "encoding"),
    [("ogg", "libopus", "opus"), ("ogg", "libopus", "ogg-opus"), ("flac", "flac", "flac"), ("webm", "libopus", "")],
)
def test_containers(digits_server: Server, container: str, codec: str, encoding: str) -> None:
    recording = encode(demo(48_000)[None], 48_000, container, codec)
    heard = converse(digits_server, [*pieces(recording, 2_000), CLOSE], {"model": "nova-3"} | _given(encoding=encoding))
    assert said(heard) == SAID


def test_ignored_options_are_reported(digits_server: Server) -> None:
    asked = {"keywords": "parrot:2", "diarize": "true", "redact": "pci", "numerals": "false", "tag": "a", "zzz": "1"}
    with listening(digits_server, **asked) as connection:
        assert connection.response
        assert connection.response.headers["Conure-Ignored"] == "keywords, diarize, redact, zzz"
        assert connection.response.headers["dg-request-id"]
        connection.send(json.dumps(CLOSE))
        heard, _, _ = rest(connection)
    assert [warning["parameter"] for warning in heard[-1]["warnings"]] == ["keywords", "diarize", "redact", "zzz"]


@pytest.mark.parametrize("scheme", ["token", "bearer"])
def test_key_as_subprotocol(digits_server: Server, scheme: str) -> None:
    offered = [Subprotocol(scheme), Subprotocol("a-key")]
    with connect(digits_server.url(f"/v1/listen?{urlencode(RAW)}"), subprotocols=offered) as connection:
        assert connection.subprotocol == scheme


@pytest.mark.parametrize(
    ("wrong", "named"),
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
def test_rejected_handshake_names_the_reason(digits_server: Server, wrong: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidStatus) as refused, listening(digits_server, RAW | wrong):
        pass
    response = refused.value.response
    assert response.status_code == 400
    body = json.loads(response.body)
    assert body.keys() == {"err_code", "err_msg", "request_id"}
    assert named in body["err_msg"]
    assert response.headers["dg-error"] == body["err_msg"]
    assert response.headers["dg-request-id"] == body["request_id"]
    digits_server.settled(0)


def test_unreadable_audio_closes_with_a_reason(digits_server: Server) -> None:
    with listening(digits_server, {"model": "nova-3"}) as connection:
        connection.send(b"this is no recording at all" * 100)
        connection.send(json.dumps(CLOSE))
        heard, code, reason = rest(connection)
    assert (heard[-1]["type"], heard[-1]["variant"]) == ("Error", "unsupported_audio")
    assert (code, reason[:9]) == (1008, "DATA-0000")
    with listening(digits_server, RAW | {"encoding": "linear32"}) as connection:
        connection.send(demo().astype("<f4").tobytes())
        connection.send(np.full(9, np.nan, "<f4").tobytes())
        heard, code, _ = rest(connection)
    assert (said(heard), code) == (SAID, 1008)  # what came before is heard


def test_idle_timeout_and_keep_alive(digits_server: Server) -> None:
    with listening(digits_server) as silent, listening(digits_server) as alive:
        with suppress(ConnectionClosed):
            while True:
                alive.send(json.dumps({"type": "KeepAlive"}))
                with suppress(TimeoutError):
                    silent.recv(2.0)
        assert silent.close_code == 1011
        assert (silent.close_reason or "").startswith("NET-0001")
        alive.send(json.dumps(FINALIZE))
        assert hear(alive)["from_finalize"]


@pytest.mark.parametrize("more", [{}, {"channels": "2", "multichannel": "true"}])
def test_disconnect_ends_the_streams(digits_server: Server, more: dict[str, str]) -> None:
    with listening(digits_server, **more) as connection:
        connection.send(DIGITS)
        connection.send(json.dumps(FINALIZE))
        hear(connection)
        assert digits_server.health()["streams"] == (2 if more else 1)
        _reset(connection.socket)
    digits_server.settled(0)
    with listening(digits_server, **more) as connection:
        connection.send(DIGITS)
        connection.send(json.dumps(CLOSE))
        _reset(connection.socket)
    digits_server.settled(0)
