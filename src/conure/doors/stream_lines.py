"""The native protocol over TCP: a line of JSON a message, both ways. A key is in `hello`."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from conure.client import protocol
from conure.doors.acceptor import Acceptor
from conure.doors.behind import Behind
from conure.doors.connections import Connection
from conure.doors.conversation import Conversation
from conure.doors.stream_port import StreamPort, serve_streams
from conure.safe_text import one_line

__all__ = ["LONGEST_LINE", "serve_lines"]

LONGEST_LINE = 2**22
IDLE_SECONDS = 600.0
"""After which a client that says nothing is taken for gone."""
STRANGER_SECONDS = 10.0
"""The same for one that has not said who it is, where keys are needed."""
HTTP = (b" HTTP/1.1\r\n", b" HTTP/1.0\r\n")
"""How a request ends its first line: a web page may send one to any port, with lines that we would take."""
PARTING = 5.0
"""Seconds for a client to read the rest."""

_from_json = msgspec.json.Decoder(protocol.FromClient)
_to_json = msgspec.json.Encoder()


async def serve_lines(behind: Behind, host: str, port: int, *, shared: bool = False) -> Acceptor:
    """Several processes may share the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the server stops; asyncio would print it as an error
            await _Connection(behind, reader, writer, connection).serve()

    of_lines = StreamPort("tcp", _error_line, LONGEST_LINE)
    return await serve_streams(of_lines, behind.connections, serve, host, port, shared=shared)


def _error_line(message: str, hint: str) -> bytes:
    return _to_json.encode(protocol.Error(message=message, hint=hint)) + b"\n"


class _Connection:
    def __init__(
        self, behind: Behind, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
    ) -> None:
        self._reader, self._writer, self._connection = reader, writer, connection
        self._conversation = Conversation(behind.live, behind.access, self._send)
        if not behind.access.needs_key:
            self._conversation.identify(None)

    async def serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._conversation.tell()
                reading.cancel()
            await self._conversation.part()
        except* (OSError, TimeoutError):
            pass
        finally:
            self._conversation.leave()
            await self._hang_up()

    async def _hang_up(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(PARTING):
                await self._writer.wait_closed()
        except (OSError, RuntimeError, TimeoutError):
            self._writer.transport.abort()

    async def _read(self) -> None:
        while not self._conversation.is_over:
            patience = IDLE_SECONDS if self._conversation.is_known else STRANGER_SECONDS
            try:
                line = await asyncio.wait_for(self._reader.readline(), patience)
            except TimeoutError:
                fault = f"nothing was said for {patience:g} s"
                await self._conversation.say(protocol.Error(message=fault, code="idle"))
                raise
            except ValueError:
                await self._refuse(f"a line of more than {LONGEST_LINE} bytes")
                raise ConnectionError from None  # where the next line begins cannot be told
            if line.endswith(HTTP):
                await self._refuse("this port does not speak HTTP")
                raise ConnectionError
            if not line:
                raise ConnectionError
            if line.strip():
                await self._take(line)

    async def _take(self, line: bytes) -> None:
        try:
            message = _from_json.decode(line)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
            await self._refuse(str(error))
        else:
            await self._conversation.read(message)
            if self._conversation.is_known:
                self._connection.identified()

    async def _refuse(self, fault: str) -> None:
        hint = 'send one line of JSON a message: {"type": "audio", "data": "<base64>"}'
        await self._conversation.say(protocol.Error(message=one_line(f"not understood: {fault}"), hint=hint))

    async def _send(self, message: protocol.FromServer) -> None:
        try:
            self._writer.write(_to_json.encode(message) + b"\n")
            await self._writer.drain()
        except RuntimeError as error:  # uvloop's word for a connection that is closed
            raise ConnectionResetError from error
