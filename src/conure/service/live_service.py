"""All live sessions of a server: who may open one, who may come back to one, and how they end when the server does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from conure import metrics
from conure.audio.formats import AudioFormat
from conure.audio.spool import SpoolSpace
from conure.engine.client import EngineClient
from conure.engine.plan import ModelInfo
from conure.errors import BadOption, Busy
from conure.event_loop import held_up
from conure.service.access import ANYONE, Caller
from conure.service.events import Failed
from conure.service.languages import check_language, prompt_slot
from conure.service.live_stream import LiveStream
from conure.service.model_directory import ModelDirectory
from conure.service.process_identity import ALONE, ProcessIdentity
from conure.service.second_pass import SecondPassOptions
from conure.service.session_options import LAG_EVERY, SessionOptions
from conure.service.tokenizer_cache import TokenizerCache
from conure.vad.endpointing import Endpointing

__all__ = ["LiveService", "LiveStream", "StreamRequest"]

DEFAULT_LATENCY = 160
RESUME_SECONDS = 30.0
RETRY_AFTER = 5.0
MOST_BACKLOG = 2**32
MOST_BUDGET = 60.0
"""Seconds that a final may wait for a second pass."""
MOST_LEFT = 1000
"""Streams that have ended and are kept for clients that may not have read all of it."""
LOOK = 0.05
LAST_WORDS = 1.0
"""Seconds for clients to hear that the server stops."""


@dataclass(frozen=True)
class StreamRequest:
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


class LiveService:
    def __init__(
        self,
        handle: EngineClient,
        models: ModelDirectory,
        tokenizers: TokenizerCache,
        resume_seconds: float = RESUME_SECONDS,
        place: ProcessIdentity = ALONE,
        most_backlog: int = MOST_BACKLOG,
    ) -> None:
        """`most_backlog`: bytes of audio that may wait in files because they came faster than they are heard."""
        self.handle = handle
        self.place = place
        self.space = SpoolSpace(most_backlog)
        self.models = models
        self.resume_seconds = resume_seconds
        self.draining = False
        self._streams: dict[str, LiveStream] = {}
        self.tokenizers = tokenizers
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._connections = 0
        metrics.STREAMS.set_function(lambda: len(self))
        metrics.BACKLOG_BYTES.set_function(lambda: self.space.used)

    def __len__(self) -> int:
        return sum(stream.is_open for stream in self._streams.values())

    async def open(self, wanted: StreamRequest, audio: AudioFormat, caller: Caller = ANYONE) -> LiveStream:
        """Raises UnknownModel, BadOption, UnsupportedLanguage, or Busy where there is no time for it.

        Also Unauthorized, Forbidden and TooMany, where the caller's key does not allow it, any more or now.
        """
        if self.draining or not self.handle.is_ready:
            reason = "draining" if self.draining else "engine_restarting"
            metrics.REFUSED.labels(reason).inc()
            raise Busy(f"no new streams: {reason.replace('_', ' ')}", "try again, or ask another server")
        options, visit = self.options(wanted), await caller.begin("live")
        try:
            stream = LiveStream(self.handle, options, audio, self.place, visit, self.space)
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
        self._wait_for(stream)
        left = [other for token in self._expiries if (other := self._streams[token]).ended]
        for other in left[:-MOST_LEFT]:
            self.forget(other)

    def forget(self, stream: LiveStream) -> None:
        if timer := self._expiries.pop(stream.token, None):
            timer.cancel()
        stream.cancel()
        self._streams.pop(stream.token, None)

    def _wait_for(self, stream: LiveStream) -> None:
        loop, due = asyncio.get_running_loop(), time.monotonic() + self.resume_seconds
        self._expiries[stream.token] = loop.call_later(self.resume_seconds, self._expire, stream, due)

    def _expire(self, stream: LiveStream, due: float) -> None:
        if held_up(due, time.monotonic()):  # its client may have knocked meanwhile
            self._wait_for(stream)
            return
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

    def options(self, wanted: StreamRequest) -> SessionOptions:
        """Of a stream as it would be opened. Raises UnknownModel, BadOption or UnsupportedLanguage."""
        card = self.models.live(wanted.model)
        language = check_language(card.name, wanted.language, card.languages, card.prompt_ids)
        return SessionOptions(
            model=card,
            tokenizer=self.tokenizers.of(card),
            latency_ms=_latency(card, wanted.latency_ms),
            endpointing=wanted.endpointing,
            language=language,
            prompt=prompt_slot(card.name, language, card.prompt_ids),
            finals=self._finals(wanted),
            lag_every=wanted.lag_every,
        )

    def _finals(self, wanted: StreamRequest) -> SecondPassOptions | None:
        if wanted.finals is None:
            return None
        if not 0 <= wanted.finals_budget <= MOST_BUDGET:
            raise BadOption(
                f"a budget of {wanted.finals_budget:g} s for a final", f"it must be 0 to {MOST_BUDGET:g} seconds"
            )
        card = self.models.clips(wanted.finals)
        prompt = prompt_slot(card.name, wanted.language, card.prompt_ids)
        return SecondPassOptions(card, self.tokenizers.of(card), wanted.finals_budget, prompt=prompt)


def _latency(card: ModelInfo, wanted: int | None) -> int:
    if wanted is None:
        return min(card.latencies, key=lambda latency: abs(latency - DEFAULT_LATENCY))
    if wanted not in card.latencies:
        known = ", ".join(map(str, card.latencies))
        raise BadOption(f"{card.name} has no latency of {wanted} ms", f"it has: {known}")
    return wanted
