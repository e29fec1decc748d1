"""Encodes messages as bytes of each protocol: valid frames, and invalid ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from tests.protocols.mutations import Message, as_json, as_msgpack, corrupt

__all__ = ["Wire", "form", "grpc_frame", "grpc_opening", "json_line", "raw_body", "websocket_frame", "wyoming_event"]

Wire = Callable[[Message, Random | None], bytes]
"""Encodes a message; with a random generator, sometimes incorrectly."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CLOSE_PAYLOADS = (b"", b"\x03", b"\x03\xe8bye", b"\0\0", b"\x03\xe8\xff\xfe")
ERROR_RATE = 0.15
BOUNDARY = "----conure"
INVALID_HEADERS = (
    *("Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked"),
    *(
        "Content-Type: multipart/form-data",
        "Content-Type: multipart/form-data; boundary=",
        "Content-Type: \xff\xfe",
        "Expect: 100-continue",
    ),
    *(
        "Content-Encoding: gzip",
        "Range: bytes=0-1",
        "X: " + "y" * 20_000,
        "Upgrade: websocket",
        "Host:",
        "Cookie: =;=;",
        "Authorization: Bearer",
    ),
)


def websocket_frame(packed: bool = False) -> Wire:
    def frame(message: Message, rng: Random | None) -> bytes:
        if isinstance(message, dict):
            opcode, data = (BINARY, as_msgpack(message)) if packed else (TEXT, as_json(message))
        else:
            opcode, data = (TEXT, message.encode("utf-8", "replace")) if isinstance(message, str) else (BINARY, message)
        if rng is None or rng.random() > ERROR_RATE:
            return _frame(opcode, data)
        return _invalid_frames(opcode, data, rng)

    return frame


def _frame(opcode: int, data: bytes, first: int = 0x80, masked: int = 0x80) -> bytes:
    size = len(data)
    if size < 126:
        head = struct.pack("!BB", first | opcode, masked | size)
    elif size < 2**16:
        head = struct.pack("!BBH", first | opcode, masked | 126, size)
    else:
        head = struct.pack("!BBQ", first | opcode, masked | 127, size)
    return head + (bytes(4) if masked else b"") + data  # a mask of zeros leaves the data unchanged


def _invalid_frames(opcode: int, data: bytes, rng: Random) -> bytes:
    third = len(data) // 3
    frames: list[Callable[[], bytes]] = [
        lambda: b"".join(
            [
                _frame(opcode, data[:third], first=0) + _frame(PING, b"?"),
                _frame(0, data[third : 2 * third], first=0) + _frame(0, data[2 * third :]),
            ]
        ),
        lambda: _frame(opcode, data[:1], first=0) + _frame(0, b"", first=0) * 200,
        lambda: _frame(opcode, data, masked=0),
        lambda: _frame(opcode, data, first=0x80 | rng.choice((0x10, 0x20, 0x40, 0x70))),
        lambda: _frame(rng.choice((0, 3, 7, 0xB, 0xF)), data),
        lambda: struct.pack("!BBQ", 0x80 | opcode, 0xFF, rng.choice((2**63, 2**62, 2**32, 2**22 + 1))) + data,
        lambda: _frame(PING, b"p" * 100) * 200 + _frame(opcode, data),
        lambda: _frame(PING, bytes(126 + third)) + _frame(opcode, data),
        lambda: _frame(CLOSE, rng.choice(CLOSE_PAYLOADS)) + _frame(opcode, data),
        lambda: _frame(BINARY if opcode == TEXT else TEXT, data),
        lambda: _frame(TEXT, b"\xff\xfe" + data),
        lambda: _frame(PONG, data[:100]) + _frame(opcode, b""),
    ]
    return rng.choice(frames)()


def json_line(message: Message, rng: Random | None) -> bytes:
    if isinstance(message, dict):
        message = as_json(message)
    line = message.encode("utf-8", "replace") if isinstance(message, str) else message
    return line + (b"\n" if rng is None or rng.random() > ERROR_RATE else rng.choice((b"", b"\r\n", b"\n\n\n", b"\0")))


