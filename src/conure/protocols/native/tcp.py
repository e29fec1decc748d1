"""The native protocol over TCP: a line of JSON a message, both ways. A key is in `hello`.

The server says `hello` as soon as somebody connects: some clients wait for it, and others leave it alone.

A client that has no more to say may shut its side of the connection and read on: that is a `close`. One whose
connection broke looks the same where it may come back, so first it is found out whether there is somebody.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from conure.background import report_failure
from conure.client import protocol
from conure.protocols.http.acceptor import Acceptor
from conure.protocols.http.connection_limits import Connection
from conure.protocols.internal_errors import CONNECTION, internal_error
from conure.protocols.line_reader import MAX_LINE_BYTES, MAX_NON_JSON_BYTES, LineReader, NotLines
from conure.protocols.native.connection import NativeConnection
from conure.protocols.services import Services
from conure.protocols.tcp_port import TcpPort, serve_tcp_port
from conure.safe_text import one_line

__all__ = ["serve_tcp"]

IDLE_SECONDS = 600.0
"""After which a client that says nothing is taken for gone."""
STRANGER_SECONDS = 10.0
"""The same for one that has not said who it is, where keys are needed."""
PARTING = 5.0
"""Seconds for a client to read the rest."""
LINGERING = 10.0
"""The same where it may still be sending: what it was told would be lost if it found the connection closed."""
FORM = 'send one line of JSON a message: {"type": "audio", "data": "<base64>"}; WebSocket takes audio as it is'
LIMIT = 2**16
"""Bytes that wait to be taken from the socket."""
PROBES, PROBE_SECONDS = 3, 0.7
"""Receipts to one that shut its side, and the time for each to be refused by one that is gone."""

_from_json = msgspec.json.Decoder(protocol.FromClient)
_to_json = msgspec.json.Encoder()


async def serve_tcp(behind: Services, host: str, port: int, *, shared: bool = False) -> Acceptor:
    """Several processes may share the port."""

    numbers = behind.live.identity.stream_numbers()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the server stops; asyncio would print it as an error
            await _Connection(behind, reader, writer, connection).serve(next(numbers))

    of_lines = TcpPort("tcp", _error_line, LIMIT, form=FORM)
    return await serve_tcp_port(of_lines, behind.connections, serve, host, port, shared=shared)


def _error_line(message: str, hint: str) -> bytes:
    return _to_json.encode(protocol.Error(message=message, hint=hint)) + b"\n"


class _Refused(ConnectionError):
    """The client was told why, and the connection ends."""


class _Connection:
    def __init__(
        self, behind: Services, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
    ) -> None:
        self._reader, self._writer, self._connection = reader, writer, connection
        self._lines = LineReader(reader)
        self._conversation = NativeConnection(behind.live, behind.access, self._send)
        if not behind.access.needs_key:
            self._conversation.identify(None)

    async def serve(self, number: int) -> None:
        is_refused = False
        try:
            await self._conversation.send_greeting(number)
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._conversation.send_events()
                reading.cancel()
            await self._conversation.send_farewell()
        except* _Refused:
            is_refused = True
        except* (OSError, TimeoutError):
            pass
        except* Exception as mistake:
            report_failure(CONNECTION, mistake)
            with contextlib.suppress(OSError):
                await self._conversation.send_error(internal_error())
        finally:
            self._conversation.disconnect()
            await self._hang_up(lingering=is_refused)

    async def _hang_up(self, *, lingering: bool) -> None:
        try:
            async with asyncio.timeout(LINGERING if lingering else PARTING):
                if lingering:
                    self._writer.write_eof()
                    while await self._reader.read(LIMIT):
                        pass
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, RuntimeError, TimeoutError):
            self._writer.transport.abort()

    async def _read(self) -> None:
        while not self._conversation.is_over:
            try:
                line = await self._next()
            except NotLines as fault:
                await self._refuse(str(fault))
                raise _Refused from None
            if not line:
                await self._finish()
                return
            if line.strip():
                await self._take(line)

    async def _next(self) -> bytes:
        """Raises Foreign, and TimeoutError for a client that has nothing to wait for, and says nothing."""
        while True:
            is_known = self._conversation.is_identified
            patience, longest = (IDLE_SECONDS, MAX_LINE_BYTES) if is_known else (STRANGER_SECONDS, MAX_NON_JSON_BYTES)
            try:
                return await asyncio.wait_for(self._lines.read_line(longest), patience)
            except TimeoutError:
                if not self._conversation.has_backlog:
                    fault = f"nothing was said for {patience:g} s"
                    await self._conversation.send_message(protocol.Error(message=fault, code="idle"))
                    raise

    async def _finish(self) -> None:
        """Nothing more will be said. Raises ConnectionError where nobody is there."""
        for _ in range(PROBES if self._conversation.can_resume else 0):
            await self._conversation.send_message(self._conversation.receipt)
            await asyncio.sleep(PROBE_SECONDS)
        await self._conversation.end_input()

    async def _take(self, line: bytes) -> None:
        try:
            message = _from_json.decode(line)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            await self._refuse(str(error))
        else:
            await self._conversation.handle_message(message)
            if self._conversation.is_identified:
                self._connection.mark_identified()

    async def _refuse(self, fault: str) -> None:
        await self._conversation.send_message(protocol.Error(message=one_line(f"not understood: {fault}"), hint=FORM))

    async def _send(self, message: protocol.FromServer) -> None:
        try:
            self._writer.write(_to_json.encode(message) + b"\n")
            await self._writer.drain()
        except RuntimeError as error:  # uvloop's word for a connection that is closed
            raise ConnectionResetError from error
