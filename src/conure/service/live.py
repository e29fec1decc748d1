"""All live sessions of a server: who may open one, who may come back to one, and how they end when the server does."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from conure import metrics
from conure.audio.formats import AudioFormat
from conure.engine.handle import EngineHandle
from conure.engine.messages import Samples
from conure.engine.plan import ModelCard
from conure.errors import BadOption, Busy, ConureError, TooMany, UnsupportedAudio
from conure.service.access import ANYONE, Caller, Visit
from conure.service.event_log import EventLog
from conure.service.events import LAST, Event, Failed, Final, Finished, Lag, Marker, Partial, SpeechStarted
from conure.service.intake import Intake
from conure.service.languages import check_language, prompt_slot
from conure.service.models import Models
from conure.service.place import ALONE, Place
from conure.service.second_pass import SecondPassOptions
from conure.service.session import LAG_EVERY, LiveSession, SessionOptions
from conure.service.tokenizers import Tokenizers
from conure.vad.endpoints import Endpointing

__all__ = ["LiveService", "LiveStream", "Wanted"]

log = logging.getLogger(__name__)

AUDIO_SECONDS = metrics.AUDIO_SECONDS.labels("live")
"""Found once: it counts every packet."""

DEFAULT_LATENCY = 160
RESUME_SECONDS = 30.0
RETRY_AFTER = 5.0
MOST_BUDGET = 60.0
"""Seconds that a final may wait for a second pass."""
MOST_LEFT = 1000
"""Streams that have ended and are kept for clients that may not have read all of it."""
RATE = 16_000
LOOK = 0.05
LAST_WORDS = 1.0
"""Seconds for clients to hear that the server stops."""


@dataclass(frozen=True)
class Wanted:
    """What a client asks of a stream; None is the server's choice."""

    model: str | None = None
    latency_ms: int | None = None
    language: str | None = None
    endpointing: Endpointing = field(default_factory=Endpointing)
    finals: str | None = None
    """A model for a second pass."""
    finals_budget: float = 1.0
    lag_every: float = LAG_EVERY
    """Seconds from one word on how far the stream is to the next."""


