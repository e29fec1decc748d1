"""Wyoming's connections: what is described, asked for, heard and told.

    client  transcribe {name, language}, audio-start {rate, width, channels}, audio-chunk ..., audio-stop
    server  transcript-start, transcript-chunk {text} ..., transcript {text}, transcript-stop

One after the other, any number of times. Whoever asked waits for a transcript and for nothing else, so an error ends
the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from conure.audio.formats import AudioFormat, Encoding
from conure.background import report_failure, start_task
from conure.errors import BadOption, BadRequest, ConureError
from conure.protocols.error_codes import message_with_hint, retry_after_for
from conure.protocols.http.acceptor import Acceptor
from conure.protocols.http.connection_limits import Connection
from conure.protocols.internal_errors import CONNECTION, internal_error
from conure.protocols.send_timeout import with_send_timeout
from conure.protocols.services import Services
from conure.protocols.tcp_port import TcpPort, serve_tcp_port
from conure.protocols.wyoming.codec import MAX_LINE_BYTES, Message, encoded, read_message
from conure.protocols.wyoming.info import info
from conure.protocols.wyoming.transcription import WyomingTranscription, wanted
from conure.service.access import Caller
from conure.service.events import Failed

__all__ = ["serve_wyoming"]

ENCODINGS: dict[int, Encoding] = {1: "pcm8", 2: "pcm16", 3: "pcm24", 4: "pcm32"}
"""By the bytes of a sample."""
IDLE_SECONDS, SILENT_SECONDS = 600.0, 60.0
"""After which a client that says nothing is taken for gone; the latter while it is listened to."""
PARTING = 5.0
"""Seconds for a client to read the rest."""
LINGERING = 30.0
"""The same where it may still be sending: what it was told would be lost if it found the connection closed."""


async def serve_wyoming(behind: Services, host: str, port: int, *, shared: bool = False) -> Acceptor:
    """Several processes may share the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the server stops; asyncio would print it as an error
            await _Connection(behind, reader, writer, connection).serve()

    of_events = TcpPort("wyoming", _error_event, MAX_LINE_BYTES, begins=b"{")
    return await serve_tcp_port(of_events, behind.connections, serve, host, port, shared=shared)


def _error_event(message: str, hint: str) -> bytes:
    return encoded("error", {"text": f"{message}: {hint}", "code": BadRequest.code})


Said = TypeVar("Said")


class _Asked(Struct):
    """With `transcribe`. What else may be in it has no effect."""

    name: str | None = None
    language: str | None = None


class _Sound(Struct):
    rate: int
    width: int
    channels: int

    def format(self) -> AudioFormat:
        if self.width not in ENCODINGS:
            known = ", ".join(map(str, ENCODINGS))
            raise BadOption(f"samples of {self.width} bytes are not taken", f"the width must be one of {known}, best 2")
        return AudioFormat(ENCODINGS[self.width], self.rate, self.channels)


class _Refused(ConnectionError):
    """The client was told why, and the connection ends."""


