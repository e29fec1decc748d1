"""One live stream of a server: its session, its input queue and its event log. Survives the loss of a connection."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from conure import metrics
from conure.audio.formats import AudioFormat
from conure.audio.spool import SpoolSpace
from conure.constants import SAMPLE_RATE
from conure.engine.client import EngineClient
from conure.engine.messages import Samples
from conure.errors import BacklogFull, BadOption, Busy, ConureError, EngineFailed, TooMany, UnsupportedAudio
from conure.service.access import Usage
from conure.service.event_log import EventLog
from conure.service.events import (
    TERMINAL_EVENTS,
    Event,
    Failed,
    Final,
    Finished,
    Lag,
    Marker,
    Partial,
    SpeechStarted,
    StreamWarning,
)
from conure.service.live_session import LiveSession
from conure.service.process_identity import ProcessIdentity
from conure.service.request_queue import RequestQueue
from conure.service.session_options import LAG_INTERVAL, SessionOptions
from conure.service.stream_decoder import StreamAudioDecoder
from conure.vad.endpointing import Endpointing

__all__ = ["LiveStream"]

log = logging.getLogger(__name__)

AUDIO_SECONDS = metrics.AUDIO_SECONDS.labels("live")
"""Looked up once: it is incremented for every packet."""


class LiveStream:
    """Passes audio from connections to the session, and its events to the connection that reads them.

    `reader` is the number of a connection. If another connection has replaced it, its calls do nothing: its client
    sends again what was not acknowledged.
    """

    def __init__(
        self,
        engine: EngineClient,
        options: SessionOptions,
        audio: AudioFormat,
        identity: ProcessIdentity,
        usage: Usage,
        space: SpoolSpace,
    ) -> None:
        secret = secrets.token_urlsafe(18)
        self.token = identity.prefix_token(secret)
        self.id = identity.prefix_token(secret[:8])
        self.options = options
        self.event_log = EventLog()
        self.protocol_state: Any = None
        """State of the protocol, kept for the connection that resumes the stream."""
        self._usage = usage
        self._finalized_at: dict[int | None, float] = {}
        """Times of requests for a final, by marker; None for a close."""
        self._speech_started_at: float | None = None
        self.audio = audio
        self._decoder = StreamAudioDecoder(audio)
        self._queue = RequestQueue(self, space)
        self._is_closed = False
        self._error: ConureError | None = None
        """The stream fails with it after the audio before it is transcribed."""
        self.session = LiveSession(engine, options, self._publish)

    @property
    def has_ended(self) -> bool:
        return self.session.has_ended

    @property
    def is_open(self) -> bool:
        """The session goes on, or a connection has not received its last event yet."""
        return not self.has_ended or self.event_log.reader_id != 0

    @property
    def received_bytes(self) -> int:
        """Audio received."""
        return self._queue.received_bytes

    @property
    def is_closing(self) -> bool:
        """No more audio is accepted."""
        return self._is_closed or self.session.is_closing

    @property
    def has_backlog(self) -> bool:
        """Audio or requests wait to be processed, so the client may be silent without being idle."""
        return not self._queue.is_empty or self.session.has_backlog

    @property
    def problems(self) -> list[str]:
        """Parts of the audio that could not be read."""
        return self._decoder.problems

    def log_info(self, message: str, *values: object) -> None:
        """Logs with the stream's id."""
        log.info("stream %s " + message, self.id, *values, extra={"stream": self.id})

    async def events(self, reader: int) -> AsyncIterator[Event]:
        """All events up to the last one; ends early if another connection takes over."""
        last = 0
        while self.event_log.reader_id == reader:
            for number, event in await self.event_log.read_after(last, reader):
                last = number
                yield event
                if isinstance(event, TERMINAL_EVENTS):
                    return

    async def push_audio(self, data: bytes, reader: int) -> None:
        """Audio in the stream's format, split anywhere. It is queued if it cannot be processed yet; never blocks.

        If audio cannot be decoded or queued, the audio before it is transcribed; then the stream fails.
        Raises BadOption after `close`.
        """
        if self._accepts("audio", reader):
            try:
                self._queue.put_audio(data)
            except BacklogFull as error:
                await self._overflow(error)

    def push_audio_now(self, data: bytes, reader: int) -> bool:
        """As `push_audio`, synchronously. False if that would fail; then nothing was accepted."""
        if self.has_ended or self._error or self._is_closed or self.event_log.reader_id != reader:
            return False
        try:
            self._queue.put_audio(data)
        except BacklogFull:
            return False
        return True

    async def finalize(self, marker: int, reader: int) -> None:
        """Requests a final of the audio so far. Raises BadOption after `close`."""
        if self._accepts("finalize", reader):
            await self._queue.put_action(partial(self._finalize, marker))

    async def configure(self, endpointing: Endpointing, lag_interval: float = LAG_INTERVAL) -> None:
        """Applies to the audio that follows."""

        async def change() -> None:
            self.session.configure(endpointing, lag_interval)

        await self._queue.put_action(change)

    async def close(self, reader: int) -> None:
        """Ends the audio; idempotent."""
        if not (self.has_ended or self._is_closed or self.event_log.reader_id != reader):
            self._is_closed = True
            await self._queue.put_action(self._close)

    def cancel(self) -> None:
        self._queue.close()
        self._decoder.close()
        self.session.cancel()

    def _accepts(self, request: str, reader: int) -> bool:
        """False if the stream has ended or fails: the error is in its events."""
        if self.has_ended or self._error or self.event_log.reader_id != reader:
            return False
        if self._is_closed:
            raise BadOption(f"{request} came after the end of the stream", "open another stream")
        return True

    async def _overflow(self, error: BacklogFull) -> None:
        """Queued audio is transcribed; no more is accepted."""
        self._is_closed, self._error = True, error
        self.warn_before_failing(error)
        await self._queue.put_action(self._close)

    def warn_before_failing(self, error: BacklogFull) -> None:
        """Sends a warning: the stream will fail with the error after the audio before it."""
        metrics.REFUSED.labels(error.code).inc()
        self._publish(StreamWarning(error.code, f"{error.message}; the stream ends after what came before"))

    # The consumer of the queue: one call at a time.

    @property
    def is_writable(self) -> bool:
        return self._decoder.is_immediate and self.session.is_writable

    async def wait_until_writable(self) -> None:
        await self.session.wait_until_writable()

    def process_now(self, data: bytes) -> None:
        try:
            samples = self._decoder.decode_now(data)
        except UnsupportedAudio as error:
            self.fail_after_audio(error)
        else:
            self.session.push_audio_now(samples)
            self._count(samples)

    async def process(self, data: bytes) -> None:
        await self.session.wait_until_writable()
        try:
            samples = await self._decoder.decode(data)
        except UnsupportedAudio as error:
            self.fail_after_audio(error)
        else:
            await self._push(samples)

    def fail(self, error: Exception) -> None:
        self.session.stop(Failed(EngineFailed.code, f"the audio could not be kept: {type(error).__name__}"))

    async def _finalize(self, marker: int) -> None:
        await self.session.wait_until_writable()
        await self._push(self._decoder.flush())
        self._finalized_at[marker] = time.monotonic()
        self.session.finalize(marker)

    async def _close(self) -> None:
        await self.session.wait_until_writable()
        self._finalized_at[None] = time.monotonic()
        try:
            await self._push(await self._decoder.finish())
        except UnsupportedAudio as error:
            self.fail_after_audio(error)
        self.session.close()

    async def _push(self, samples: Samples) -> None:
        await self.session.push_audio(samples)
        self._count(samples)

    def _count(self, samples: Samples) -> None:
        """If the key's limit is used up, audio received so far is transcribed; then the stream fails."""
        seconds = len(samples) / SAMPLE_RATE
        AUDIO_SECONDS.inc(seconds)
        try:
            self._usage.spend(seconds)
        except TooMany as error:
            self.fail_after_audio(error)

    def fail_after_audio(self, error: UnsupportedAudio | Busy) -> None:
        """Drops what is queued; audio that the session has is transcribed, then the stream fails."""
        self._error = self._error or error
        self._queue.close()
        self.session.close()

    def _publish(self, event: Event) -> None:
        if isinstance(event, Finished) and self._error:
            retry_after = self._error.retry_after if isinstance(self._error, Busy) else None
            event = Failed(self._error.code, self._error.message, self._error.hint, retry_after)
        if isinstance(event, TERMINAL_EVENTS):
            self._queue.close()
            self._decoder.close()
            self._usage.close()
        self._measure(event)
        if self.event_log.is_full and not isinstance(event, TERMINAL_EVENTS):
            message = f"{self.event_log.unread_count} events wait to be read"
            self.session.stop(Failed("client_too_slow", message, "read events as they come"))
            return
        self.event_log.add(event)

    def _measure(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case Lag(seconds):
                metrics.LAG_SECONDS.observe(seconds)
            case SpeechStarted():
                self._speech_started_at = now
            case Partial() | Final() if self._speech_started_at is not None:
                metrics.FIRST_PARTIAL_SECONDS.observe(now - self._speech_started_at)
                self._speech_started_at = None
            case Marker(number) if number in self._finalized_at:
                metrics.FINAL_SECONDS.observe(now - self._finalized_at.pop(number))
        if isinstance(event, TERMINAL_EVENTS):
            if None in self._finalized_at:
                metrics.FINAL_SECONDS.observe(now - self._finalized_at.pop(None))
            metrics.STREAMS_ENDED.labels(
                event.code if isinstance(event, Failed) else type(event).__name__.lower()
            ).inc()
            self.log_info("ended: %s, %.1f s of audio", event, self.session.seconds)
