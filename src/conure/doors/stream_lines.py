"""The native protocol over TCP: a line of JSON a message, both ways. A key is in `hello`.

The server says `hello` as soon as somebody connects: some clients wait for it, and others leave it alone.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from conure.background import failed
from conure.client import protocol
from conure.doors.behind import Behind
from conure.doors.conversation import Conversation
from conure.doors.mistakes import CONNECTION, told_mistake

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
BACKLOG = 1024
"""Connections that wait to be accepted."""

_from_json = msgspec.json.Decoder(protocol.FromClient)
_to_json = msgspec.json.Encoder()


async def serve_lines(behind: Behind, host: str, port: int, *, shared: bool = False) -> asyncio.Server:
    """Several processes may share the port."""

    numbers = behind.live.place.numbers()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the server stops; asyncio would print it as an error
            await _Connection(behind, reader, writer).serve(next(numbers))

    return await asyncio.start_server(serve, host, port, limit=LONGEST_LINE, backlog=BACKLOG, reuse_port=shared or None)


class _Connection:
    def __init__(self, behind: Behind, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._conversation = Conversation(behind.live, behind.access, self._send)
        if not behind.access.needs_key:
            self._conversation.identify(None)

    async def serve(self, number: int) -> None:
        try:
            await self._conversation.greet(number)
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                await self._conversation.tell()
                reading.cancel()
            await self._conversation.part()
        except* (OSError, TimeoutError):
            pass
        except* Exception as mistake:
            failed(CONNECTION, mistake)
            with contextlib.suppress(OSError):
                await self._conversation.refuse(told_mistake())
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

    async def _refuse(self, fault: str) -> None:
        hint = 'send one line of JSON a message: {"type": "audio", "data": "<base64>"}'
        await self._conversation.say(protocol.Error(message=f"not understood: {fault}", hint=hint))

    async def _send(self, message: protocol.FromServer) -> None:
        try:
            self._writer.write(_to_json.encode(message) + b"\n")
            await self._writer.drain()
        except RuntimeError as error:  # uvloop's word for a connection that is closed
            raise ConnectionResetError from error