class _Connection:
    def __init__(
        self, behind: Services, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
    ) -> None:
        self._behind, self._reader, self._writer, self._connection = behind, reader, writer, connection
        self._caller: Caller
        self._tasks = asyncio.TaskGroup()
        self._asked = _Asked()
        """For the audio that comes next."""
        self._sound: dict[str, Any] = {}
        """Of the audio that is being sent, as the client told it."""
        self._turn: WyomingTranscription | None = None
        self._telling: asyncio.Task[None]

    async def serve(self) -> None:
        is_refused = False
        try:
            async with self._tasks:
                await self._read()
        except* _Refused:
            is_refused = True
        except* OSError:
            pass
        except* Exception as mistake:
            is_refused = True
            report_failure(CONNECTION, mistake)
            with contextlib.suppress(OSError):
                await self._refuse(internal_error())
        finally:
            if self._turn:
                self._turn.release()
            await self._hang_up(lingering=is_refused)

    async def _hang_up(self, *, lingering: bool) -> None:
        try:
            async with asyncio.timeout(LINGERING if lingering else PARTING):
                if lingering:
                    self._writer.write_eof()
                    while await self._reader.read(MAX_LINE_BYTES):
                        pass
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, RuntimeError, TimeoutError):
            self._writer.transport.abort()

    async def _read(self) -> None:
        try:
            self._caller = self._behind.access.identify(None)  # there is no place for a key in this protocol
            while message := await self._next():
                await self._take(message)
            if self._turn:  # a client that will say nothing more may wait for what it said
                await self._stop()
        except ConureError as error:
            await self._refuse(error)

    async def _next(self) -> Message | None:
        """None at the end."""
        patience = SILENT_SECONDS if self._turn else IDLE_SECONDS
        reading = start_task(read_message(self._reader), "wyoming message")
        try:
            while not (await asyncio.wait([reading], timeout=patience))[0]:
                if not (self._turn and self._turn.has_backlog):
                    await self._refuse(Failed("idle", f"nothing was said for {patience:g} s", "connect again"))
            message = reading.result()
        finally:
            reading.cancel()
        if message is not None:
            self._connection.mark_message_received()
        return message

    async def _take(self, message: Message) -> None:
        """What is not known is left to those who know it, as the protocol wants."""
        match message.type:
            case "describe":
                await self._say("info", info(self._behind.live.models))
            case "ping":
                await self._say("pong", {"text": message.data.get("text")})
            case "transcribe":
                self._asked = _converted(message, message.data, _Asked)
            case "audio-start":
                if self._turn:
                    raise BadOption("audio-start came twice", "say audio-stop between them")
                await self._start(self._format(message))
            case "audio-chunk":
                await self._hear(message)
            case "audio-stop":
                await self._stop()

    def _format(self, message: Message) -> AudioFormat:
        """What a chunk does not tell is as it was before."""
        sound = self._sound | message.data
        audio = _converted(message, sound, _Sound).format()
        self._sound = sound
        return audio

    async def _start(self, audio: AudioFormat) -> None:
        live, asked = self._behind.live, self._asked
        self._asked = _Asked()
        choice = wanted(live.models, asked.name or None, asked.language or None)
        self._turn = WyomingTranscription(live, await live.open_stream(choice, audio, self._caller), self._say)
        self._telling = self._tasks.create_task(self._tell(self._turn))

    async def _hear(self, message: Message) -> None:
        audio = self._format(message)
        if self._turn is None:
            await self._start(audio)
        assert self._turn is not None
        if audio != self._turn.audio:
            raise BadOption(f"a chunk of {audio} came in a stream of {self._turn.audio}", "one stream has one format")
        await self._turn.push_audio(message.payload)

    async def _stop(self) -> None:
        if self._turn is None:
            await self._start(AudioFormat())  # nothing was said, and nothing was heard
        assert self._turn is not None
        await self._turn.end_audio()
        await self._telling
        self._turn.release()
        self._turn, self._sound = None, {}

    async def _tell(self, turn: WyomingTranscription) -> None:
        if failed := await turn.send_transcript():
            await self._refuse(failed)

    async def _refuse(self, why: ConureError | Failed) -> NoReturn:
        retry = retry_after_for(why)
        later = "" if retry is None else f" (retry after {retry:g} s)"
        await self._say("error", {"text": message_with_hint(why) + later, "code": why.code})
        raise _Refused

    async def _say(self, kind: str, data: dict[str, Any]) -> None:
        """Raises OSError, of which TooSlow is one."""
        try:
            self._writer.write(encoded(kind, data))
            await with_send_timeout(self._writer.drain())
        except RuntimeError as error:  # uvloop's word for a connection that is closed
            raise ConnectionResetError from error


def _converted(message: Message, data: dict[str, Any], kind: type[Said]) -> Said:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"not understood: {message.type}: {error}", "see the protocol of Wyoming") from None
