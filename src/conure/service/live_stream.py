"""One live stream of a server: a session, what comes to it and what it tells, whoever is connected to it."""

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
"""Found once: it counts every packet."""

RATE = 16_000


class LiveStream:
    """A session, its events, and whether somebody is listening."""

    def __init__(
        self,
        handle: EngineClient,
        options: SessionOptions,
        audio: AudioFormat,
        place: ProcessIdentity,
        visit: Usage,
        space: SpoolSpace,
    ) -> None:
        secret = secrets.token_urlsafe(18)
        self.token = place.prefix_token(secret)
        self.id = place.prefix_token(secret[:8])
        self.options = options
        self.event_log = EventLog()
        self.protocol_state: Any = None
        """How its door speaks with its client; kept here for the connection that comes after a broken one."""
        self._visit = visit
        self._asked: dict[int | None, float] = {}
        self._speech: float | None = None
        self.audio = audio
        self._intake = StreamAudioDecoder(audio)
        self._inbox = RequestQueue(self, space)
        self._closing = False
        """No more audio is taken."""
        self._spoiled: ConureError | None = None
        self.session = LiveSession(handle, options, self._publish)

    @property
    def has_ended(self) -> bool:
        return self.session.has_ended

    @property
    def is_open(self) -> bool:
        """It goes on, or somebody has still to be told how it ended."""
        return not self.has_ended or self.event_log.reader_id != 0

    @property
    def received_bytes(self) -> int:
        """Bytes of audio."""
        return self._inbox.received_bytes

    @property
    def is_closing(self) -> bool:
        """No more audio is taken."""
        return self._closing or self.session.is_closing

    @property
    def has_backlog(self) -> bool:
        """Audio waits that could be heard: its client need say nothing meanwhile."""
        return not self._inbox.is_empty or self.session.has_backlog

    @property
    def problems(self) -> list[str]:
        """What of the audio could not be read."""
        return self._intake.problems

    def log_info(self, message: str, *values: object) -> None:
        """In the log, under the stream's id."""
        log.info("stream %s " + message, self.id, *values, extra={"stream": self.id})

    async def events(self, reader: int) -> AsyncIterator[Event]:
        """To the last one, or until somebody else reads them."""
        told = 0
        while self.event_log.reader_id == reader:
            for seq, event in await self.event_log.read_after(told, reader):
                told = seq
                yield event
                if isinstance(event, TERMINAL_EVENTS):
                    return

    # A connection that another one has taken the place of is not listened to: what it has not given is sent again.

    async def push_audio(self, data: bytes, reader: int) -> None:
        """Audio in the stream's format, cut anywhere. What cannot be heard yet is kept; nothing is waited for.

        What came before audio that cannot be read, or kept, is transcribed; then the stream fails.
        Raises BadOption after `close`.
        """
        if self._takes("audio", reader):
            try:
                self._inbox.put_audio(data)
            except BacklogFull as error:
                await self._overflow(error)

    def push_audio_now(self, data: bytes, reader: int) -> bool:
        """As `feed`; False, and nothing was taken, where that would refuse."""
        if self.has_ended or self._spoiled or self._closing or self.event_log.reader_id != reader:
            return False
        try:
            self._inbox.put_audio(data)
        except BacklogFull:
            return False
        return True

    async def finalize(self, marker: int, reader: int) -> None:
        """That was all for now. Raises BadOption after `close`."""
        if self._takes("finalize", reader):
            await self._inbox.put_action(partial(self._finalize, marker))

    async def configure(self, endpointing: Endpointing, lag_every: float = LAG_INTERVAL) -> None:
        """For what comes from now on."""

        async def change() -> None:
            self.session.configure(endpointing, lag_every)

        await self._inbox.put_action(change)

    async def close(self, reader: int) -> None:
        """That was all; more than once does no harm."""
        if not (self.has_ended or self._closing or self.event_log.reader_id != reader):
            self._closing = True
            await self._inbox.put_action(self._close)

    def cancel(self) -> None:
        self._inbox.close()
        self._intake.close()
        self.session.cancel()

    def _takes(self, what: str, reader: int) -> bool:
        """Where it does not, how it ended is already on its way, or what was wrong with its audio."""
        if self.has_ended or self._spoiled or self.event_log.reader_id != reader:
            return False
        if self._closing:
            raise BadOption(f"{what} came after the end of the stream", "open another stream")
        return True

    async def _overflow(self, error: BacklogFull) -> None:
        """What is kept is transcribed, what follows is not taken."""
        self._closing, self._spoiled = True, error
        self.warn_before_failing(error)
        await self._inbox.put_action(self._close)

    def warn_before_failing(self, error: BacklogFull) -> None:
        """The stream will end with it, after what came before."""
        metrics.REFUSED.labels(error.code).inc()
        self._publish(StreamWarning(error.code, f"{error.message}; the stream ends after what came before"))

    # What the inbox asks for, one after the other.

    @property
    def is_writable(self) -> bool:
        return self._intake.is_immediate and self.session.is_writable

    async def wait_until_writable(self) -> None:
        """Waits until the session has room."""
        await self.session.wait_until_writable()

    def process_now(self, data: bytes) -> None:
        try:
            samples = self._intake.decode_now(data)
        except UnsupportedAudio as error:
            self.fail_after_audio(error)
        else:
            self.session.push_audio_now(samples)
            self._count(samples)

    async def process(self, data: bytes) -> None:
        await self.session.wait_until_writable()
        try:
            samples = await self._intake.decode(data)
        except UnsupportedAudio as error:
            self.fail_after_audio(error)
        else:
            await self._push(samples)

    def fail(self, error: Exception) -> None:
        self.session.stop(Failed(EngineFailed.code, f"the audio could not be kept: {type(error).__name__}"))

    async def _finalize(self, marker: int) -> None:
        await self.session.wait_until_writable()
        await self._push(self._intake.flush())
        self._asked[marker] = time.monotonic()
        self.session.finalize(marker)

    async def _close(self) -> None:
        await self.session.wait_until_writable()
        self._asked[None] = time.monotonic()
        try:
            await self._push(await self._intake.finish())
        except UnsupportedAudio as error:
            self.fail_after_audio(error)
        self.session.close()

    async def _push(self, samples: Samples) -> None:
        await self.session.push_audio(samples)
        self._count(samples)

    def _count(self, samples: Samples) -> None:
        """Who has had all that its key allows is heard to the end of what is here, and ends then."""
        seconds = len(samples) / RATE
        AUDIO_SECONDS.inc(seconds)
        try:
            self._visit.spend(seconds)
        except TooMany as error:
            self.fail_after_audio(error)

    def fail_after_audio(self, error: UnsupportedAudio | Busy) -> None:
        """What follows cannot be had; what came before is transcribed, then the stream fails."""
        self._spoiled = self._spoiled or error
        self._inbox.close()
        self.session.close()

    def _publish(self, event: Event) -> None:
        if isinstance(event, Finished) and self._spoiled:
            retry = self._spoiled.retry_after if isinstance(self._spoiled, Busy) else None
            event = Failed(self._spoiled.code, self._spoiled.message, self._spoiled.hint, retry)
        if isinstance(event, TERMINAL_EVENTS):
            self._inbox.close()
            self._intake.close()
            self._visit.close()
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
                self._speech = now
            case Partial() | Final() if self._speech is not None:
                metrics.FIRST_PARTIAL_SECONDS.observe(now - self._speech)
                self._speech = None
            case Marker(number) if number in self._asked:
                metrics.FINAL_SECONDS.observe(now - self._asked.pop(number))
        if isinstance(event, TERMINAL_EVENTS):
            if None in self._asked:
                metrics.FINAL_SECONDS.observe(now - self._asked.pop(None))
            metrics.STREAMS_ENDED.labels(
                event.code if isinstance(event, Failed) else type(event).__name__.lower()
            ).inc()
            self.log_info("ended: %s, %.1f s of audio", event, self.session.seconds)
