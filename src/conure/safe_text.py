r"""Text that others wrote, made safe for each kind of place that it may come back in.

    one_line       an error's message, a log      one line, no control characters, no lone surrogates, bounded
    header_text    a header of HTTP               ASCII that can be printed, everything else percent-encoded in UTF-8
    header_names   the same, a list               and no comma in a name
    metadata_text  metadata of gRPC               as a header
    status_text    the message of a gRPC status   one line, so short that it fits with what else is in the trailer
    close_reason   the end of a WebSocket         one line of at most 123 bytes of UTF-8, cut between characters

Every function takes any `str` and gives the same text back where it was safe, but for `%` in headers, so that
percent-decoding gives what the client wrote. JSON needs no more than `one_line` does: what comes as JSON is decoded by
msgspec, which takes no lone surrogates.
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

LONGEST_LINE = 10_000
"""Characters of a message."""
LONGEST_HEADER = 1_000
"""Bytes; some clients take no line over 8 KiB, and some no head over 16."""
LONGEST_NAME, MOST_NAMES = 64, 32
"""Of a list in a header: characters, and names."""
LONGEST_STATUS = 500
"""Characters, each of which may be 12 bytes on the wire; clients take a trailer of 8 KiB."""
MAX_CLOSE_REASON_BYTES = 123
"""Bytes."""
MORE = "..."
KEPT = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "%")
"""In a header as it is."""
KEPT_IN_NAMES = KEPT.replace(",", "").replace(" ", "").replace('"', "")


def one_line(text: str, most: int = LONGEST_LINE) -> str:
    """Line breaks become spaces; what cannot be printed is written as its escape: no terminal obeys it."""
    text = text[: 4 * most]  # what is bounded at the end need not be looked through
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if c.isprintable() else _escaped(c) for c in " ".join(text.split()))
    return _bounded(text, most)


def header_text(text: str, most: int = LONGEST_HEADER) -> str:
    return _quoted(" ".join(text[:most].split()), KEPT, most)


def header_names(names: Iterable[str]) -> str:
    told = [_quoted(name[:LONGEST_NAME], KEPT_IN_NAMES, 3 * LONGEST_NAME) for name in names if name]
    return ", ".join(told[:MOST_NAMES])


def metadata_text(text: str) -> str:
    return header_text(text)


def status_text(text: str) -> str:
    return one_line(text, LONGEST_STATUS)


def close_reason(text: str) -> str:
    data = one_line(text, MAX_CLOSE_REASON_BYTES).encode()
    return data[:MAX_CLOSE_REASON_BYTES].decode(errors="ignore")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()


def _bounded(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - len(MORE)] + MORE


def _quoted(text: str, kept: str, most: int) -> str:
    """Cut between characters, never within an escape."""
    quoted = quote(text, safe=kept, errors="replace")
    if len(quoted) <= most:
        return quoted
    size, parts = len(MORE), []
    for part in (quote(c, safe=kept, errors="replace") for c in text):
        size += len(part)
        if size > most:
            break
        parts.append(part)
    return "".join(parts) + MORE