def wyoming_event(message: Message, rng: Random | None) -> bytes:
    """A line of JSON followed by bytes."""
    if not isinstance(message, dict):
        return json_line(message, rng)
    event = dict(message)
    payload = event.pop("payload", b"")
    payload = payload if isinstance(payload, bytes) else b"?"
    lengths = {"payload_length": len(payload)} if payload else {}
    if rng is not None and rng.random() < ERROR_RATE:
        lengths[rng.choice(("payload_length", "data_length"))] = rng.choice((-1, 0, 1, 2**40, 10**30, 1.5, "9", None))
    return as_json(event | lengths) + b"\n" + payload


def raw_body(path: str, kind: str = "audio/flac") -> Wire:
    """A request whose body is the message."""

    def request(message: Message, rng: Random | None) -> bytes:
        body = as_json(message) if isinstance(message, dict) else message
        return _request(path, kind, body.encode("utf-8", "replace") if isinstance(body, str) else body, rng)

    return request


def form(path: str) -> Wire:
    """A request whose form has the message's fields; bytes are files."""

    def request(message: Message, rng: Random | None) -> bytes:
        fields = message if isinstance(message, dict) else {"file": message}
        body = b"".join(_part(name, value) for name, value in fields.items()) + f"--{BOUNDARY}--\r\n".encode()
        if rng is not None and rng.random() < ERROR_RATE:
            body = corrupt(body, rng)
        return _request(path, f"multipart/form-data; boundary={BOUNDARY}", body, rng)

    return request


def _part(name: str, value: Any) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
    if isinstance(value, bytes):
        head += '; filename="speech.flac"\r\nContent-Type: audio/flac'
    text = value if isinstance(value, str | bytes) else json.dumps(value, default=repr)
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    return head.encode("utf-8", "replace") + b"\r\n\r\n" + data + b"\r\n"


def _request(path: str, kind: str, body: bytes, rng: Random | None) -> bytes:
    headers = ["Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    if rng is not None and rng.random() < 2 * ERROR_RATE:
        headers[rng.randrange(3)] = rng.choice(INVALID_HEADERS)
    if rng is not None and rng.random() < ERROR_RATE:
        path = rng.choice(
            (
                path + "?model=\xff&language=%00",
                path + "?" + "a=b&" * 500,
                path + "/..",
                path.upper(),
                "//",
                "/" + path + "/",
                path + "?%0d%0aX:1=%1b&%ed%a0%80=1",
            )
        )
    method = (
        "POST" if rng is None or rng.random() > ERROR_RATE else rng.choice(("GET", "PUT", "HEAD", "OPTIONS", "PO\0ST"))
    )
    return "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode("latin-1", "replace") + body


def grpc_opening(method: str) -> bytes:
    """The preface of an HTTP/2 connection, and the headers of a call."""
    fields = {
        ":method": "POST", ":scheme": "http", ":path": method, ":authority": "x", "te": "trailers",
        "content-type": "application/grpc",
    }  # fmt: skip
    block = b"".join(b"\0" + _short(name) + _short(value) for name, value in fields.items())
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _http2(4, 0, b"", 0) + _http2(1, 4, block, 1)


def grpc_frame(message: Message, rng: Random | None) -> bytes:
    """A message of a call; an empty message ends the call."""
    data = message if isinstance(message, bytes) else repr(message).encode()
    if rng is not None and rng.random() < ERROR_RATE:
        match rng.randrange(5):
            case 0:
                return _http2(0, 0, struct.pack("!BI", 0, 2**32 - 1) + data, 1)
            case 1:
                return _http2(0, 0, struct.pack("!BI", 1, len(data)) + data, 1)
            case 2:
                return _http2(rng.randrange(12), rng.randrange(256), data[:200], rng.choice((0, 1, 2, 3, 2**31 - 1)))
            case 3:
                return _http2(6, 0, b"12345678", 0) * 200 + _http2(8, 0, b"\x7f\xff\xff\xff", 1)
            case _:
                return _http2(3, 0, struct.pack("!I", 8), 1)
    return _http2(0, 0, struct.pack("!BI", 0, len(data)) + data, 1) if data else _http2(0, 1, b"", 1)


def _http2(kind: int, flags: int, data: bytes, stream: int) -> bytes:
    return struct.pack("!I", len(data))[1:] + struct.pack("!BBI", kind, flags, stream) + data


def _short(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
