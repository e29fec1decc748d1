"""Audio on the short way is heard as on the long one, however its bytes are cut, and in its order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from websockets.frames import Frame, Opcode

from tests.protocols.live_clients import TINY, Socket, finals, pcm16, pieces, socket_of
from tests.protocols.servers import SAID, Server, demo

DIGITS = pcm16(demo())


def binary(data: bytes) -> bytes:
    return Frame(Opcode.BINARY, data).serialize(mask=True)


def text(**message: object) -> bytes:
    return Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True)


def broken(data: bytes) -> bytes:
    """A binary message in three frames, a ping between them."""
    third = len(data) // 3
    first = Frame(Opcode.BINARY, data[:third], fin=False)
    rest = Frame(Opcode.CONT, data[third : 2 * third], fin=False), Frame(Opcode.PING, b"?")
    return b"".join(frame.serialize(mask=True) for frame in (first, *rest, Frame(Opcode.CONT, data[2 * third :])))


def mixed(seed: int) -> list[bytes]:
    """The digits, in messages of every size and form, with questions between."""
    rng, frames, at = np.random.default_rng(seed), [], 0
    sizes = [1, 2, 124, 125, 126, 127, 640, 3_200, 20_000, 70_000]
    while at < len(DIGITS):
        data = DIGITS[at : at + int(rng.choice(sizes))]
        at += len(data)
        frames.append(broken(data) if rng.random() < 0.2 else binary(data))
        if rng.random() < 0.1:
            frames.append(text(type="ping", id=at))
    return frames


def said_in(server: Server, sent: list[bytes]) -> list[dict[str, object]]:
    with socket_of(server) as client:
        client.say(TINY)
        for part in sent:
            client.connection.socket.sendall(part)
        return heard(client)


def heard(client: Socket) -> list[dict[str, object]]:
    told = []
    while (message := client.hear()) is not None:
        told.append(message)
    return told


@pytest.mark.parametrize("seed", range(4))
def test_however_it_is_cut(server: Server, seed: int) -> None:
    frames = mixed(seed)
    stream = b"".join(frames) + text(type="close")
    rng = np.random.default_rng(seed)
    places = sorted(rng.integers(0, len(stream), 200).tolist())
    cut = [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]
    told = said_in(server, cut if seed % 2 else [stream])
    assert finals(told) == SAID
    assert told[-1]["type"] == "finished"
    assert told[-1]["seconds"] == round(len(DIGITS) / 32_000, 3)
    asked = [frame for frame in frames if frame[:1] == b"\x81"]
    assert len([message for message in told if message["type"] == "pong"]) == len(asked)


def test_a_marker_stands_where_it_was_asked_for(server: Server) -> None:
    """Behind all audio that came before it, whichever way that took."""
    half = len(DIGITS) // 2
    frames = [
        *(binary(piece) for piece in pieces(DIGITS[:half], 640)),
        text(type="finalize", id=7),
        *(binary(piece) for piece in pieces(DIGITS[half:], 640)),
        text(type="close"),
    ]
    together, apart = said_in(server, [b"".join(frames)]), said_in(server, frames)
    kinds = ("final", "marker", "finished")
    told = [[{**m, "seq": 0} for m in some if m["type"] in kinds] for some in (together, apart)]
    assert told[0] == told[1]
    assert [m["type"] for m in told[0]].count("marker") == 1


def test_what_comes_after_the_end_is_refused(server: Server) -> None:
    late = [binary(DIGITS[:6_400]), text(type="close"), binary(DIGITS[:640])]
    for sent in ([b"".join(late)], late):
        told = said_in(server, sent)
        assert told[-1]["type"] == "finished"
        assert {message["code"] for message in told if message["type"] == "error"} <= {"bad_option"}


def test_frames_that_are_not_masked_are_refused(server: Server) -> None:
    with socket_of(server) as client:
        client.say(TINY)
        assert client.hear() is not None
        client.say(DIGITS[:640])
        client.connection.socket.sendall(Frame(Opcode.BINARY, b"1234").serialize(mask=False))
        heard(client)
        assert client.connection.close_code == 1002


@pytest.mark.parametrize(
    ("next_one", "code"), [(Frame(Opcode.PING, b"?"), 1007), (Frame(Opcode.CLOSE, b"\x03\xe8"), 1000)]
)
def test_a_text_that_is_none_ends_the_connection_and_no_more(server: Server, next_one: Frame, code: int) -> None:
    """What came with it is passed over, pings too, but for a farewell."""
    with socket_of(server) as client:
        client.say(TINY)
        frames = Frame(Opcode.TEXT, b"\xff"), next_one
        client.connection.socket.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
        heard(client)
        assert client.connection.close_code == code
    assert "Traceback" not in server.errors
