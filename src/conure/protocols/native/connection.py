"""One connection of the native protocol, whatever carries its messages.

    hello, config, audio ...  ──> a stream of the service ──> events ──> `send`

The stream is opened by the first message that needs it; it outlives the connection, unless it has ended.
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

RECEIPT_EVERY = 2.0
"""Seconds between receipts for audio: who sends all before reading has room for few messages."""
ALL_WELL = 1000


class NativeConnection:
    """`read` is called with what the client says, one message after the other; `tell` runs beside it."""

    def __init__(self, live: LiveService, access: Access, send: Send) -> None:
        self.is_over = False
        """Nothing more will be said; the connection may be closed."""
        self._live = live
        self._access = access
        self._caller: Caller | None = None
        self._send = send
        self._last: protocol.FromServer | None = None
        """What was said."""
        self._hello = protocol.Hello()
        self._greeted: int | None = None
        """The number of the stream that the client was told before it is open."""
        self._config = protocol.Config(events=False)
        self._stream: LiveStream | None = None
        self._elsewhere: RemoteStream | None = None
        """Has the stream where this process does not."""
        self._connection = 0
        self._told = 0
        """Number of the last event that was told."""
        self._opened = asyncio.Event()
        self._results = ResultRenderer(0)

    async def send_greeting(self, stream_id: int) -> None:
        """Says who is there before the client has said anything."""
        self._greeted = stream_id
        await self.send_message(protocol.Greeting(stream_id=stream_id))

    def identify(self, secret: str | None) -> None:
        """Whose streams these are. Raises Unauthorized."""
        self._caller = self._access.identify(secret)

    @property
    def is_identified(self) -> bool:
        """Who it is with: one who has a key, or a stream's token, or needs none."""
        return self._caller is not None or self._stream is not None or self._elsewhere is not None

    @property
    def close_code(self) -> int:
        """Of a WebSocket: it tells whether what was said last was a failure."""
        last = self._last
        return error_code_for(last.code).close if isinstance(last, protocol.Error | protocol.Failed) else ALL_WELL

    async def handle_message(self, message: protocol.FromClient | bytes) -> None:
        """Binary audio comes as bytes. What cannot be met is answered, and ends what it asked for only."""
        if self.is_over or self._is_displaced:
            return
        if self._elsewhere:
            await self._elsewhere.send_message(message)
            return
        try:
            await self._read(message)
        except ConureError as error:
            await self.send_error(error)

    async def send_error(self, error: ConureError) -> None:
        retry = retry_after_for(error)
        await self.send_message(
            protocol.Error(message=error.message, code=error.code, hint=error.hint, retry_after=retry)
        )
        if self._stream is None:
            self._end()  # it will not be opened by asking for the same again

    def try_push_audio(self, data: bytes) -> bool:
        """Binary audio, where nothing is to be said; False where it is to be read like the rest."""
        stream = self._stream
        return stream is not None and not self.is_over and stream.push_audio_now(data, self._connection)

    async def send_message(self, message: protocol.FromServer) -> None:
        """Raises TooSlow where the client does not read; its stream has failed then."""
        self._last = message
        try:
            await with_send_timeout(self._send(message))
        except ClientTooSlow:
            if self._stream is not None and not self._is_displaced:
                self._stream.session.stop(CLIENT_TOO_SLOW)
            raise

    async def send_events(self) -> None:
        """Sends events until the last one, or until another connection goes on with the stream."""
        await self._opened.wait()
        if self._elsewhere:
            await self._pass_on(self._elsewhere)
        async with asyncio.TaskGroup() as tasks:
            receipts = tasks.create_task(self._acknowledge())
            await self._tell_events()
            receipts.cancel()

    async def _tell_events(self) -> None:
        while self._stream is not None and not self.is_over:
            for seq, event in await self._stream.event_log.read_after(self._told, self._connection):
                self._told = seq
                if rendered := self._render(seq, event):
                    await self.send_message(rendered)
                if isinstance(event, TERMINAL_EVENTS):
                    self._end()
            if self._is_displaced:
                self._end()

    async def _pass_on(self, elsewhere: RemoteStream) -> None:
        while (message := await elsewhere.receive_message()) is not None:
            await self.send_message(message)
        self._end()

    async def send_farewell(self) -> None:
        """The last word, when nothing is read any more."""
        if self._is_displaced:
            await self.send_message(
                protocol.Error(message="the stream goes on in another connection", code="displaced")
            )

    @property
    def can_resume(self) -> bool:
        """Its client can come back to the stream by another connection, and give more audio."""
        is_here = self._stream is not None and self._config.events and not self._stream.is_closing
        return not self.is_over and (is_here or self._elsewhere is not None)

    @property
    def has_backlog(self) -> bool:
        """Something is still to be told, so its client need say nothing."""
        return self._stream is not None and (self._stream.is_closing or self._stream.has_backlog)

    @property
    def receipt(self) -> protocol.FromServer:
        """For what came so far."""
        return protocol.Received(received=self._stream.received_bytes) if self._stream else protocol.Pong(id=0)

    async def end_input(self) -> None:
        """Its client will say nothing more: as `close`, where there is a stream."""
        if self._stream is not None or self._elsewhere is not None:
            await self.handle_message(protocol.Close())
        else:
            self._end()

    def disconnect(self) -> None:
        """The connection is gone. Who never learned the stream's token cannot come back."""
        if self._stream is not None:
            self._live.detach(self._stream, self._connection, may_return=self._config.events)
        if self._elsewhere:
            self._elsewhere.close()
        self._end()

    @property
    def _is_displaced(self) -> bool:
        return self._stream is not None and self._stream.event_log.reader_id != self._connection

    def _end(self) -> None:
        self.is_over = True
        self._opened.set()

    async def _read(self, message: protocol.FromClient | bytes) -> None:
        match message:
            case bytes():
                await self._feed(message)
            case protocol.Audio():
                await self._feed_message(message)
            case protocol.Hello():
                self._greet(message)
            case protocol.Config():
                await self._configure(message)
            case protocol.Resume():
                await self._resume(message)
            case protocol.Finalize(id=number):
                await (await self._open()).finalize(number, self._connection)
            case protocol.Close():
                await self._close()
            case protocol.Cancel():
                self._cancel()
            case protocol.Ping(id=number):
                await self.send_message(protocol.Pong(id=number))

    def _greet(self, hello: protocol.Hello) -> None:
        if self._stream is not None:
            raise BadOption("hello came after the stream was opened", "say it first")
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
            raise BadOption("after the stream was opened endpointing alone may change", "open another stream")
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
            self._stream = await self._live.open_stream(_wanted(config), audio, caller)
            self._results = ResultRenderer(self._name(self._stream))
            self._stream.protocol_state = (self._config, self._results)
            await self._attach()
        return self._stream

    def _name(self, stream: LiveStream) -> int | str:
        """As the client chose it; or the number that it was greeted with, where it wants results alone."""
        if self._hello.stream_id is not None:
            return self._hello.stream_id
        return self._greeted if self._greeted is not None and not self._config.events else stream.id

    async def _resume(self, resume: protocol.Resume) -> None:
        if self._stream is None and (path := self._live.identity.remote_socket(resume.token)):
            self._elsewhere = await RemoteStream.connect(path)
        if self._elsewhere:
            await self._elsewhere.send_message(resume)
            self._opened.set()
            return
        seq, stream = resume.seq, self._live.find_stream(resume.token)
        if self._stream is not None or stream is None or not stream.event_log.can_replay_after(seq):
            raise BadOption(f"there is no stream to resume after event {seq}", "open a new one")
        self._stream, self._told = stream, seq
        self._config, self._results = stream.protocol_state
        await self._attach()
        if stream.event_log.has_ended and seq == stream.event_log.last_number:
            self._end()  # it was all read before

    async def _attach(self) -> None:
        assert self._stream is not None
        self._connection = self._live.attach(self._stream)
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

    async def _feed(self, data: bytes) -> None:
        await (await self._open()).push_audio(data, self._connection)

    async def _acknowledge(self) -> None:
        """Tells now and then what was received: a client keeps it until then."""
        acknowledged = 0
        while self._stream is not None and self._config.events:
            await asyncio.sleep(RECEIPT_EVERY)
            if self._stream.received_bytes > acknowledged and not self.is_over:
                acknowledged = self._stream.received_bytes
                await self.send_message(protocol.Received(received=acknowledged))

    async def _feed_message(self, audio: protocol.Audio) -> None:
        if self._stream is None:
            encoding = "f32" if audio.samples is not None else audio.encoding
            if encoding is not None:
                self._config = structs.replace(self._config, encoding=encoding)
        stream = await self._open()
        if audio.encoding is not None and parse_encoding(audio.encoding) != stream.audio.encoding:
            message = f"audio came as {audio.encoding}, and the stream began with {stream.audio.encoding}"
            raise BadOption(message, "one stream has one encoding")
        data = audio.data
        if audio.samples is not None:
            if stream.audio.encoding != "f32":
                raise BadOption("samples came as numbers, and the stream began with bytes", "one stream has one form")
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
                data += np.asarray(audio.samples, "<f4").tobytes()
        if data:
            await self._feed(data)
        if audio.final:
            await self._close()

    def _cancel(self) -> None:
        if self._stream:
            self._stream.cancel()
        else:
            self._end()

    async def _close(self) -> None:
        await (await self._open()).close(self._connection)

    def _render(self, seq: int, event: Event) -> protocol.FromServer | None:
        assert self._stream is not None
        if self._config.events:
            return render_event(seq, event, self._config, self._stream.problems)
        return self._results.render(event)


def _wanted(config: protocol.Config) -> StreamRequest:
    finals = config.finals
    return StreamRequest(
        model=config.model,
        latency_ms=config.latency_ms,
        language=config.language,
        endpointing=_endpointing(config.endpointing),
        final_model=finals.model if finals else None,
        final_budget_seconds=finals.budget_ms / 1000 if finals else 1.0,
    )


def _endpointing(asked: protocol.Endpointing | None) -> Endpointing:
    """What was not said stays as we have it."""
    return Endpointing() if asked is None else replace(Endpointing(), **structs.asdict(asked))
