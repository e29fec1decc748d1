"""What is done to good messages: by their structure, by their bytes, by their order."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec

__all__ = ["Said", "as_json", "as_msgpack", "broken", "mutated", "shuffled"]

Said = dict[str, Any] | str | bytes
"""A message as its protocol has it: an object, a text, bytes."""

DEEP = "@deep@"
"""Stands for so many brackets that nobody can nest them in Python."""
HUGE = "@huge@"
"""Stands for a number of 400 digits."""
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


def mutated(said: Said, chance: Random) -> Said:
    """Once or a few times."""
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        if isinstance(said, dict):
            said = _restructured(said, chance)
        elif isinstance(said, str):
            said = broken(said.encode("utf-8", "surrogatepass"), chance).decode("latin-1")
        else:
            said = broken(said, chance)
    return said


def shuffled(said: list[Said], chance: Random) -> list[Said]:
    """Some left out, said twice, or in another place."""
    said = list(said)
    for _ in range(chance.choice((0, 1, 1, 3))):
        at = chance.randrange(len(said))
        match chance.randrange(4):
            case 0 if len(said) > 1:
                del said[at]
            case 1:
                said.insert(at, said[chance.randrange(len(said))])
            case 2:
                said[at:at] = [said[at]] * chance.choice((2, 20))
            case _:
                said.insert(at, said.pop())
    return said


def broken(data: bytes, chance: Random) -> bytes:
    """Bits turned, parts gone, doubled, or from somewhere else."""
    at, end = sorted((chance.randint(0, len(data)), chance.randint(0, len(data))))
    match chance.randrange(7):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:end] + data[at:]
        case 3:
            return data[:at] + chance.randbytes(chance.choice((1, 4, 100))) + data[at:]
        case 4:
            return (
                data[:at]
                + chance.choice((b"\xff", b"\0", b"\x80", b"\n", b'"')) * chance.choice((1, 9, 999))
                + data[at:]
            )
        case 5:
            return chance.randbytes(chance.choice((0, 1, 7, 300, 5_000)))
        case _:
            turned = bytearray(data)
            for _ in range(chance.choice((1, 1, 8))):
                if turned:
                    turned[chance.randrange(len(turned))] ^= 1 << chance.randrange(8)
            return bytes(turned)


def as_json(said: dict[str, Any]) -> bytes:
    """Also what is no JSON: NaN, bytes that are no UTF-8, numbers of any length, brackets of any depth."""
    text = json.dumps(said, default=lambda data: data.decode("latin-1")).encode()
    if b"ud800" in text:
        text = text.replace(rb"\ud800", b"\xed\xa0\x80")
    depth = DEPTHS[len(text) % len(DEPTHS)]
    return text.replace(b'"%s"' % HUGE.encode(), b"9" * 400).replace(
        b'"%s"' % DEEP.encode(), b"[" * depth + b"]" * depth
    )


def as_msgpack(said: dict[str, Any]) -> bytes:
    packed = msgspec.msgpack.encode(_packable(said))
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


def _restructured(said: dict[str, Any], chance: Random) -> dict[str, Any]:
    copy: dict[str, Any] = _copied(said)
    place = chance.choice(_places(copy))
    key = chance.choice(list(place) or [""]) if isinstance(place, dict) else chance.randrange(len(place) or 1)
    if isinstance(place, list):
        place[key : key + 1] = [_strange(place[key] if place else None, chance)]
    elif chance.random() < 0.15:
        place.pop(key, None)
    elif chance.random() < 0.15:
        place[chance.choice(NAMES)] = chance.choice(VALUES)
    else:
        place[key] = _strange(place.get(key), chance)
    return copy


def _strange(value: Any, chance: Random) -> Any:
    """Often something else of the same type: that gets further."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and chance.random() < 0.5:
        return chance.choice((value + 1, -value, value * 1000, value / 3, 10**18, 7))
    if isinstance(value, str) and chance.random() < 0.5:
        return broken(value.encode("utf-8", "replace"), chance).decode("latin-1")
    if isinstance(value, bytes) and chance.random() < 0.7:
        return broken(value, chance)
    return chance.choice(VALUES)


def _places(value: Any) -> list[Any]:
    """The object and all that it holds that holds something itself."""
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(place for one in inner if isinstance(one, (dict, list)) for place in _places(one))]


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value
