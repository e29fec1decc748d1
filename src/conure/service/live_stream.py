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
from conure.service.access import Visit
from conure.service.event_log import EventLog
from conure.service.events import LAST, Event, Failed, Final, Finished, Lag, Marker, Partial, SpeechStarted, Warned
from conure.service.live_session import LiveSession
from conure.service.process_identity import ProcessIdentity
from conure.service.request_queue import RequestQueue
from conure.service.session_options import LAG_EVERY, SessionOptions
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
        visit: Visit,
        space: SpoolSpace,
    ) -> None:
        secret = secrets.token_urlsafe(18)
        self.token = place.sign(secret)
        self.id = place.sign(secret[:8])
        self.options = options
        self.log = EventLog()
        self.manner: Any = None
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
    def ended(self) -> bool:
        return self.session.ended

    @property
    def is_open(self) -> bool:
        """It goes on, or somebody has still to be told how it ended."""
        return not self.ended or self.log.reader != 0

    @property
    def received(self) -> int:
        """Bytes of audio."""
        return self._inbox.received

    @property
    def is_closing(self) -> bool:
        """No more audio is taken."""
        return self._closing or self.session.closing

    @property
    def is_behind(self) -> bool:
        """Audio waits that could be heard: its client need say nothing meanwhile."""
        return not self._inbox.is_empty or self.session.is_behind

    @property
    def problems(self) -> list[str]:
        """What of the audio could not be read."""
        return self._intake.problems

    def note(self, message: str, *values: object) -> None:
        """In the log, under the stream's id."""
        log.info("stream %s " + message, self.id, *values, extra={"stream": self.id})

    async def events(self, reader: int) -> AsyncIterator[Event]:
        """To the last one, or until somebody else reads them."""
        told = 0
        while self.log.reader == reader:
            for seq, event in await self.log.take(told, reader):
                told = seq
                yield event
                if isinstance(event, LAST):
                    return

    # A connection that another one has taken the place of is not listened to: what it has not given is sent again.

    async def feed(self, data: bytes, reader: int) -> None:
        """Audio in the stream's format, cut anywhere. What cannot be heard yet is kept; nothing is waited for.

        What came before audio that cannot be read, or kept, is transcribed; then the stream fails.
        Raises BadOption after `close`.
        """
        if self._takes("audio", reader):
            try:
                self._inbox.put(data)
            except BacklogFull as error:
                await self._overflow(error)

    def take(self, data: bytes, reader: int) -> bool:
        """As `feed`; False, and nothing was taken, where that would refuse."""
        if self.ended or self._spoiled or self._closing or self.log.reader != reader:
            return False
        try:
            self._inbox.put(data)
        except BacklogFull:
            return False
        return True

    async def finalize(self, marker: int, reader: int) -> None:
        """That was all for now. Raises BadOption after `close`."""
        if self._takes("finalize", reader):
            await self._inbox.then(partial(self._finalize, marker))

    async def configure(self, endpointing: Endpointing, lag_every: float = LAG_EVERY) -> None:
        """For what comes from now on."""

        async def change() -> None:
            self.session.configure(endpointing, lag_every)

        await self._inbox.then(change)

    async def close(self, reader: int) -> None:
        """That was all; more than once does no harm."""
        if not (self.ended or self._closing or self.log.reader != reader):
            self._closing = True
            await self._inbox.then(self._close)

    def cancel(self) -> None:
        self._inbox.close()
        self._intake.close()
        self.session.cancel()

    def _takes(self, what: str, reader: int) -> bool:
        """Where it does not, how it ended is already on its way, or what was wrong with its audio."""
        if self.ended or self._spoiled or self.log.reader != reader:
            return False
        if self._closing:
            raise BadOption(f"{what} came after the end of the stream", "open another stream")
        return True

    async def _overflow(self, error: BacklogFull) -> None:
        """What is kept is transcribed, what follows is not taken."""
        self._closing, self._spoiled = True, error
        self.warn_of(error)
        await self._inbox.then(self._close)

    def warn_of(self, error: BacklogFull) -> None:
        """The stream will end with it, after what came before."""
        metrics.REFUSED.labels(error.code).inc()
        self._publish(Warned(error.code, f"{error.message}; the stream ends after what came before"))

    # What the inbox asks for, one after the other.

    @property
    def has_room(self) -> bool:
        return self._intake.is_immediate and self.session.has_room

    async def settle(self) -> None:
        """Waits until the session has room."""
        await self.session.settle()

    def hear_now(self, data: bytes) -> None:
        try:
            samples = self._intake.take(data)
        except UnsupportedAudio as error:
            self.spoil(error)
        else:
            self.session.take(samples)
            self._count(samples)

    async def hear(self, data: bytes) -> None:
        await self.session.settle()
        try:
            samples = await self._intake.push(data)
        except UnsupportedAudio as error:
            self.spoil(error)
        else:
            await self._push(samples)

    def fail(self, error: Exception) -> None:
        self.session.stop(Failed(EngineFailed.code, f"the audio could not be kept: {type(error).__name__}"))

    async def _finalize(self, marker: int) -> None:
        await self.session.settle()
        await self._push(self._intake.flush())
        self._asked[marker] = time.monotonic()
        self.session.finalize(marker)

    async def _close(self) -> None:
        await self.session.settle()
        self._asked[None] = time.monotonic()
        try:
            await self._push(await self._intake.finish())
        except UnsupportedAudio as error:
            self.spoil(error)
        self.session.close()

    async def _push(self, samples: Samples) -> None:
        await self.session.push(samples)
        self._count(samples)

    def _count(self, samples: Samples) -> None:
        """Who has had all that its key allows is heard to the end of what is here, and ends then."""
        seconds = len(samples) / RATE
        AUDIO_SECONDS.inc(seconds)
        try:
            self._visit.spend(seconds)
        except TooMany as error:
            self.spoil(error)

    def spoil(self, error: UnsupportedAudio | Busy) -> None:
        """What follows cannot be had; what came before is transcribed, then the stream fails."""
        self._spoiled = self._spoiled or error
        self._inbox.close()
        self.session.close()

    def _publish(self, event: Event) -> None:
        if isinstance(event, Finished) and self._spoiled:
            retry = self._spoiled.retry_after if isinstance(self._spoiled, Busy) else None
            event = Failed(self._spoiled.code, self._spoiled.message, self._spoiled.hint, retry)
        if isinstance(event, LAST):
            self._inbox.close()
            self._intake.close()
            self._visit.close()
        self._measure(event)
        if self.log.is_full and not isinstance(event, LAST):
            message = f"{self.log.waiting} events wait to be read"
            self.session.stop(Failed("client_too_slow", message, "read events as they come"))
            return
        self.log.add(event)

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
        if isinstance(event, LAST):
            if None in self._asked:
                metrics.FINAL_SECONDS.observe(now - self._asked.pop(None))
            metrics.STREAMS_ENDED.labels(
                event.code if isinstance(event, Failed) else type(event).__name__.lower()
            ).inc()
            self.note("ended: %s, %.1f s of audio", event, self.session.seconds)
