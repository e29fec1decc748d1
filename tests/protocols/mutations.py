"""Mutations of valid messages: of their structure, their bytes and their order."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec

__all__ = ["Message", "as_json", "as_msgpack", "corrupt", "mutate", "shuffle"]

Message = dict[str, Any] | str | bytes
"""A message: an object, a text or bytes."""

DEEP = "@deep@"
"""Placeholder for deeper nested brackets than Python supports."""
HUGE = "@huge@"
"""Placeholder for a number of 400 digits."""
DEPTHS = (50, 500, 100_000)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63), 2**64, 1e308, 1e-308, 0.5, -0.0),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        HUGE,
        DEEP,
        [],
        {},
        [[]],
        [None],
        {"": None},
        {"type": {}},
        [1, "2", {}],
    ),
    *("", " ", "\0", "\n", "x" * 10_000, "\ud800", "💥" * 50, "NaN", "-1", "true", "null", "../../etc/passwd", "%s%n"),
    *("http://127.0.0.1:1/", "AAA", "AAAA" * 5_000, "=" * 9, "en", "tlh", "pcm16", "audio", "close", b"", b"\xff" * 9),
)
NAMES = (
    "type",
    "data",
    "id",
    "model",
    "language",
    "session",
    "audio",
    "",
    "\0",
    "x" * 300,
    "__class__",
    "constructor",
    "a\r\nX-Evil: 1",
    "\x1b[31m",
    "\u202e",
    "é, ü",
)


def mutate(message: Message, rng: Random) -> Message:
    """Mutates the message one to five times."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        if isinstance(message, dict):
            message = _mutate_object(message, rng)
        elif isinstance(message, str):
            message = corrupt(message.encode("utf-8", "surrogatepass"), rng).decode("latin-1")
        else:
            message = corrupt(message, rng)
    return message


def shuffle(messages: list[Message], rng: Random) -> list[Message]:
    """Removes, repeats and moves messages."""
    messages = list(messages)
    for _ in range(rng.choice((0, 1, 1, 3))):
        at = rng.randrange(len(messages))
        match rng.randrange(4):
            case 0 if len(messages) > 1:
                del messages[at]
            case 1:
                messages.insert(at, messages[rng.randrange(len(messages))])
            case 2:
                messages[at:at] = [messages[at]] * rng.choice((2, 20))
            case _:
                messages.insert(at, messages.pop())
    return messages


def corrupt(data: bytes, rng: Random) -> bytes:
    """Truncates, removes, repeats, inserts, replaces or flips bits."""
    at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
    match rng.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:end] + data[at:]
        case 3:
            return data[:at] + rng.randbytes(rng.choice((1, 4, 100))) + data[at:]
        case 4:
            return data[:at] + rng.choice((b"\xff", b"\0", b"\x80", b"\n", b'"')) * rng.choice((1, 9, 999)) + data[at:]
        case 5:
            return rng.randbytes(rng.choice((0, 1, 7, 300, 5_000)))
        case _:
            flipped = bytearray(data)
            for _ in range(rng.choice((1, 1, 8))):
                if flipped:
                    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)


def as_json(message: dict[str, Any]) -> bytes:
    """JSON, or invalid JSON with NaN, invalid UTF-8, too long numbers or too deep nesting."""
    text = json.dumps(message, default=lambda data: data.decode("latin-1")).encode()
    if b"ud800" in text:
        text = text.replace(rb"\ud800", b"\xed\xa0\x80")
    depth = DEPTHS[len(text) % len(DEPTHS)]
    return text.replace(b'"%s"' % HUGE.encode(), b"9" * 400).replace(
        b'"%s"' % DEEP.encode(), b"[" * depth + b"]" * depth
    )


def as_msgpack(message: dict[str, Any]) -> bytes:
    packed = msgspec.msgpack.encode(_packable(message))
    depth = DEPTHS[len(packed) % len(DEPTHS)]
    return packed.replace(b"\xa6" + DEEP.encode(), b"\x91" * depth + b"\x01")


def _packable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_packable(name): _packable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_packable(inner) for inner in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _mutate_object(message: dict[str, Any], rng: Random) -> dict[str, Any]:
    copy: dict[str, Any] = _deep_copy(message)
    container = rng.choice(_containers(copy))
    key = rng.choice(list(container) or [""]) if isinstance(container, dict) else rng.randrange(len(container) or 1)
    if isinstance(container, list):
        container[key : key + 1] = [_unusual_value(container[key] if container else None, rng)]
    elif rng.random() < 0.15:
        container.pop(key, None)
    elif rng.random() < 0.15:
        container[rng.choice(NAMES)] = rng.choice(VALUES)
    else:
        container[key] = _unusual_value(container.get(key), rng)
    return copy


def _unusual_value(value: Any, rng: Random) -> Any:
    """Often a value of the same type, which passes more checks of the server."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((value + 1, -value, value * 1000, value / 3, 10**18, 7))
    if isinstance(value, str) and rng.random() < 0.5:
        return corrupt(value.encode("utf-8", "replace"), rng).decode("latin-1")
    if isinstance(value, bytes) and rng.random() < 0.7:
        return corrupt(value, rng)
    return rng.choice(VALUES)


def _containers(value: Any) -> list[Any]:
    """The value and all objects and lists in it."""
    inner = value.values() if isinstance(value, dict) else value
    return [
        value,
        *(container for item in inner if isinstance(item, dict | list) for container in _containers(item)),
    ]


def _deep_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _deep_copy(inner) for name, inner in value.items()}
    return [_deep_copy(inner) for inner in value] if isinstance(value, list) else value
