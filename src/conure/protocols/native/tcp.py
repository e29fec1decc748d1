"""The native protocol over TCP: one line of JSON per message. The key is in the client's `hello`.

The server sends `hello` on connect: some clients wait for it, and others ignore it.

A client may half-close the connection and continue to read: that is a `close`. A broken connection looks the same, so
if the stream can be resumed, the server first probes whether the client is still there.
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
"""Idle timeout of a client."""
UNIDENTIFIED_SECONDS = 10.0
"""Idle timeout of a client that has not identified itself, if keys are required."""
FLUSH_SECONDS = 5.0
"""Time for the client to read the last messages."""
LINGER_SECONDS = 10.0
"""The same for a rejected client, which may still be sending: an early close would reset the connection and lose the
error."""
HINT = 'send one line of JSON per message: {"type": "audio", "data": "<base64>"}; WebSocket accepts binary audio'
LIMIT = 2**16
"""Bytes of the read buffer."""
PROBES, PROBE_SECONDS = 3, 0.7
"""Acknowledgements sent after a half-close, and the time in which a peer that is gone resets the connection."""

_from_json = msgspec.json.Decoder(protocol.FromClient)
_to_json = msgspec.json.Encoder()


async def serve_tcp(services: Services, host: str, port: int, *, shared: bool = False) -> Acceptor:
    """`shared`: several processes listen on the port."""
    numbers = services.live.identity.stream_numbers()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the server is stopping; asyncio would log it as an error
            await _Connection(services, reader, writer, connection).serve(next(numbers))

    line_port = TcpPort("tcp", _error_line, LIMIT, hint=HINT)
    return await serve_tcp_port(line_port, services.connections, serve, host, port, shared=shared)


def _error_line(message: str, hint: str) -> bytes:
    return _to_json.encode(protocol.Error(message=message, hint=hint)) + b"\n"


class _Rejected(ConnectionError):
    """The client was sent an error, and the connection must be closed."""


class _Connection:
    def __init__(
        self, services: Services, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
    ) -> None:
        self._reader, self._writer, self._connection = reader, writer, connection
        self._lines = LineReader(reader)
        self._native = NativeConnection(services.live, services.access, self._send)
        if not services.access.needs_key:
            self._native.identify(None)

    async def serve(self, number: int) -> None:
        is_rejected = False
        try:
            await self._native.send_greeting(number)
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._native.send_events()
                reading.cancel()
            await self._native.send_farewell()
        except* _Rejected:
            is_rejected = True
        except* (OSError, TimeoutError):
            pass
        except* Exception as error:
            report_failure(CONNECTION, error)
            with contextlib.suppress(OSError):
                await self._native.send_error(internal_error())
        finally:
            self._native.disconnect()
            await self._close(lingering=is_rejected)

    async def _close(self, *, lingering: bool) -> None:
        try:
            async with asyncio.timeout(LINGER_SECONDS if lingering else FLUSH_SECONDS):
                if lingering:
                    self._writer.write_eof()
                    while await self._reader.read(LIMIT):
                        pass
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, RuntimeError, TimeoutError):
            self._writer.transport.abort()

    async def _read(self) -> None:
        while not self._native.is_over:
            try:
                line = await self._next_line()
            except NotLines as error:
                await self._send_error(str(error))
                raise _Rejected from None
            if not line:
                await self._end_input()
                return
            if line.strip():
                await self._handle_line(line)

    async def _next_line(self) -> bytes:
        """Raises NotLines, and TimeoutError for an idle client without pending results."""
        while True:
            is_identified = self._native.is_identified
            timeout = IDLE_SECONDS if is_identified else UNIDENTIFIED_SECONDS
            max_bytes = MAX_LINE_BYTES if is_identified else MAX_NON_JSON_BYTES
            try:
                return await asyncio.wait_for(self._lines.read_line(max_bytes), timeout)
            except TimeoutError:
                if not self._native.has_backlog:
                    message = f"no message within {timeout:g} s"
                    await self._native.send_message(protocol.Error(message=message, code="idle"))
                    raise

    async def _end_input(self) -> None:
        """The client has ended its side of the connection. Raises ConnectionError if the client is gone."""
        for _ in range(PROBES if self._native.can_resume else 0):
            await self._native.send_message(self._native.receipt)
            await asyncio.sleep(PROBE_SECONDS)
        await self._native.end_input()

    async def _handle_line(self, line: bytes) -> None:
        try:
            message = _from_json.decode(line)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            await self._send_error(str(error))
        else:
            await self._native.handle_message(message)
            if self._native.is_identified:
                self._connection.mark_identified()

    async def _send_error(self, fault: str) -> None:
        await self._native.send_message(protocol.Error(message=one_line(f"invalid message: {fault}"), hint=HINT))

    async def _send(self, message: protocol.FromServer) -> None:
        try:
            self._writer.write(_to_json.encode(message) + b"\n")
            await self._writer.drain()
        except RuntimeError as error:  # raised by uvloop for a closed connection
            raise ConnectionResetError from error
