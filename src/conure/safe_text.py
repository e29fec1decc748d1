r"""Makes text from clients safe for the places where it is sent back.

    one_line       error message, log             one line, no control characters, no lone surrogates, bounded
    header_text    HTTP header                    printable ASCII, the rest percent-encoded UTF-8
    header_names   HTTP header with a list        as header_text, without commas in a name
    metadata_text  gRPC metadata                  as header_text
    status_text    message of a gRPC status       one line, short enough for the trailer
    close_reason   WebSocket close                one line of at most 123 bytes of UTF-8, cut between characters

Every function accepts any `str` and returns safe text unchanged, except that `%` is encoded in headers, so that
percent-decoding restores what the client wrote. For JSON `one_line` is enough: msgspec accepts no lone surrogates.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

__all__ = [
    "MAX_CLOSE_REASON_BYTES",
    "close_reason",
    "header_names",
    "header_text",
    "metadata_text",
    "one_line",
    "status_text",
]

MAX_LINE = 10_000
"""Characters of a message."""
MAX_HEADER = 1_000
"""Bytes; some clients accept no line over 8 KiB, and some no head over 16 KiB."""
MAX_NAME, MAX_NAMES = 64, 32
"""Of a list in a header: characters of each name, and names."""
MAX_STATUS = 500
"""Characters, of up to 12 bytes each on the wire; clients accept a trailer of 8 KiB."""
MAX_CLOSE_REASON_BYTES = 123
"""Bytes."""
ELLIPSIS = "..."
SAFE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "%")
"""Characters that a header may contain unencoded."""
SAFE_IN_NAMES = SAFE.replace(",", "").replace(" ", "").replace('"', "")


def one_line(text: str, max_length: int = MAX_LINE) -> str:
    """Line breaks become spaces; unprintable characters are escaped, so that no terminal interprets them."""
    text = text[: 4 * max_length]  # the result is bounded, so the rest need not be processed
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c.isprintable() else _escaped(c) for c in " ".join(text.split()))
    return _bounded(text, max_length)


def header_text(text: str, max_length: int = MAX_HEADER) -> str:
    return _quoted(" ".join(text[:max_length].split()), SAFE, max_length)


def header_names(names: Iterable[str]) -> str:
    quoted = [_quoted(name[:MAX_NAME], SAFE_IN_NAMES, 3 * MAX_NAME) for name in names if name]
    return ", ".join(quoted[:MAX_NAMES])


def metadata_text(text: str) -> str:
    return header_text(text)


def status_text(text: str) -> str:
    return one_line(text, MAX_STATUS)


def close_reason(text: str) -> str:
    data = one_line(text, MAX_CLOSE_REASON_BYTES).encode()
    return data[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def _bounded(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - len(ELLIPSIS)] + ELLIPSIS


def _quoted(text: str, safe: str, max_length: int) -> str:
    """Cut between characters, never inside an escape."""
    quoted = quote(text, safe=safe, errors="replace")
    if len(quoted) <= max_length:
        return quoted
    size, parts = len(ELLIPSIS), []
    for part in (quote(c, safe=safe, errors="replace") for c in text):
        size += len(part)
        if size > max_length:
            break
        parts.append(part)
    return "".join(parts) + ELLIPSIS
