"""One connection of the native protocol, independent of its transport.

    hello, config, audio ...  ──> a stream of the service ──> events ──> `send`

The first message that needs the stream opens it. The stream survives the connection unless it has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
from msgspec import structs

from conure.audio.formats import AudioFormat, parse_encoding
from conure.client import protocol
from conure.errors import BadOption, ConureError
from conure.protocols.error_codes import error_code_for, retry_after_for
from conure.protocols.native.events import ResultRenderer, render_event
from conure.protocols.native.remote_stream import RemoteStream
from conure.protocols.send_timeout import CLIENT_TOO_SLOW, ClientTooSlow, with_send_timeout
from conure.service.access import Access, Caller
from conure.service.events import TERMINAL_EVENTS, Event
from conure.service.live_service import LiveService, LiveStream, StreamRequest
from conure.vad.endpointing import Endpointing

__all__ = ["NativeConnection"]

Send = Callable[[protocol.FromServer], Awaitable[None]]

RECEIPT_INTERVAL = 2.0
"""Seconds between acknowledgements of audio. Few, as a client that reads only at the end buffers few messages."""
NORMAL_CLOSE = 1000


class NativeConnection:
    """Each message of the client is passed to `handle_message`, one at a time; `send_events` runs concurrently."""

    def __init__(self, live: LiveService, access: Access, send: Send) -> None:
        self.is_over = False
        """No more messages will be sent; the connection may be closed."""
        self._live = live
        self._access = access
        self._caller: Caller | None = None
        self._send = send
        self._last_sent: protocol.FromServer | None = None
        self._hello = protocol.Hello()
        self._greeting_id: int | None = None
        """Stream id in the greeting, which is sent before the stream is opened."""
        self._config = protocol.Config(events=False)
        self._stream: LiveStream | None = None
        self._remote: RemoteStream | None = None
        """The stream, if another server process owns it."""
        self._reader_id = 0
        self._sent_seq = 0
        """Number of the last event that was sent."""
        self._opened = asyncio.Event()
        self._results = ResultRenderer(0)

    async def send_greeting(self, stream_id: int) -> None:
        """Sends `hello` before the client has sent a message."""
        self._greeting_id = stream_id
        await self.send_message(protocol.Greeting(stream_id=stream_id))

    def identify(self, secret: str | None) -> None:
        """Sets the caller that the streams belong to. Raises Unauthorized."""
        self._caller = self._access.identify(secret)

    @property
    def is_identified(self) -> bool:
        """Whether the client has a valid key or the token of a stream, or needs no key."""
        return self._caller is not None or self._stream is not None or self._remote is not None

    @property
    def close_code(self) -> int:
        """Close code of a WebSocket: that of the error, if the last message was one."""
        last = self._last_sent
        return error_code_for(last.code).close if isinstance(last, protocol.Error | protocol.Failed) else NORMAL_CLOSE

    async def handle_message(self, message: protocol.FromClient | bytes) -> None:
        """Processes a message or binary audio (bytes). An invalid request is answered with an error."""
        if self.is_over or self._is_displaced:
            return
        if self._remote:
            await self._remote.send_message(message)
            return
        try:
            await self._handle(message)
        except ConureError as error:
            await self.send_error(error)

    async def send_error(self, error: ConureError) -> None:
        retry = retry_after_for(error)
        await self.send_message(
            protocol.Error(message=error.message, code=error.code, hint=error.hint, retry_after=retry)
        )
        if self._stream is None:
            self._end()  # the same request would fail again

    def try_push_audio(self, data: bytes) -> bool:
        """Accepts binary audio on the synchronous path. If it returns False, `handle_message` must process it."""
        stream = self._stream
        return stream is not None and not self.is_over and stream.push_audio_now(data, self._reader_id)

    async def send_message(self, message: protocol.FromServer) -> None:
        """Raises ClientTooSlow if the client does not read; its stream then fails."""
        self._last_sent = message
        try:
            await with_send_timeout(self._send(message))
        except ClientTooSlow:
            if self._stream is not None and not self._is_displaced:
                self._stream.session.stop(CLIENT_TOO_SLOW)
            raise

    async def send_events(self) -> None:
        """Sends events until the last one, or until another connection resumes the stream."""
        await self._opened.wait()
        if self._remote:
            await self._forward_events(self._remote)
        async with asyncio.TaskGroup() as tasks:
            receipts = tasks.create_task(self._acknowledge())
            await self._send_stream_events()
            receipts.cancel()

    async def _send_stream_events(self) -> None:
        while self._stream is not None and not self.is_over:
            for seq, event in await self._stream.event_log.read_after(self._sent_seq, self._reader_id):
                self._sent_seq = seq
                if rendered := self._render(seq, event):
                    await self.send_message(rendered)
                if isinstance(event, TERMINAL_EVENTS):
                    self._end()
            if self._is_displaced:
                self._end()

    async def _forward_events(self, remote: RemoteStream) -> None:
        while (message := await remote.receive_message()) is not None:
            await self.send_message(message)
        self._end()

    async def send_farewell(self) -> None:
        """Sends the last message, after reading has stopped."""
        if self._is_displaced:
            await self.send_message(
                protocol.Error(message="the stream was resumed by another connection", code="displaced")
            )

    @property
    def can_resume(self) -> bool:
        """Whether the client can resume the stream on another connection and send more audio."""
        is_here = self._stream is not None and self._config.events and not self._stream.is_closing
        return not self.is_over and (is_here or self._remote is not None)

    @property
    def has_backlog(self) -> bool:
        """Whether results are pending, so that a silent client is not idle."""
        return self._stream is not None and (self._stream.is_closing or self._stream.has_backlog)

    @property
    def receipt(self) -> protocol.FromServer:
        """Acknowledges the audio received so far."""
        return protocol.Received(received=self._stream.received_bytes) if self._stream else protocol.Pong(id=0)

    async def end_input(self) -> None:
        """The client has ended its side of the connection: same as `close` if there is a stream."""
        if self._stream is not None or self._remote is not None:
            await self.handle_message(protocol.Close())
        else:
            self._end()

    def disconnect(self) -> None:
        """The connection is closed. The stream stays resumable if the client has its token."""
        if self._stream is not None:
            self._live.detach(self._stream, self._reader_id, may_return=self._config.events)
        if self._remote:
            self._remote.close()
        self._end()

    @property
    def _is_displaced(self) -> bool:
        return self._stream is not None and self._stream.event_log.reader_id != self._reader_id

    def _end(self) -> None:
        self.is_over = True
        self._opened.set()

    async def _handle(self, message: protocol.FromClient | bytes) -> None:
        match message:
            case bytes():
                await self._push_audio(message)
            case protocol.Audio():
                await self._push_audio_message(message)
            case protocol.Hello():
                self._handle_hello(message)
            case protocol.Config():
                await self._configure(message)
            case protocol.Resume():
                await self._resume(message)
            case protocol.Finalize(id=number):
                await (await self._open()).finalize(number, self._reader_id)
            case protocol.Close():
                await self._close()
            case protocol.Cancel():
                self._cancel()
            case protocol.Ping(id=number):
                await self.send_message(protocol.Pong(id=number))

    def _handle_hello(self, hello: protocol.Hello) -> None:
        if self._stream is not None:
            raise BadOption("hello was sent after the stream was opened", "send it first")
        if hello.key is not None:
            self.identify(hello.key)
        self._hello = structs.replace(hello, key=None)

    async def _configure(self, config: protocol.Config) -> None:
        if self._stream is None:
            self._config = config
            await self._open()
            return
        changed = structs.replace(config, endpointing=None)
        if changed not in (protocol.Config(), structs.replace(self._config, endpointing=None)):
            raise BadOption("only endpointing may change after the stream was opened", "open a new stream")
        await self._stream.configure(_endpointing(config.endpointing))

    async def _open(self) -> LiveStream:
        if self._stream is None:
            caller = self._caller or self._access.identify(None)
            config, hello = self._config, self._hello
            audio = AudioFormat(
                parse_encoding(config.encoding or hello.encoding),
                config.sample_rate or hello.sample_rate,
                config.channels or hello.channels,
            )
            self._stream = await self._live.open_stream(_stream_request(config), audio, caller)
            self._results = ResultRenderer(self._stream_id(self._stream))
            self._stream.protocol_state = (self._config, self._results)
            await self._attach()
        return self._stream

    def _stream_id(self, stream: LiveStream) -> int | str:
        """The id that the client chose; else, for clients without events, the id in the greeting."""
        if self._hello.stream_id is not None:
            return self._hello.stream_id
        return self._greeting_id if self._greeting_id is not None and not self._config.events else stream.id

    async def _resume(self, resume: protocol.Resume) -> None:
        if self._stream is None and (path := self._live.identity.remote_socket(resume.token)):
            self._remote = await RemoteStream.connect(path)
        if self._remote:
            await self._remote.send_message(resume)
            self._opened.set()
            return
        seq, stream = resume.seq, self._live.find_stream(resume.token)
        if self._stream is not None or stream is None or not stream.event_log.can_replay_after(seq):
            raise BadOption(f"no stream can be resumed after event {seq}", "open a new stream")
        self._stream, self._sent_seq = stream, seq
        self._config, self._results = stream.protocol_state
        await self._attach()
        if stream.event_log.has_ended and seq == stream.event_log.last_number:
            self._end()  # all events were already read

    async def _attach(self) -> None:
        assert self._stream is not None
        self._reader_id = self._live.attach(self._stream)
        if self._config.events:
            options = self._stream.options
            await self.send_message(
                protocol.Ready(
                    stream_id=self._results.stream_id,
                    token=self._stream.token,
                    resume_seconds=self._live.resume_seconds,
                    model=options.model.name,
                    latency_ms=options.latency_ms,
                    received=self._stream.received_bytes,
                )
            )
        self._opened.set()

    async def _push_audio(self, data: bytes) -> None:
        await (await self._open()).push_audio(data, self._reader_id)

    async def _acknowledge(self) -> None:
        """Acknowledges received audio at intervals: the client buffers it until then."""
        acknowledged = 0
        while self._stream is not None and self._config.events:
            await asyncio.sleep(RECEIPT_INTERVAL)
            if self._stream.received_bytes > acknowledged and not self.is_over:
                acknowledged = self._stream.received_bytes
                await self.send_message(protocol.Received(received=acknowledged))

    async def _push_audio_message(self, audio: protocol.Audio) -> None:
        if self._stream is None:
            encoding = "f32" if audio.samples is not None else audio.encoding
            if encoding is not None:
                self._config = structs.replace(self._config, encoding=encoding)
        stream = await self._open()
        if audio.encoding is not None and parse_encoding(audio.encoding) != stream.audio.encoding:
            message = f"audio has encoding {audio.encoding}, but the stream has {stream.audio.encoding}"
            raise BadOption(message, "use one encoding for the stream")
        data = audio.data
        if audio.samples is not None:
            if stream.audio.encoding != "f32":
                raise BadOption("audio has `samples`, but the stream began with bytes", "use one form for the stream")
            with np.errstate(over="ignore"):  # values beyond float32 become infinite and are rejected later
                data += np.asarray(audio.samples, "<f4").tobytes()
        if data:
            await self._push_audio(data)
        if audio.final:
            await self._close()

    def _cancel(self) -> None:
        if self._stream:
            self._stream.cancel()
        else:
            self._end()

    async def _close(self) -> None:
        await (await self._open()).close(self._reader_id)

    def _render(self, seq: int, event: Event) -> protocol.FromServer | None:
        assert self._stream is not None
        if self._config.events:
            return render_event(seq, event, self._config, self._stream.problems)
        return self._results.render(event)


def _stream_request(config: protocol.Config) -> StreamRequest:
    finals = config.finals
    return StreamRequest(
        model=config.model,
        latency_ms=config.latency_ms,
        language=config.language,
        endpointing=_endpointing(config.endpointing),
        final_model=finals.model if finals else None,
        final_budget_seconds=finals.budget_ms / 1000 if finals else 1.0,
    )


def _endpointing(requested: protocol.Endpointing | None) -> Endpointing:
    """Missing values keep the server's defaults."""
    return Endpointing() if requested is None else replace(Endpointing(), **structs.asdict(requested))
