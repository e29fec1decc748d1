"""A socket to an engine in another process, and the ring beside it, as the side sees it that asks."""

from __future__ import annotations

import asyncio
import logging
import math
import socket

from msgspec import MsgspecError, msgpack

from conure import errors
from conure.background import start_task
from conure.engine.ipc.frames import drained, read_frame, write_frame
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.wire import Broken, Connect, FromEngine, NoRoom, Ready, RequestWriter, Starting, answer_reader
from conure.engine.messages import Answer, Note, Request
from conure.errors import ConureError, EngineFailed

__all__ = ["EngineHung", "EngineDisconnected", "Line"]

log = logging.getLogger(__name__)

RETRY = 0.005
LOOKS = 20
"""At an engine that starts, in the time it has for a step. They are counted: a process that is held up makes none."""


class EngineDisconnected(Exception):
    """The engine is no longer there; its text says what became of it."""

    def __init__(self, text: str = "the engine died") -> None:
        super().__init__(text)


class EngineHung(EngineDisconnected):
    """The engine neither answered nor died while it started, and was killed."""


class Line:
    """Everything raises EngineLost where the other side is gone, however that is noticed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ring: SampleRing) -> None:
        self._reader, self._writer, self._ring = reader, writer, ring
        self._requests, self._answers = RequestWriter(ring), answer_reader()
        self._is_closed = False

    @staticmethod
    async def over(end: socket.socket, ring: SampleRing) -> Line:
        return Line(*await asyncio.open_connection(sock=end, limit=2**22), ring)

    async def ready(self, seconds: float = math.inf) -> Ready:
        """Waits for the engine. Raises ConureError where it never will be there.

        `seconds`: the longest that one step of its start may take; EngineHung is raised then.
        """
        step = "starting its process"
        while True:
            match await self._next_step(seconds, step):
                case [Ready() as ready]:
                    return ready
                case [Broken(name, message, hint)]:
                    kind: type[ConureError] = getattr(errors, name, EngineFailed)
                    raise kind(message, hint)
                case [Starting(step)]:
                    log.debug("the engine is %s", step)
                case _:
                    raise EngineDisconnected

    async def _next_step(self, seconds: float, step: str) -> list[FromEngine]:
        if math.isinf(seconds):
            return await self._receive()
        receiving = start_task(self._receive(), "waiting for the engine's start")
        try:
            for _ in range(LOOKS):
                done, _ = await asyncio.wait([receiving], timeout=seconds / LOOKS)
                if done:
                    return receiving.result()
        finally:
            receiving.cancel()
        told = f"the engine did not get on for {seconds:g} s (start_seconds) while it was {step}; it was killed"
        raise EngineHung(told)

    def greet(self, first: Connect) -> None:
        self._write(msgpack.encode(first))

    async def send(self, requests: list[Request]) -> None:
        try:
            self._write(self._encoded(requests))
            await drained(self._writer)
        except ConnectionError:
            raise EngineDisconnected from None
        except NoRoom:
            await self._send_slowly(requests)

    async def _send_slowly(self, requests: list[Request]) -> None:
        """In halves, and what cannot be halved when there is room for it."""
        if self._reader.at_eof() or self._writer.is_closing():
            raise EngineDisconnected
        if len(requests) == 1:
            await asyncio.sleep(RETRY)
        middle = len(requests) // 2
        for half in (requests[:middle], requests[middle:]):
            if half:
                await self.send(half)

    def _encoded(self, requests: list[Request]) -> bytes:
        if self._is_closed:  # and its ring with it
            raise EngineDisconnected
        return self._requests.encode(requests)

    def _write(self, payload: bytes) -> None:
        try:
            write_frame(self._writer, payload)
        except ConnectionError:
            raise EngineDisconnected from None

    async def receive(self) -> list[Answer | Note]:
        return [message for message in await self._receive() if not isinstance(message, Ready | Broken | Starting)]

    async def _receive(self) -> list[FromEngine]:
        payload = await read_frame(self._reader)
        if payload is None:
            raise EngineDisconnected
        try:
            return self._answers.decode(payload)
        except MsgspecError as error:
            raise EngineDisconnected(f"the engine's answer cannot be read: {error}") from error

    def hang_up(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        """At once, whatever is still to be written."""
        self._writer.transport.abort()

    def close(self) -> None:
        """When the other side is gone, or will not use the ring any more."""
        self._is_closed = True
        self._writer.close()
        self._ring.close()
