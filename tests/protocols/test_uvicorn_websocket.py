"""Audio on the fast path has the same result as on the normal path, for any split of the bytes."""

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


def fragmented(data: bytes) -> bytes:
    """A binary message in three frames with a ping between them."""
    third = len(data) // 3
    first = Frame(Opcode.BINARY, data[:third], fin=False)
    rest = Frame(Opcode.CONT, data[third : 2 * third], fin=False), Frame(Opcode.PING, b"?")
    return b"".join(frame.serialize(mask=True) for frame in (first, *rest, Frame(Opcode.CONT, data[2 * third :])))


def mixed_frames(seed: int) -> list[bytes]:
    """The digits in messages of different sizes and forms, with requests between them."""
    rng, frames, at = np.random.default_rng(seed), [], 0
    sizes = [1, 2, 124, 125, 126, 127, 640, 3_200, 20_000, 70_000]
    while at < len(DIGITS):
        data = DIGITS[at : at + int(rng.choice(sizes))]
        at += len(data)
        frames.append(fragmented(data) if rng.random() < 0.2 else binary(data))
        if rng.random() < 0.1:
            frames.append(text(type="ping", id=at))
    return frames


def transcribe_frames(server: Server, sent: list[bytes]) -> list[dict[str, object]]:
    with socket_of(server) as client:
        client.say(TINY)
        for part in sent:
            client.connection.socket.sendall(part)
        return receive_all(client)


def receive_all(client: Socket) -> list[dict[str, object]]:
    response = []
    while (message := client.hear()) is not None:
        response.append(message)
    return response


@pytest.mark.parametrize("seed", range(4))
def test_any_split_of_the_bytes(server: Server, seed: int) -> None:
    frames = mixed_frames(seed)
    stream = b"".join(frames) + text(type="close")
    rng = np.random.default_rng(seed)
    places = sorted(rng.integers(0, len(stream), 200).tolist())
    cut = [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]
    response = transcribe_frames(server, cut if seed % 2 else [stream])
    assert finals(response) == SAID
    assert response[-1]["type"] == "finished"
    assert response[-1]["seconds"] == round(len(DIGITS) / 32_000, 3)
    options = [frame for frame in frames if frame[:1] == b"\x81"]
    assert len([message for message in response if message["type"] == "pong"]) == len(options)


def test_marker_keeps_its_position(server: Server) -> None:
    """After all earlier audio, on either path."""
    half = len(DIGITS) // 2
    frames = [
        *(binary(piece) for piece in pieces(DIGITS[:half], 640)),
        text(type="finalize", id=7),
        *(binary(piece) for piece in pieces(DIGITS[half:], 640)),
        text(type="close"),
    ]
    together, apart = transcribe_frames(server, [b"".join(frames)]), transcribe_frames(server, frames)
    kinds = ("final", "marker", "finished")
    events = [[{**m, "seq": 0} for m in some if m["type"] in kinds] for some in (together, apart)]
    assert events[0] == events[1]
    assert [m["type"] for m in events[0]].count("marker") == 1


def test_messages_after_close_are_refused(server: Server) -> None:
    late = [binary(DIGITS[:6_400]), text(type="close"), binary(DIGITS[:640])]
    for sent in ([b"".join(late)], late):
        response = transcribe_frames(server, sent)
        assert response[-1]["type"] == "finished"
        assert {message["code"] for message in response if message["type"] == "error"} <= {"bad_option"}


def test_unmasked_frames_are_refused(server: Server) -> None:
    with socket_of(server) as client:
        client.say(TINY)
        assert client.hear() is not None
        client.say(DIGITS[:640])
        client.connection.socket.sendall(Frame(Opcode.BINARY, b"1234").serialize(mask=False))
        receive_all(client)
        assert client.connection.close_code == 1002


@pytest.mark.parametrize(
    ("next_frame", "code"), [(Frame(Opcode.PING, b"?"), 1007), (Frame(Opcode.CLOSE, b"\x03\xe8"), 1000)]
)
def test_invalid_utf8_text_closes_the_connection(server: Server, next_frame: Frame, code: int) -> None:
    """Later frames are skipped, except for a close frame."""
    with socket_of(server) as client:
        client.say(TINY)
        frames = Frame(Opcode.TEXT, b"\xff"), next_frame
        client.connection.socket.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
        receive_all(client)
        assert client.connection.close_code == code
    assert "Traceback" not in server.errors
