"""A live session: samples in, events out; survives restarts of the engine.

The session keeps the audio that has no final yet. After a restart of the engine it is sent again, from before the
current utterance on, and that utterance is decoded again: the client sees only a pause.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from conure.audio.realtime_clock import RealtimeClock
from conure.audio.sample_buffer import SampleBuffer
from conure.constants import SAMPLE_RATE
from conure.engine import messages
from conure.engine.client import EngineClient
from conure.engine.messages import Samples, StreamOptions
from conure.errors import ConureError
from conure.service.answered_finalizes import AnsweredFinalizes
from conure.service.events import (
    TERMINAL_EVENTS,
    Cancelled,
    Event,
    Failed,
    Finished,
    Lag,
    Marker,
    SpeechStarted,
    StreamWarning,
    UtteranceEnded,
)
from conure.service.second_pass import SecondPass
from conure.service.session_options import LAG_INTERVAL, SessionOptions
from conure.service.utterance import Utterance, make_final
from conure.text.words import words_from_tokens
from conure.types import Token
from conure.vad.endpointing import Endpointing

__all__ = ["LiveSession"]

MARGIN = 1.0
"""Seconds of audio before an utterance that are kept with it: the start of speech is detected late."""
MAX_KEPT = 120.0
"""Seconds of an utterance that can be replayed."""
MAX_IN_FLIGHT = 20.0
"""Seconds of audio that the engine may have unprocessed; beyond that, `is_writable` is False."""
BACKLOG_SECONDS = 2.0
"""Unprocessed audio that is more than the look-ahead of any model."""
MAX_PENDING_FINALIZES = 64
"""Unanswered requests for a final."""
MAX_SECOND_PASS = 60.0
"""Seconds of the longest utterance that gets a second pass."""
BLOCK = 5 * SAMPLE_RATE
"""Samples that are sent to the engine at once."""
LAG_AUDIO = 5.0
"""Seconds of audio after which a lag event is sent before its interval is over."""
LAG_WARNING = 2.0
LAG_LIMIT = 15.0
"""Seconds of lag that cause a warning, and that end the stream."""
RETRY_AFTER = 5.0


class LiveSession:
    """Belongs to one event loop, on which `publish` is called with each event, in order; it must not block."""

    def __init__(self, engine: EngineClient, options: SessionOptions, publish: Callable[[Event], None]) -> None:
        self.options = options
        self.processed_until = 0.0
        """Audio before this is decoded to final tokens."""
        self._analyzed_until = 0.0
        """Audio before this is analyzed by the engine: later than `processed_until` while a model that decodes whole
        utterances waits for the end of one."""
        self.lag = 0.0
        self.has_ended = False
        self._engine = engine
        self._publish = publish
        self._audio = SampleBuffer()
        self._engine_start = 0
        """The session's sample at which the engine's stream began."""
        self._pending: deque[tuple[int, int | None]] = deque()
        """(position, marker) of unanswered finalizes; marker None for a close."""
        self._clock = RealtimeClock()
        self._ordered_events: deque[Event | SecondPass] = deque()
        """Events that wait for a second pass, or behind one."""
        self._utterance: Utterance | None = None
        self._utterance_count = 0
        self._is_replayed = False
        """The current utterance began before the engine was restarted."""
        self._answered = AnsweredFinalizes()
        self._final_until = self._replay_final_until = self._replay_sent_until = 0.0
        """End of the last word in a final; the same at the restart of the engine; and the end of the audio in partials
        then."""
        self._lag_sent_at = self._lag_sent_until = self._lag_warned_at = 0.0
        self._changed = asyncio.Event()
        self.admission: asyncio.Future[Event | None] = asyncio.get_running_loop().create_future()
        """None when the engine has admitted the stream; else the event that ended it."""
        self._number = engine.register(self)
        self._open()

    @property
    def seconds(self) -> float:
        """Audio received."""
        return self._audio.end / SAMPLE_RATE

    @property
    def is_closing(self) -> bool:
        return bool(self._pending) and self._pending[-1][1] is None

    async def push_audio(self, samples: Samples) -> None:
        """Mono, 16 kHz. Waits until it is writable; audio after the end is dropped."""
        for begin in range(0, len(samples), BLOCK):
            await self.wait_until_writable()
            if self.has_ended or self.is_closing:
                return
            self._send(samples[begin : begin + BLOCK])

    @property
    def is_writable(self) -> bool:
        """Whether `push_audio_now` may be called: the session goes on, and the engine has little unprocessed audio."""
        pending = self._pending
        if self.has_ended or (pending and (len(pending) >= MAX_PENDING_FINALIZES or self.is_closing)):
            return False
        return self._audio.end <= (self._analyzed_until + MAX_IN_FLIGHT) * SAMPLE_RATE

    @property
    def has_backlog(self) -> bool:
        """Audio or a finalize waits to be processed."""
        return bool(self._pending) or self.seconds - self._analyzed_until > BACKLOG_SECONDS

    def push_audio_now(self, samples: Samples) -> None:
        """As `push_audio`, synchronously."""
        for begin in range(0, len(samples), BLOCK):
            self._send(samples[begin : begin + BLOCK])

    async def wait_until_writable(self) -> None:
        """Back-pressure: waits until the engine has processed enough."""
        while self._is_full and not self.has_ended:
            self._changed.clear()
            await self._changed.wait()

    @property
    def _is_full(self) -> bool:
        return self.seconds - self._analyzed_until > MAX_IN_FLIGHT or len(self._pending) >= MAX_PENDING_FINALIZES

    def _send(self, block: Samples) -> None:
        self._audio.append(block)
        self._clock.add_packet(len(block), time.monotonic())
        self._engine.send(messages.Audio(self._number, block))

    def finalize(self, marker: int) -> None:
        """Requests a final of the audio so far."""
        self._request_final(marker)

    def close(self) -> None:
        """Ends the audio."""
        self._request_final(None)

    def _request_final(self, marker: int | None) -> None:
        if not self.has_ended and not self.is_closing:
            self._pending.append((self._audio.end, marker))
            self._engine.send(self._finalize_message(marker))

    def configure(self, endpointing: Endpointing, lag_interval: float = LAG_INTERVAL) -> None:
        self.options = replace(self.options, endpointing=endpointing, lag_interval=lag_interval)
        self._engine.send(messages.Configure(self._number, endpointing))

    def cancel(self) -> None:
        """Ends it without a result."""
        self.stop(Cancelled())

    def stop(self, event: Cancelled | Failed) -> None:
        """Ends it with that event."""
        if not self.has_ended:
            self._engine.send(messages.Cancel(self._number))
            self._end(event)

    def _finalize_message(self, marker: int | None) -> messages.Request:
        return messages.Close(self._number) if marker is None else messages.Finalize(self._number, marker)

    def _open(self, late: float = 0.0) -> None:
        options = self.options
        stream = StreamOptions(options.model.name, options.latency_ms, options.endpointing, options.prompt)
        self._engine.send(messages.Open(self._number, stream, is_replay=self.admission.done(), overdue_seconds=late))

    # Answers of the engine.

    def on_event(self, answer: messages.StreamEvent) -> None:
        if not self._answered.is_repeat(answer):
            self._handle(answer)

    def _handle(self, answer: messages.StreamEvent) -> None:
        match answer:
            case messages.StreamOpened() if not self.admission.done():
                self.admission.set_result(None)
            case messages.SpeechStarted(_, at):
                self._start_utterance(self._time(at))
            case messages.StreamTokens(_, tokens, until):
                self.processed_until = max(self.processed_until, self._time(until))
                self._add_tokens(self._new_tokens(tokens), (), until)
                self._advance(until)
            case messages.PartialTokens(_, tokens, until):
                self._add_tokens((), self._new_tokens(tokens), until)
            case messages.UtteranceProgress(_, until):
                self._advance(until)
            case messages.UtteranceEnded(_, at, reason):
                self._end_utterance(self._time(at), reason)
            case messages.Marker(_, marker):
                position, _ = self._pending.popleft()
                self._answered.add(position, self._kept_from())
                self._changed.set()
                self._end_utterance(self.processed_until, "asked")
                self._publish_in_order(Marker(marker, position / SAMPLE_RATE))
            case messages.Finished():
                self._end_utterance(self.processed_until, "closed")
                self._publish_in_order(Finished(self.seconds))
            case messages.Failed() | messages.Cancelled():
                self._end(_terminal_event(answer))

    def on_restart(self) -> None:
        """Sends the audio without a final, and some before it, to the restarted engine, with the finalizes in it."""
        self._engine_start = self._kept_from()
        if self._utterance:
            self._utterance.rewind(self._engine_start / SAMPLE_RATE)
        self._is_replayed = self._utterance is not None
        self._replay_final_until, self._replay_sent_until = self._final_until, self._analyzed_until
        self._open(self._late_from(self._engine_start))
        at = self._engine_start
        for position, marker in (*self._answered.replay_from(self._engine_start), *self._pending):
            at = self._resend(at, position)
            self._engine.send(self._finalize_message(marker))
        self._resend(at, self._audio.end)
        self._clock.restart(
            int(self._analyzed_until * SAMPLE_RATE), time.monotonic()
        )  # the duration of a restart is not lag

    def _late_from(self, begin: int) -> float:
        """Seconds of audio from that sample on that should have been processed by now."""
        spoken_at = self._clock.spoken_at(int(self._analyzed_until * SAMPLE_RATE))
        late = time.monotonic() - spoken_at + self._analyzed_until - begin / SAMPLE_RATE
        return min(max(late, 0.0), (self._audio.end - begin) / SAMPLE_RATE)

    def _resend(self, at: int, end: int) -> int:
        """Sends audio from sample `at` to `end` again; returns `end`."""
        while at < end:
            block = np.empty(min(BLOCK, end - at), np.float32)
            self._audio.read_into(at, block)
            self._engine.send(messages.Audio(self._number, block))
            at += len(block)
        return at

    def on_failure(self, error: ConureError) -> None:
        self._end(Failed(error.code, error.message, error.hint))

    def _time(self, seconds: float) -> float:
        return round(seconds + self._engine_start / SAMPLE_RATE, 3)

    def _new_tokens(self, tokens: Sequence[Token]) -> list[Token]:
        """Tokens in times of the session, without those that a final contains already."""
        if not self._engine_start:
            return list(tokens)
        shifted = (replace(token, start=self._time(token.start), end=self._time(token.end)) for token in tokens)
        return [token for token in shifted if token.start + token.end >= 2 * self._replay_final_until]

    def _start_utterance(self, at: float) -> None:
        if at < self._replay_final_until:
            return  # speech that a final covers already; only new words start an utterance
        if self._is_replayed:
            self._is_replayed = False
            return
        self._utterance_count += 1
        self._utterance = Utterance(self._utterance_count, at)
        self._send_event(SpeechStarted(self._utterance_count, at))

    def _add_tokens(self, tokens: Sequence[Token], guessed: Sequence[Token], until: float) -> None:
        if self._utterance is None:  # a repeated end token starts no utterance
            is_special = self.options.tokenizer.is_special
            tokens, guessed = ([token for token in part if not is_special(token.id)] for part in (tokens, guessed))
        if not tokens and not guessed:
            return
        if self._utterance is None:
            self._start_utterance(max([*tokens, *guessed][0].start, self._replay_final_until))
        assert self._utterance is not None
        self._utterance.tokens += tokens
        if self._time(until) >= self._replay_sent_until:  # earlier audio is covered by a sent partial
            reached = max(self.processed_until, self._time(until))
            self._send_event(self._utterance.partial(self.options.tokenizer, guessed, reached))

    def _advance(self, until: float) -> None:
        self._analyzed_until = max(self._analyzed_until, self._time(until))
        self._measure_lag()
        self._audio.discard_before(self._kept_from())
        self._changed.set()

    def _end_utterance(self, at: float, reason: messages.EndReason) -> None:
        if self._is_replayed and self._utterance and at <= self._utterance.start:
            return  # the replayed end of the utterance before it
        utterance, self._utterance, self._is_replayed = self._utterance, None, False
        if utterance is None or self.has_ended:
            return
        if utterance.tokens:
            self._final_until = utterance.tokens[-1].end
        self._send_event(UtteranceEnded(utterance.number, at, reason))
        if self.has_ended:
            return
        options = self.options
        words = words_from_tokens(utterance.tokens, options.tokenizer)
        final = make_final(utterance, words, at, reason, options.model.name, options.language)
        if options.second_pass and words and at - utterance.start <= MAX_SECOND_PASS:
            begin = max(int((utterance.start - options.second_pass.margin) * SAMPLE_RATE), self._audio.start)
            samples = np.empty(max(int(at * SAMPLE_RATE) - begin, SAMPLE_RATE), np.float32)
            self._audio.read_into(begin, samples)
            second_pass = SecondPass(self._engine, options.second_pass, samples, begin / SAMPLE_RATE, utterance, final)
            second_pass.on_done(self._publish_ready)
            self._ordered_events.append(second_pass)
        else:
            self._publish_in_order(final)

    # Events to the client.

    def _send_event(self, event: Event) -> None:
        if not self.has_ended:
            self._publish(event)

    def _publish_in_order(self, event: Event) -> None:
        self._ordered_events.append(event)
        self._publish_ready()

    def _publish_ready(self) -> None:
        """Finals, markers and the end are sent in order; those behind a final wait for its second pass."""
        while self._ordered_events:
            event: Event | SecondPass | None = self._ordered_events[0]
            if isinstance(event, SecondPass):
                event = event.final
            if event is None:
                return
            self._ordered_events.popleft()
            if isinstance(event, TERMINAL_EVENTS):
                self._end(event)
            else:
                self._send_event(event)

    def _end(self, event: Event) -> None:
        if self.has_ended:
            return
        self._publish(event)
        self.has_ended = True
        if not self.admission.done():
            self.admission.set_result(event)
        for waiting in self._ordered_events:
            if isinstance(waiting, SecondPass):
                waiting.cancel()
        self._ordered_events.clear()
        self._audio.discard_before(self._audio.end)  # an ended session may be kept, or wait long for garbage collection
        self._engine.unregister(self._number)
        self._changed.set()

    def _measure_lag(self) -> None:
        now = time.monotonic()
        uptime = now - self._engine.resumed_at  # time without an engine is not lag
        self.lag = min(self._clock.lag(int(self._analyzed_until * SAMPLE_RATE), now), uptime)
        if self.seconds - self._analyzed_until < self.options.latency_ms / 1000:
            self._clock.reset_lead(now)
        audio = self.processed_until - self._lag_sent_until
        if now - self._lag_sent_at >= self.options.lag_interval or audio >= LAG_AUDIO:
            self._lag_sent_at, self._lag_sent_until = now, self.processed_until
            self._send_event(Lag(round(self.lag, 3), self.processed_until))
        if self.lag > LAG_LIMIT:
            message = f"the transcript is {self.lag:.1f} s behind, more than {LAG_LIMIT:g} s"
            self.stop(Failed("lag_exceeded", message, "the machine is overloaded", RETRY_AFTER))
        elif self.lag > LAG_WARNING and now - self._lag_warned_at > LAG_LIMIT:
            self._lag_warned_at = now
            self._send_event(
                StreamWarning("lag", f"the transcript is {self.lag:.1f} s behind; at {LAG_LIMIT:g} s the stream ends")
            )

    def _kept_from(self) -> int:
        """The first sample that a replay needs: the first of a chunk, so that the replay has the same chunks."""
        needed_from = self._utterance.start if self._utterance else self.processed_until
        sample = max(int((needed_from - MARGIN) * SAMPLE_RATE), int((self._analyzed_until - MAX_KEPT) * SAMPLE_RATE))
        chunk = self.options.latency_ms * SAMPLE_RATE // 1000
        return max(sample // chunk * chunk, self._audio.start)


def _terminal_event(answer: messages.Failed | messages.Cancelled) -> Event:
    if isinstance(answer, messages.Cancelled):
        return Cancelled()
    return Failed(answer.code, answer.message, answer.hint, answer.retry_after)
