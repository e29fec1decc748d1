"""The Wyoming server and its connections.

    client  transcribe {name, language}, audio-start {rate, width, channels}, audio-chunk ..., audio-stop
    server  transcript-start, transcript-chunk {text} ..., transcript {text}, transcript-stop

Transcriptions follow one another on a connection. Clients wait for a transcript only, so an error closes the
connection.
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
from conure.protocols.wyoming.codec import MAX_LINE_BYTES, Message, encode_message, read_message
from conure.protocols.wyoming.info import server_info
from conure.protocols.wyoming.transcription import WyomingTranscription, stream_request
from conure.service.access import Caller
from conure.service.events import Failed

__all__ = ["serve_wyoming"]

ENCODINGS: dict[int, Encoding] = {1: "pcm8", 2: "pcm16", 3: "pcm24", 4: "pcm32"}
"""Encodings by sample width in bytes."""
IDLE_SECONDS, TRANSCRIPTION_IDLE_SECONDS = 600.0, 60.0
"""Seconds without a message before the connection is closed: between transcriptions, and during one."""
CLOSE_SECONDS = 5.0
"""Seconds to wait for a client to read the remaining output."""
CLOSE_SECONDS_AFTER_ERROR = 30.0
"""The same after an error, when the client may still be sending: a reset would discard the error message."""


async def serve_wyoming(services: Services, host: str, port: int, *, shared: bool = False) -> Acceptor:
    """`shared`: several processes share the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the server stops; asyncio would log it as an error
            await _Connection(services, reader, writer, connection).serve()

    port_settings = TcpPort("wyoming", _error_event, MAX_LINE_BYTES, begins=b"{")
    return await serve_tcp_port(port_settings, services.connections, serve, host, port, shared=shared)


def _error_event(message: str, hint: str) -> bytes:
    return encode_message("error", {"text": f"{message}: {hint}", "code": BadRequest.code})


Data = TypeVar("Data")


class _TranscribeData(Struct):
    """Data of `transcribe`. Other fields have no effect."""

    name: str | None = None
    language: str | None = None


class _AudioFormatData(Struct):
    rate: int
    width: int
    channels: int

    def format(self) -> AudioFormat:
        if self.width not in ENCODINGS:
            known = ", ".join(map(str, ENCODINGS))
            raise BadOption(f"unsupported sample width of {self.width} bytes", f"use one of {known}, preferably 2")
        return AudioFormat(ENCODINGS[self.width], self.rate, self.channels)


class _ConnectionRejected(ConnectionError):
    """The error was sent to the client; the connection is closed."""


