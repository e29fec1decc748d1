"""All live streams of a process: opens them, reattaches clients to them, and drains them when the server stops."""

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
from conure.event_loop import suspended_seconds
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
MAX_BACKLOG_BYTES = 2**32
MAX_FINAL_BUDGET = 60.0
"""Seconds that a final may wait for its second pass."""
MAX_ENDED_STREAMS = 1000
"""Ended streams that are kept for clients that may not have received all events."""
POLL_SECONDS = 0.05
CLOSING_SECONDS = 1.0
"""Time to notify clients that the server stops."""


@dataclass(frozen=True)
class StreamRequest:
    """A client's request for a stream; None is the server's default."""

    model: str | None = None
    latency_ms: int | None = None
    language: str | None = None
    endpointing: Endpointing = field(default_factory=Endpointing)
    final_model: str | None = None
    """Model of a second pass for finals."""
    final_budget_seconds: float = 1.0
    lag_interval: float = LAG_INTERVAL
    """Seconds between two lag events."""


class LiveService:
    def __init__(
        self,
        engine: EngineClient,
        models: ModelDirectory,
        tokenizers: TokenizerCache,
        resume_seconds: float = RESUME_SECONDS,
        identity: ProcessIdentity = SINGLE_PROCESS,
        max_backlog: int = MAX_BACKLOG_BYTES,
    ) -> None:
        """`max_backlog`: bytes of audio that may wait in temporary files."""
        self.engine = engine
        self.identity = identity
        self.spool_space = SpoolSpace(max_backlog)
        self.models = models
        self.resume_seconds = resume_seconds
        self.is_draining = False
        self._streams: dict[str, LiveStream] = {}
        """By resume token."""
        self.tokenizers = tokenizers
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        """Timers of streams without a connection."""
        self._connections = 0
        metrics.STREAMS.set_function(lambda: len(self))
        metrics.BACKLOG_BYTES.set_function(lambda: self.spool_space.used_bytes)

    def __len__(self) -> int:
        """Open streams."""
        return sum(stream.is_open for stream in self._streams.values())

    async def open_stream(self, request: StreamRequest, audio: AudioFormat, caller: Caller = ANONYMOUS) -> LiveStream:
        """Raises UnknownModel, BadOption, UnsupportedLanguage, or Busy if the engine has no capacity for it.

        Also Unauthorized, Forbidden and TooMany, if the caller's key does not permit it.
        """
        if self.is_draining or not self.engine.is_ready:
            reason = "draining" if self.is_draining else "engine_restarting"
            metrics.REFUSED.labels(reason).inc()
            raise Busy(f"no new streams: {reason.replace('_', ' ')}", "retry later or use another server")
        options, usage = self.resolve_options(request), await caller.begin_usage("live")
        try:
            stream = LiveStream(self.engine, options, audio, self.identity, usage, self.spool_space)
        except BaseException:
            usage.close()
            raise
        self._streams[stream.token] = stream
        try:
            refusal = await asyncio.shield(stream.session.admission)
        except asyncio.CancelledError:
            self.discard(stream)
            raise
        if isinstance(refusal, Failed):
            self.discard(stream)
            metrics.REFUSED.labels(refusal.code).inc()
            raise Busy(refusal.message, refusal.hint, refusal.retry_after or RETRY_AFTER)
        for_caller = f" for {caller.name}" if caller.name else ""
        stream.log_info("opened%s: %s at %d ms", for_caller, stream.options.model.name, stream.options.latency_ms)
        return stream

    def attach(self, stream: LiveStream) -> int:
        """Makes a new connection the stream's reader, and returns its number. The previous one gets no more events."""
        self._connections += 1
        stream.event_log.assign_reader(self._connections)
        if timer := self._expiries.pop(stream.token, None):
            timer.cancel()
            stream.log_info("its client is back")
        return self._connections

    def find_stream(self, token: str) -> LiveStream | None:
        return self._streams.get(token)

    def detach(self, stream: LiveStream, connection: int, may_return: bool) -> None:
        """The connection is lost. If the client may resume, the stream is kept and received audio is processed.

        Ended streams are kept, too: only the client knows which of the sent events it has received.
        """
        if stream.event_log.reader_id != connection:
            return
        stream.event_log.assign_reader(0)
        if not may_return or (not stream.event_log.last_number and not stream.received_bytes):
            self.discard(stream)
            return
        if not stream.has_ended:
            stream.log_info("its connection is gone; it may come back for %g s", self.resume_seconds)
        self._start_expiry(stream)
        ended = [other for token in self._expiries if (other := self._streams[token]).has_ended]
        for other in ended[:-MAX_ENDED_STREAMS]:
            self.discard(other)

    def discard(self, stream: LiveStream) -> None:
        if timer := self._expiries.pop(stream.token, None):
            timer.cancel()
        stream.cancel()
        self._streams.pop(stream.token, None)

    def _start_expiry(self, stream: LiveStream) -> None:
        loop, due = asyncio.get_running_loop(), time.monotonic() + self.resume_seconds
        self._expiries[stream.token] = loop.call_later(self.resume_seconds, self._expire, stream, due)

    def _expire(self, stream: LiveStream, due: float) -> None:
        if suspended_seconds(
            due, time.monotonic()
        ):  # the client may have tried to resume while this process was suspended
            self._start_expiry(stream)
            return
        if not stream.has_ended:
            stream.log_info("its client did not come back")
        self.discard(stream)

    async def drain(self, seconds: float) -> None:
        """Accepts no new streams; returns when the open ones have ended, or after so many seconds."""
        self.is_draining = True
        await self._wait_until_empty(seconds)
        for stream in self._streams.values():
            stream.session.stop(Failed("server_stopped", "the server has stopped", retry_after=5.0))
        await self._wait_until_empty(CLOSING_SECONDS)

    def stop(self) -> None:
        """Cancels all streams at once."""
        for stream in self._streams.values():
            stream.cancel()

    async def _wait_until_empty(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while len(self) and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)

    def resolve_options(self, request: StreamRequest) -> SessionOptions:
        """Options of a stream for that request. Raises UnknownModel, BadOption or UnsupportedLanguage."""
        model = self.models.find_live_model(request.model)
        language = check_language(model.name, request.language, model.languages, model.prompt_ids)
        return SessionOptions(
            model=model,
            tokenizer=self.tokenizers.of(model),
            latency_ms=_latency(model, request.latency_ms),
            endpointing=request.endpointing,
            language=language,
            prompt=prompt_id_for(model.name, language, model.prompt_ids),
            second_pass=self._second_pass(request),
            lag_interval=request.lag_interval,
        )

    def _second_pass(self, request: StreamRequest) -> SecondPassOptions | None:
        if request.final_model is None:
            return None
        budget = request.final_budget_seconds
        if not 0 <= budget <= MAX_FINAL_BUDGET:
            raise BadOption(f"a budget of {budget:g} s for a final", f"it must be 0 to {MAX_FINAL_BUDGET:g} seconds")
        model = self.models.find_file_model(request.final_model)
        prompt = prompt_id_for(model.name, request.language, model.prompt_ids)
        return SecondPassOptions(model, self.tokenizers.of(model), budget, prompt=prompt)


def _latency(model: ModelInfo, requested: int | None) -> int:
    if requested is None:
        return min(model.latencies, key=lambda latency: abs(latency - DEFAULT_LATENCY))
    if requested not in model.latencies:
        known = ", ".join(map(str, model.latencies))
        raise BadOption(f"{model.name} has no latency of {requested} ms", f"it has: {known}")
    return requested