class LiveStream:
    """A session, its events, and whether somebody is listening."""

    def __init__(
        self, handle: EngineHandle, options: SessionOptions, audio: AudioFormat, place: Place, visit: Visit
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
        self._intake = Intake(audio)
        self._order = asyncio.Lock()
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
        return self._intake.received

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
        """Audio in the stream's format, cut anywhere; waits where much of it is waiting.

        What came before audio that cannot be read is transcribed; then the stream fails.
        Raises BadOption after `close`.
        """
        async with self._order:
            await self.session.settle()
            if not self._takes("audio", reader):
                return
            try:
                samples = await self._intake.push(data)
            except UnsupportedAudio as error:
                self.spoil(error)
            else:
                await self._push(samples)

    def take(self, data: bytes, reader: int) -> bool:
        """The same at once; False, and nothing was taken, where `feed` would wait or refuse."""
        session = self.session
        if self._order.locked() or not session.has_room or self._spoiled or self.log.reader != reader:
            return False
        if not self._intake.is_immediate:
            return False
        try:
            samples = self._intake.take(data)
        except UnsupportedAudio as error:
            self.spoil(error)
        else:
            session.take(samples)
            self._count(samples)
        return True

    async def finalize(self, marker: int, reader: int) -> None:
        """That was all for now; waits where many of these are waiting. Raises BadOption after `close`."""
        async with self._order:
            await self.session.settle()
            if self._takes("finalize", reader):
                await self._push(self._intake.flush())
                self._asked[marker] = time.monotonic()
                self.session.finalize(marker)

    async def close(self, reader: int) -> None:
        """That was all; more than once does no harm."""
        async with self._order:
            await self.session.settle()
            if self.session.closing or self.ended or self.log.reader != reader:
                return
            self._asked[None] = time.monotonic()
            try:
                await self._push(await self._intake.finish())
            except UnsupportedAudio as error:
                self.spoil(error)
            self.session.close()

    def cancel(self) -> None:
        self._intake.close()
        self.session.cancel()

    def _takes(self, what: str, reader: int) -> bool:
        """Where it does not, how it ended is already on its way, or what was wrong with its audio."""
        if self.ended or self._spoiled or self.log.reader != reader:
            return False
        if self.session.closing:
            raise BadOption(f"{what} came after the end of the stream", "open another stream")
        return True

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

    def spoil(self, error: UnsupportedAudio | TooMany) -> None:
        """What follows cannot be had; what came before is transcribed, then the stream fails."""
        self._spoiled = self._spoiled or error
        self.session.close()

    def _publish(self, event: Event) -> None:
        if isinstance(event, Finished) and self._spoiled:
            retry = self._spoiled.retry_after if isinstance(self._spoiled, Busy) else None
            event = Failed(self._spoiled.code, self._spoiled.message, self._spoiled.hint, retry)
        if isinstance(event, LAST):
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


class LiveService:
    def __init__(
        self,
        handle: EngineHandle,
        models: Models,
        tokenizers: Tokenizers,
        resume_seconds: float = RESUME_SECONDS,
        place: Place = ALONE,
    ) -> None:
        self.handle = handle
        self.place = place
        self.models = models
        self.resume_seconds = resume_seconds
        self.draining = False
        self._streams: dict[str, LiveStream] = {}
        self.tokenizers = tokenizers
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._connections = 0
        metrics.STREAMS.set_function(lambda: len(self))

    def __len__(self) -> int:
        return sum(stream.is_open for stream in self._streams.values())

    async def open(self, wanted: Wanted, audio: AudioFormat, caller: Caller = ANYONE) -> LiveStream:
        """Raises UnknownModel, BadOption, UnsupportedLanguage, or Busy where there is no time for it.

        Also Unauthorized, Forbidden and TooMany, where the caller's key does not allow it, any more or now.
        """
        if self.draining or not self.handle.is_ready:
            reason = "draining" if self.draining else "engine_restarting"
            metrics.REFUSED.labels(reason).inc()
            raise Busy(f"no new streams: {reason.replace('_', ' ')}", "try again, or ask another server")
        options, visit = self.options(wanted), await caller.begin("live")
        try:
            stream = LiveStream(self.handle, options, audio, self.place, visit)
        except BaseException:
            visit.close()
            raise
        self._streams[stream.token] = stream
        try:
            refused = await asyncio.shield(stream.session.opening)
        except asyncio.CancelledError:
            self.forget(stream)
            raise
        if isinstance(refused, Failed):
            self.forget(stream)
            metrics.REFUSED.labels(refused.code).inc()
            raise Busy(refused.message, refused.hint, refused.retry_after or RETRY_AFTER)
        for_whom = f" for {caller.name}" if caller.name else ""
        stream.note("opened%s: %s at %d ms", for_whom, stream.options.model.name, stream.options.latency_ms)
        return stream

    def attach(self, stream: LiveStream) -> int:
        """Number of the connection that it belongs to from now on; the one before it finds no more events."""
        self._connections += 1
        stream.log.hand_to(self._connections)
        if timer := self._expiries.pop(stream.token, None):
            timer.cancel()
            stream.note("its client is back")
        return self._connections

    def find(self, token: str) -> LiveStream | None:
        return self._streams.get(token)

    def detach(self, stream: LiveStream, connection: int, may_return: bool) -> None:
        """Its client is gone. One that may come back is waited for; audio that was received goes on to be heard.

        Also where all has been sent: what was lost on the way is known to the client alone.
        """
        if stream.log.reader != connection:
            return
        stream.log.hand_to(0)
        if not may_return or (not stream.log.last and not stream.received):
            self.forget(stream)
            return
        if not stream.ended:
            stream.note("its connection is gone; it may come back for %g s", self.resume_seconds)
        loop = asyncio.get_running_loop()
        self._expiries[stream.token] = loop.call_later(self.resume_seconds, self._expire, stream)
        left = [other for token in self._expiries if (other := self._streams[token]).ended]
        for other in left[:-MOST_LEFT]:
            self.forget(other)

    def forget(self, stream: LiveStream) -> None:
        if timer := self._expiries.pop(stream.token, None):
            timer.cancel()
        stream.cancel()
        self._streams.pop(stream.token, None)

    def _expire(self, stream: LiveStream) -> None:
        if not stream.ended:
            stream.note("its client did not come back")
        self.forget(stream)

    async def drain(self, seconds: float) -> None:
        """No new streams; returns when those that are open have ended, or after so many seconds."""
        self.draining = True
        await self._until_none(seconds)
        for stream in self._streams.values():
            stream.session.stop(Failed("server_stopped", "the server has stopped", retry_after=5.0))
        await self._until_none(LAST_WORDS)

    def stop(self) -> None:
        """At once."""
        for stream in self._streams.values():
            stream.cancel()

    async def _until_none(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while len(self) and time.monotonic() < until:
            await asyncio.sleep(LOOK)

    def options(self, wanted: Wanted) -> SessionOptions:
        """Of a stream as it would be opened. Raises UnknownModel, BadOption or UnsupportedLanguage."""
        card = self.models.live(wanted.model)
        check_language(card.name, wanted.language, card.languages, card.prompt_ids)
        return SessionOptions(
            model=card,
            tokenizer=self.tokenizers.of(card),
            latency_ms=_latency(card, wanted.latency_ms),
            endpointing=wanted.endpointing,
            language=wanted.language,
            prompt=prompt_slot(card.name, wanted.language, card.prompt_ids),
            finals=self._finals(wanted),
            lag_every=wanted.lag_every,
        )

    def _finals(self, wanted: Wanted) -> SecondPassOptions | None:
        if wanted.finals is None:
            return None
        if not 0 <= wanted.finals_budget <= MOST_BUDGET:
            raise BadOption(
                f"a budget of {wanted.finals_budget:g} s for a final", f"it must be 0 to {MOST_BUDGET:g} seconds"
            )
        card = self.models.clips(wanted.finals)
        prompt = prompt_slot(card.name, wanted.language, card.prompt_ids)
        return SecondPassOptions(card, self.tokenizers.of(card), wanted.finals_budget, prompt=prompt)


def _latency(card: ModelCard, wanted: int | None) -> int:
    if wanted is None:
        return min(card.latencies, key=lambda latency: abs(latency - DEFAULT_LATENCY))
    if wanted not in card.latencies:
        known = ", ".join(map(str, card.latencies))
        raise BadOption(f"{card.name} has no latency of {wanted} ms", f"it has: {known}")
    return wanted
