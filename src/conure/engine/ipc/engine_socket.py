"""The client side of a connection to an engine in another process: a socket for messages, a ring for samples."""

from __future__ import annotations

import asyncio
import logging
import math
import socket

from msgspec import MsgspecError, msgpack

from conure import errors
from conure.background import start_task
from conure.engine.ipc.frames import drain, read_frame, write_frame
from conure.engine.ipc.sample_ring import SampleRing
from conure.engine.ipc.wire import (
    Connect,
    EngineMessage,
    Ready,
    RequestEncoder,
    RingFull,
    StartFailed,
    Starting,
    message_decoder,
)
from conure.engine.messages import EngineEvent, Request, StreamEvent
from conure.errors import ConureError, EngineFailed

__all__ = ["EngineHung", "EngineDisconnected", "EngineSocket"]

log = logging.getLogger(__name__)

RING_FULL_DELAY = 0.005
"""Seconds before a request is sent again that did not fit the ring."""
START_POLLS = 20
"""Polls in the time that one step of a start may take. Polls are counted instead of seconds, because a suspended
process makes none."""


class EngineDisconnected(Exception):
    """The connection to the engine is lost; the message says why."""

    def __init__(self, message: str = "the engine died") -> None:
        super().__init__(message)


class EngineHung(EngineDisconnected):
    """A step of the engine's start took too long, and the engine was killed."""


class EngineSocket:
    """All methods raise EngineDisconnected when the engine has gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ring: SampleRing) -> None:
        self._reader, self._writer, self._ring = reader, writer, ring
        self._encoder, self._decoder = RequestEncoder(ring), message_decoder()
        self._is_closed = False

    @staticmethod
    async def open(connected: socket.socket, ring: SampleRing) -> EngineSocket:
        return EngineSocket(*await asyncio.open_connection(sock=connected, limit=2**22), ring)

    async def wait_ready(self, step_timeout: float = math.inf) -> Ready:
        """Waits until the engine accepts requests. Raises ConureError when its start failed.

        Raises EngineHung when one step of the start takes longer than `step_timeout` seconds.
        """
        step = "starting its process"
        while True:
            match await self._next_step(step_timeout, step):
                case [Ready() as ready]:
                    return ready
                case [StartFailed(name, message, hint)]:
                    kind: type[ConureError] = getattr(errors, name, EngineFailed)
                    raise kind(message, hint)
                case [Starting(step)]:
                    log.debug("the engine is %s", step)
                case _:
                    raise EngineDisconnected

    async def _next_step(self, timeout: float, step: str) -> list[EngineMessage]:
        if math.isinf(timeout):
            return await self._receive()
        receiving = start_task(self._receive(), "waiting for the engine's start")
        try:
            for _ in range(START_POLLS):
                done, _ = await asyncio.wait([receiving], timeout=timeout / START_POLLS)
                if done:
                    return receiving.result()
        finally:
            receiving.cancel()
        message = f"the engine did not get on for {timeout:g} s (start_seconds) while it was {step}; it was killed"
        raise EngineHung(message)

    def send_connect(self, connect: Connect) -> None:
        self._write(msgpack.encode(connect))

    async def send(self, requests: list[Request]) -> None:
        try:
            self._write(self._encode(requests))
            await drain(self._writer)
        except ConnectionError:
            raise EngineDisconnected from None
        except RingFull:
            await self._send_in_parts(requests)

    async def _send_in_parts(self, requests: list[Request]) -> None:
        """Splits the requests in halves; a single request that does not fit waits for room in the ring."""
        if self._reader.at_eof() or self._writer.is_closing():
            raise EngineDisconnected
        if len(requests) == 1:
            await asyncio.sleep(RING_FULL_DELAY)
        middle = len(requests) // 2
        for half in (requests[:middle], requests[middle:]):
            if half:
                await self.send(half)

    def _encode(self, requests: list[Request]) -> bytes:
        if self._is_closed:  # and so is the ring
            raise EngineDisconnected
        return self._encoder.encode(requests)

    def _write(self, payload: bytes) -> None:
        try:
            write_frame(self._writer, payload)
        except ConnectionError:
            raise EngineDisconnected from None

    async def receive(self) -> list[StreamEvent | EngineEvent]:
        return [message for message in await self._receive() if not isinstance(message, Ready | StartFailed | Starting)]

    async def _receive(self) -> list[EngineMessage]:
        payload = await read_frame(self._reader)
        if payload is None:
            raise EngineDisconnected
        try:
            return self._decoder.decode(payload)
        except MsgspecError as error:
            raise EngineDisconnected(f"the engine sent an invalid message: {error}") from error

    def close_socket(self) -> None:
        """Leaves the ring open: the engine may still read it."""
        self._writer.close()

    def abort(self) -> None:
        """Closes the socket at once and discards what was not sent yet."""
        self._writer.transport.abort()

    def close(self) -> None:
        """Closes the socket and the ring; the engine must not use the ring any more."""
        self._is_closed = True
        self._writer.close()
        self._ring.close()