class _Connection:
    def __init__(
        self, services: Services, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
    ) -> None:
        self._services, self._reader, self._writer, self._connection = services, reader, writer, connection
        self._caller: Caller
        self._tasks = asyncio.TaskGroup()
        self._options = _TranscribeData()
        """Options of the next transcription."""
        self._format_fields: dict[str, Any] = {}
        """The audio format fields as last sent by the client."""
        self._transcription: WyomingTranscription | None = None
        self._sending: asyncio.Task[None]

    async def serve(self) -> None:
        has_failed = False
        try:
            async with self._tasks:
                await self._serve_messages()
        except* _ConnectionRejected:
            has_failed = True
        except* OSError:
            pass
        except* Exception as error:
            has_failed = True
            report_failure(CONNECTION, error)
            with contextlib.suppress(OSError):
                await self._close_with_error(internal_error())
        finally:
            if self._transcription:
                self._transcription.release()
            await self._close(after_error=has_failed)

    async def _close(self, *, after_error: bool) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS_AFTER_ERROR if after_error else CLOSE_SECONDS):
                if after_error:
                    self._writer.write_eof()
                    while await self._reader.read(MAX_LINE_BYTES):
                        pass
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, RuntimeError, TimeoutError):
            self._writer.transport.abort()

    async def _serve_messages(self) -> None:
        try:
            self._caller = self._services.access.identify(None)  # the protocol has no field for a key
            while message := await self._next_message():
                await self._handle_message(message)
            if self._transcription:  # a half-closed client may still wait for its transcript
                await self._finish_transcription()
        except ConureError as error:
            await self._close_with_error(error)

    async def _next_message(self) -> Message | None:
        """Returns None at the end of input."""
        timeout = TRANSCRIPTION_IDLE_SECONDS if self._transcription else IDLE_SECONDS
        read_task = start_task(read_message(self._reader), "wyoming message")
        try:
            while not (await asyncio.wait([read_task], timeout=timeout))[0]:
                if not (self._transcription and self._transcription.has_backlog):
                    await self._close_with_error(Failed("idle", f"no message for {timeout:g} s", "connect again"))
            message = read_task.result()
        finally:
            read_task.cancel()
        if message is not None:
            self._connection.mark_message_received()
        return message

    async def _handle_message(self, message: Message) -> None:
        """Unknown message types are ignored, as the protocol requires."""
        match message.type:
            case "describe":
                await self._send_event("info", server_info(self._services.live.models))
            case "ping":
                await self._send_event("pong", {"text": message.data.get("text")})
            case "transcribe":
                self._options = _parse_data(message, message.data, _TranscribeData)
            case "audio-start":
                if self._transcription:
                    raise BadOption("audio-start was sent twice", "send audio-stop before the next audio-start")
                await self._start_transcription(self._parse_format(message))
            case "audio-chunk":
                await self._push_audio(message)
            case "audio-stop":
                await self._finish_transcription()

    def _parse_format(self, message: Message) -> AudioFormat:
        """Fields that a chunk omits keep their value."""
        format_fields = self._format_fields | message.data
        audio = _parse_data(message, format_fields, _AudioFormatData).format()
        self._format_fields = format_fields
        return audio

    async def _start_transcription(self, audio: AudioFormat) -> None:
        live, options = self._services.live, self._options
        self._options = _TranscribeData()
        request = stream_request(live.models, options.name or None, options.language or None)
        stream = await live.open_stream(request, audio, self._caller)
        self._transcription = WyomingTranscription(live, stream, self._send_event)
        self._sending = self._tasks.create_task(self._send_transcript(self._transcription))

    async def _push_audio(self, message: Message) -> None:
        audio = self._parse_format(message)
        if self._transcription is None:
            await self._start_transcription(audio)
        assert self._transcription is not None
        if audio != self._transcription.audio:
            raise BadOption(
                f"the audio format changed from {self._transcription.audio} to {audio}",
                "send one format per transcription",
            )
        await self._transcription.push_audio(message.payload)

    async def _finish_transcription(self) -> None:
        if self._transcription is None:
            await self._start_transcription(AudioFormat())  # audio-stop without audio: an empty transcript
        assert self._transcription is not None
        await self._transcription.end_audio()
        await self._sending
        self._transcription.release()
        self._transcription, self._format_fields = None, {}

    async def _send_transcript(self, transcription: WyomingTranscription) -> None:
        if failed := await transcription.send_transcript():
            await self._close_with_error(failed)

    async def _close_with_error(self, error: ConureError | Failed) -> NoReturn:
        retry_after = retry_after_for(error)
        retry_note = "" if retry_after is None else f" (retry after {retry_after:g} s)"
        await self._send_event("error", {"text": message_with_hint(error) + retry_note, "code": error.code})
        raise _ConnectionRejected

    async def _send_event(self, type_: str, data: dict[str, Any]) -> None:
        """Raises OSError, of which ClientTooSlow is a subclass."""
        try:
            self._writer.write(encode_message(type_, data))
            await with_send_timeout(self._writer.drain())
        except RuntimeError as error:  # raised by uvloop for a closed connection
            raise ConnectionResetError from error


def _parse_data(message: Message, data: dict[str, Any], type_: type[Data]) -> Data:
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        raise BadRequest(f"invalid {message.type}: {error}", "see the Wyoming protocol") from None
