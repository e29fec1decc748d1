"""Reads lines of JSON over TCP and rejects bytes of other protocols."""

from __future__ import annotations

import asyncio
import re

__all__ = ["MAX_LINE_BYTES", "MAX_NON_JSON_BYTES", "NotLines", "LineReader"]

MAX_LINE_BYTES = 2**26
"""A quarter of an hour of PCM at 16 kHz in base64."""
MAX_NON_JSON_BYTES = 2**16
"""Limit of a line that is not a JSON object."""
READ_BYTES = 2**18
HTTP = re.compile(rb"[A-Z]+ \S+ HTTP/\d(\.\d)?\r?\n")
"""First line of an HTTP request. A web page can send one to any port, with a body of valid JSON lines."""
TLS = b"\x16\x03"
CONTROL = bytes({*range(32), 127} - set(b"\t\r\n"))


class NotLines(Exception):
    """The bytes are not the protocol of this port; the message gives the reason."""


class LineReader:
    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._buffer = bytearray()
        self._searched = 0

    async def read_line(self, max_bytes: int = MAX_LINE_BYTES) -> bytes:
        """The next line with its newline (the last one may lack it); empty at end of stream. Cancelling loses no data.

        Raises ConnectionError, and NotLines, after which the reader is unusable.
        """
        while (end := self._buffer.find(b"\n", self._searched)) < 0:
            self._searched = len(self._buffer)
            self._check(self._searched, max_bytes)
            data = await self._reader.read(READ_BYTES)
            if not data:
                return self._pop(self._searched)
            self._buffer += data
        self._check(end + 1, max_bytes)
        return self._pop(end + 1)

    def _pop(self, end: int) -> bytes:
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._searched = 0
        return line

    def _check(self, end: int, max_bytes: int) -> None:
        """Checks the line received so far. Raises NotLines."""
        if end > max_bytes:
            raise NotLines(f"a line has more than {max_bytes} bytes")
        line = bytes(self._buffer[: min(end, MAX_NON_JSON_BYTES + 1)]).lstrip()
        if not line or line.startswith(b"{"):
            return
        if line.startswith(TLS):
            raise NotLines("this port does not support TLS")
        if HTTP.match(line):
            raise NotLines("this port does not support HTTP")
        if len(line) > MAX_NON_JSON_BYTES:
            raise NotLines(f"a line of more than {MAX_NON_JSON_BYTES} bytes is not a JSON object")
        if line.translate(None, CONTROL) != line or not _is_text(line):
            raise NotLines("the bytes are not a line of JSON")


def _is_text(line: bytes) -> bool:
    """Whether the line is UTF-8; its last character may be incomplete."""
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True
