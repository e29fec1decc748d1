"""Lines as they come over TCP, and what comes that is none."""

from __future__ import annotations

import asyncio
import re

__all__ = ["MAX_LINE_BYTES", "MAX_NON_JSON_BYTES", "NotLines", "LineReader"]

MAX_LINE_BYTES = 2**26
"""Bytes: a quarter of an hour of PCM at 16 kHz in base64."""
MAX_NON_JSON_BYTES = 2**16
"""The same of a line that is no object."""
READ = 2**18
HTTP = re.compile(rb"[A-Z]+ \S+ HTTP/\d(\.\d)?\r?\n")
"""A request: a web page may send one to any port, with lines that would be taken after it."""
TLS = b"\x16\x03"
CONTROL = bytes({*range(32), 127} - set(b"\t\r\n"))


class NotLines(Exception):
    """Not the protocol of this port; its text says which it is."""


class LineReader:
    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = bytearray()
        self._searched = 0

    async def read_line(self, longest: int = MAX_LINE_BYTES) -> bytes:
        """With its end, which the last one may lack; none at the end of all. One that was cancelled lost nothing.

        Raises Foreign, after which nothing can be read, and ConnectionError.
        """
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            self._check(self._searched, longest)
            data = await self._reader.read(READ)
            if not data:
                return self._cut(self._searched)
            self._buffer += data
        self._check(end + 1, longest)
        return self._cut(end + 1)

    def _cut(self, end: int) -> bytes:
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._searched = 0
        return line

    def _check(self, end: int, longest: int) -> None:
        """The line so far. Raises Foreign."""
        if end > longest:
            raise NotLines(f"a line of more than {longest} bytes")
        line = bytes(self._buffer[: min(end, MAX_NON_JSON_BYTES + 1)]).lstrip()
        if not line or line.startswith(b"{"):
            return
        if line.startswith(TLS):
            raise NotLines("this port does not speak TLS")
        if HTTP.match(line):
            raise NotLines("this port does not speak HTTP")
        if len(line) > MAX_NON_JSON_BYTES:
            raise NotLines(f"a line of more than {MAX_NON_JSON_BYTES} bytes that is no object")
        if line.translate(None, CONTROL) != line or not _is_text(line):
            raise NotLines("bytes that are no line of JSON")


def _is_text(line: bytes) -> bool:
    """Its last character may still be on its way."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True
