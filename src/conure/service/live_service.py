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
from conure.service.access import ANONYMOUS, Caller
from conure.service.events import Failed
from conure.service.languages import check_language, prompt_id_for
from conure.service.live_stream import LiveStream
from conure.service.model_directory import ModelDirectory
from conure.service.process_identity import SINGLE_PROCESS, ProcessIdentity
from conure.service.second_pass import SecondPassOptions
from conure.service.session_options import LAG_INTERVAL, SessionOptions
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
    final_model: str | None = None
    """A model for a second pass."""
    final_budget_seconds: float = 1.0
    lag_interval: float = LAG_INTERVAL
    """Seconds from one word on how far the stream is to the next."""


class LiveService:
    def __init__(
        self,
        handle: EngineClient,
        models: ModelDirectory,
        tokenizers: TokenizerCache,
        resume_seconds: float = RESUME_SECONDS,
        place: ProcessIdentity = SINGLE_PROCESS,
        most_backlog: int = MOST_BACKLOG,
    ) -> None:
        """`most_backlog`: bytes of audio that may wait in files because they came faster than they are heard."""
        self.engine = handle
        self.identity = place
        self.spool_space = SpoolSpace(most_backlog)
        self.models = models
        self.resume_seconds = resume_seconds
        self.is_draining = False
        self._streams: dict[str, LiveStream] = {}
        self.tokenizers = tokenizers
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._connections = 0
        metrics.STREAMS.set_function(lambda: len(self))
        metrics.BACKLOG_BYTES.set_function(lambda: self.spool_space.used_bytes)

    def __len__(self) -> int:
        return sum(stream.is_open for stream in self._streams.values())

    async def open_stream(self, wanted: StreamRequest, audio: AudioFormat, caller: Caller = ANONYMOUS) -> LiveStream:
        """Raises UnknownModel, BadOption, UnsupportedLanguage, or Busy where there is no time for it.

        Also Unauthorized, Forbidden and TooMany, where the caller's key does not allow it, any more or now.
        """
        if self.is_draining or not self.engine.is_ready:
            reason = "draining" if self.is_draining else "engine_restarting"
            metrics.REFUSED.labels(reason).inc()
            raise Busy(f"no new streams: {reason.replace('_', ' ')}", "try again, or ask another server")
        options, visit = self.resolve_options(wanted), await caller.begin_usage("live")
        try:
            stream = LiveStream(self.engine, options, audio, self.identity, visit, self.spool_space)
        except BaseException:
            visit.close()
            raise
        self._streams[stream.token] = stream
        try:
            refused = await asyncio.shield(stream.session.admission)
        except asyncio.CancelledError:
            self.discard(stream)
            raise
        if isinstance(refused, Failed):
            self.discard(stream)
            metrics.REFUSED.labels(refused.code).inc()
            raise Busy(refused.message, refused.hint, refused.retry_after or RETRY_AFTER)
        for_whom = f" for {caller.name}" if caller.name else ""
        stream.log_info("opened%s: %s at %d ms", for_whom, stream.options.model.name, stream.options.latency_ms)
        return stream

    def attach(self, stream: LiveStream) -> int:
        """Number of the connection that it belongs to from now on; the one before it finds no more events."""
        self._connections += 1
        stream.event_log.assign_reader(self._connections)
        if timer := self._expiries.pop(stream.token, None):
            timer.cancel()
            stream.log_info("its client is back")
        return self._connections

    def find_stream(self, token: str) -> LiveStream | None:
        return self._streams.get(token)

    def detach(self, stream: LiveStream, connection: int, may_return: bool) -> None:
        """Its client is gone. One that may come back is waited for; audio that was received goes on to be heard.

        Also where all has been sent: what was lost on the way is known to the client alone.
        """
        if stream.event_log.reader_id != connection:
            return
        stream.event_log.assign_reader(0)
        if not may_return or (not stream.event_log.last_number and not stream.received_bytes):
            self.discard(stream)
            return
        if not stream.has_ended:
            stream.log_info("its connection is gone; it may come back for %g s", self.resume_seconds)
        self._wait_for(stream)
        left = [other for token in self._expiries if (other := self._streams[token]).has_ended]
        for other in left[:-MOST_LEFT]:
            self.discard(other)

    def discard(self, stream: LiveStream) -> None:
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
        if not stream.has_ended:
            stream.log_info("its client did not come back")
        self.discard(stream)

    async def drain(self, seconds: float) -> None:
        """No new streams; returns when those that are open have ended, or after so many seconds."""
        self.is_draining = True
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

    def resolve_options(self, wanted: StreamRequest) -> SessionOptions:
        """Of a stream as it would be opened. Raises UnknownModel, BadOption or UnsupportedLanguage."""
        card = self.models.find_live_model(wanted.model)
        language = check_language(card.name, wanted.language, card.languages, card.prompt_ids)
        return SessionOptions(
            model=card,
            tokenizer=self.tokenizers.of(card),
            latency_ms=_latency(card, wanted.latency_ms),
            endpointing=wanted.endpointing,
            language=language,
            prompt=prompt_id_for(card.name, language, card.prompt_ids),
            second_pass=self._finals(wanted),
            lag_interval=wanted.lag_interval,
        )

    def _finals(self, wanted: StreamRequest) -> SecondPassOptions | None:
        if wanted.final_model is None:
            return None
        if not 0 <= wanted.final_budget_seconds <= MOST_BUDGET:
            raise BadOption(
                f"a budget of {wanted.final_budget_seconds:g} s for a final", f"it must be 0 to {MOST_BUDGET:g} seconds"
            )
        card = self.models.find_file_model(wanted.final_model)
        prompt = prompt_id_for(card.name, wanted.language, card.prompt_ids)
        return SecondPassOptions(card, self.tokenizers.of(card), wanted.final_budget_seconds, prompt=prompt)


def _latency(card: ModelInfo, wanted: int | None) -> int:
    if wanted is None:
        return min(card.latencies, key=lambda latency: abs(latency - DEFAULT_LATENCY))
    if wanted not in card.latencies:
        known = ", ".join(map(str, card.latencies))
        raise BadOption(f"{card.name} has no latency of {wanted} ms", f"it has: {known}")
    return wanted
