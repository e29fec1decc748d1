"""One live conversation: samples in, events out, whatever becomes of the engine meanwhile.

The session keeps the audio of what is not yet final. When the engine was started anew it is sent again, from before the
utterance that goes on, and what was heard of that utterance is heard again: the client sees a pause.
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
from conure.engine import messages as engine
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

RATE = 16_000
MARGIN = 1.0
"""Seconds before an utterance that are kept with it: a detector hears a beginning late."""
MOST_KEPT = 120.0
"""Seconds of an utterance that can be heard again."""
MOST_AHEAD = 20.0
"""Seconds of audio that the engine is given before it has worked it in; what is sent faster waits elsewhere."""
BEHIND = 2.0
"""Seconds of audio that wait where more waits than a model looks ahead."""
MOST_ASKED = 64
"""Requests for a final that may wait."""
MOST_TWICE = 60.0
"""Seconds of the longest utterance that is heard a second time."""
PIECE = 5 * RATE
"""Samples that go to the engine at once."""
LAG_AUDIO = 5.0
"""Seconds of audio after which it is told sooner."""
LAG_WARNED = 2.0
LAG_LIMIT = 15.0
RETRY_AFTER = 5.0


class LiveSession:
    """Lives on one event loop; `publish` is called there with each event, in order, and must not block."""

    def __init__(self, handle: EngineClient, options: SessionOptions, publish: Callable[[Event], None]) -> None:
        self.options = options
        self.processed_until = 0.0
        """Audio before this has been worked in."""
        self._followed = 0.0
        """The same, but for an utterance that is to be heard whole: what was listened to."""
        self.lag = 0.0
        self.has_ended = False
        self._handle = handle
        self._publish = publish
        self._audio = SampleBuffer()
        self._begin = 0
        """The sample at which the engine's stream began."""
        self._asked: deque[tuple[int, int | None]] = deque()
        """Places of finalize (with its marker) and close that were not answered."""
        self._spoken = RealtimeClock()
        self._ordered: deque[Event | SecondPass] = deque()
        """What waits for a second pass, and for its turn after one."""
        self._utterance: Utterance | None = None
        self._utterances = 0
        self._heard_again = False
        """The utterance began before the engine did."""
        self._cuts = AnsweredFinalizes()
        self._final_until = self._repeated_until = self._known_until = 0.0
        """End of the last word of a final; the same when the engine began, and up to where partials were told then."""
        self._told = self._told_until = self._warned = 0.0
        self._progress = asyncio.Event()
        self.admission: asyncio.Future[Event | None] = asyncio.get_running_loop().create_future()
        """None when the engine has taken it; how it ended where it was not taken."""
        self._number = handle.register(self)
        self._open()

    @property
    def seconds(self) -> float:
        """Audio received."""
        return self._audio.end / RATE

    @property
    def is_closing(self) -> bool:
        return bool(self._asked) and self._asked[-1][1] is None

    async def push_audio(self, samples: Samples) -> None:
        """Mono, 16 kHz. Waits where much is waiting; what comes after the end is not wanted by anyone."""
        for begin in range(0, len(samples), PIECE):
            await self.wait_until_writable()
            if self.has_ended or self.is_closing:
                return
            self._send(samples[begin : begin + PIECE])

    @property
    def is_writable(self) -> bool:
        """Whether `take` may be called: the stream goes on, and what comes need wait for nothing."""
        asked = self._asked
        if self.has_ended or (asked and (len(asked) >= MOST_ASKED or self.is_closing)):
            return False
        return self._audio.end <= (self._followed + MOST_AHEAD) * RATE

    @property
    def has_backlog(self) -> bool:
        """Audio waits to be worked in, or a request for what was heard."""
        return bool(self._asked) or self.seconds - self._followed > BEHIND

    def push_audio_now(self, samples: Samples) -> None:
        """As `push`, at once."""
        for begin in range(0, len(samples), PIECE):
            self._send(samples[begin : begin + PIECE])

    async def wait_until_writable(self) -> None:
        """Waits until there is room for more."""
        while self._is_full and not self.has_ended:
            self._progress.clear()
            await self._progress.wait()

    @property
    def _is_full(self) -> bool:
        return self.seconds - self._followed > MOST_AHEAD or len(self._asked) >= MOST_ASKED

    def _send(self, piece: Samples) -> None:
        self._audio.append(piece)
        self._spoken.add_packet(len(piece), time.monotonic())
        self._handle.ask(engine.Audio(self._number, piece))

    def finalize(self, marker: int) -> None:
        """That was all for now."""
        self._ask(marker)

    def close(self) -> None:
        """That was all."""
        self._ask(None)

    def _ask(self, marker: int | None) -> None:
        if not self.has_ended and not self.is_closing:
            self._asked.append((self._audio.end, marker))
            self._handle.ask(self._cut(marker))

    def configure(self, endpointing: Endpointing, lag_every: float = LAG_INTERVAL) -> None:
        self.options = replace(self.options, endpointing=endpointing, lag_interval=lag_every)
        self._handle.ask(engine.Configure(self._number, endpointing))

    def cancel(self) -> None:
        """Nobody wants the rest."""
        self.stop(Cancelled())

    def stop(self, event: Cancelled | Failed) -> None:
        """Ends it from this side."""
        if not self.has_ended:
            self._handle.ask(engine.Cancel(self._number))
            self._end(event)

    def _cut(self, marker: int | None) -> engine.Request:
        return engine.Close(self._number) if marker is None else engine.Finalize(self._number, marker)

    def _open(self, late: float = 0.0) -> None:
        options = self.options
        stream = StreamOptions(options.model.name, options.latency_ms, options.endpointing, options.prompt)
        self._handle.ask(engine.Open(self._number, stream, again=self.admission.done(), late=late))

    # What the engine says.

    def answered(self, answer: engine.Answer) -> None:
        if not self._cuts.is_repeat(answer):
            self._take(answer)

    def _take(self, answer: engine.Answer) -> None:
        match answer:
            case engine.StreamOpened() if not self.admission.done():
                self.admission.set_result(None)
            case engine.SpeechStarted(_, at):
                self._start_utterance(self._time(at))
            case engine.StreamTokens(_, tokens, until):
                self.processed_until = max(self.processed_until, self._time(until))
                self._hear(self._news(tokens), (), until)
                self._follow(until)
            case engine.PartialTokens(_, tokens, until):
                self._hear((), self._news(tokens), until)
            case engine.ClipTokens(_, until):
                self._follow(until)
            case engine.UtteranceEnded(_, at, reason):
                self._end_utterance(self._time(at), reason)
            case engine.Marker(_, marker):
                place, _ = self._asked.popleft()
                self._cuts.add(place, self._kept_from())
                self._progress.set()
                self._end_utterance(self.processed_until, "asked")
                self._tell_in_order(Marker(marker, place / RATE))
            case engine.Finished():
                self._end_utterance(self.processed_until, "closed")
                self._tell_in_order(Finished(self.seconds))
            case engine.Failed() | engine.Cancelled():
                self._end(_last_of(answer))

    def restarted(self) -> None:
        """Everything that is not final is said to the new engine again, and some of what came before it."""
        self._begin = self._kept_from()
        if self._utterance:
            self._utterance.rewind(self._begin / RATE)
        self._heard_again = self._utterance is not None
        self._repeated_until, self._known_until = self._final_until, self._followed
        self._open(self._late_from(self._begin))
        at = self._begin
        for place, marker in (*self._cuts.replay_from(self._begin), *self._asked):
            at = self._send_again(at, place)
            self._handle.ask(self._cut(marker))
        self._send_again(at, self._audio.end)
        self._spoken.restart(int(self._followed * RATE), time.monotonic())  # a restart is not held against it

    def _late_from(self, begin: int) -> float:
        """Seconds of audio from that sample on that should have been worked in by now."""
        late = time.monotonic() - self._spoken.spoken_at(int(self._followed * RATE)) + self._followed - begin / RATE
        return min(max(late, 0.0), (self._audio.end - begin) / RATE)

    def _send_again(self, at: int, end: int) -> int:
        """Audio from one sample to another; where it ends."""
        while at < end:
            piece = np.empty(min(PIECE, end - at), np.float32)
            self._audio.read_into(at, piece)
            self._handle.ask(engine.Audio(self._number, piece))
            at += len(piece)
        return at

    def lost(self, error: ConureError) -> None:
        self._end(Failed(error.code, error.message, error.hint))

    def _time(self, seconds: float) -> float:
        return round(seconds + self._begin / RATE, 3)

    def _news(self, tokens: Sequence[Token]) -> list[Token]:
        """In times of the stream, without what is part of a final already."""
        if not self._begin:
            return list(tokens)
        shifted = (replace(token, start=self._time(token.start), end=self._time(token.end)) for token in tokens)
        return [token for token in shifted if token.start + token.end >= 2 * self._repeated_until]

    def _start_utterance(self, at: float) -> None:
        if at < self._repeated_until:
            return  # words that are new begin one
        if self._heard_again:
            self._heard_again = False
            return
        self._utterances += 1
        self._utterance = Utterance(self._utterances, at)
        self._tell(SpeechStarted(self._utterances, at))

    def _hear(self, tokens: Sequence[Token], guessed: Sequence[Token], until: float) -> None:
        if self._utterance is None:  # what says once more that the one before is over begins none
            is_special = self.options.tokenizer.is_special
            tokens, guessed = ([token for token in part if not is_special(token.id)] for part in (tokens, guessed))
        if not tokens and not guessed:
            return
        if self._utterance is None:
            self._start_utterance(max([*tokens, *guessed][0].start, self._repeated_until))
        assert self._utterance is not None
        self._utterance.tokens += tokens
        if self._time(until) >= self._known_until:  # else the client knows it
            reached = max(self.processed_until, self._time(until))
            self._tell(self._utterance.partial(self.options.tokenizer, guessed, reached))

    def _follow(self, until: float) -> None:
        self._followed = max(self._followed, self._time(until))
        self._measure_lag()
        self._audio.discard_before(self._kept_from())
        self._progress.set()

    def _end_utterance(self, at: float, reason: engine.EndReason) -> None:
        if self._heard_again and self._utterance and at <= self._utterance.start:
            return  # one before it, which was heard again with it
        utterance, self._utterance, self._heard_again = self._utterance, None, False
        if utterance is None or self.has_ended:
            return
        if utterance.tokens:
            self._final_until = utterance.tokens[-1].end
        self._tell(UtteranceEnded(utterance.number, at, reason))
        if self.has_ended:
            return
        options = self.options
        words = words_from_tokens(utterance.tokens, options.tokenizer)
        final = make_final(utterance, words, at, reason, options.model.name, options.language)
        if options.second_pass and words and at - utterance.start <= MOST_TWICE:
            begin = max(int((utterance.start - options.second_pass.margin) * RATE), self._audio.start)
            samples = np.empty(max(int(at * RATE) - begin, RATE), np.float32)
            self._audio.read_into(begin, samples)
            second = SecondPass(self._handle, options.second_pass, samples, begin / RATE, utterance, final)
            second.on_done(self._tell_waiting)
            self._ordered.append(second)
        else:
            self._tell_in_order(final)

    # What the client hears.

    def _tell(self, event: Event) -> None:
        if not self.has_ended:
            self._publish(event)

    def _tell_in_order(self, event: Event) -> None:
        self._ordered.append(event)
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Finals, markers and the end keep their order, though a final may have to wait for its second pass."""
        while self._ordered:
            event: Event | SecondPass | None = self._ordered[0]
            if isinstance(event, SecondPass):
                event = event.final
            if event is None:
                return
            self._ordered.popleft()
            if isinstance(event, TERMINAL_EVENTS):
                self._end(event)
            else:
                self._tell(event)

    def _end(self, event: Event) -> None:
        if self.has_ended:
            return
        self._publish(event)
        self.has_ended = True
        if not self.admission.done():
            self.admission.set_result(event)
        for waiting in self._ordered:
            if isinstance(waiting, SecondPass):
                waiting.cancel()
        self._ordered.clear()
        self._audio.discard_before(self._audio.end)  # who ended may be remembered for a while, or be garbage for long
        self._handle.forget(self._number)
        self._progress.set()

    def _measure_lag(self) -> None:
        now = time.monotonic()
        held_up = now - self._handle.back_since  # while there was no engine nobody was too slow
        self.lag = min(self._spoken.lag(int(self._followed * RATE), now), held_up)
        if self.seconds - self._followed < self.options.latency_ms / 1000:
            self._spoken.reset_lead(now)
        if now - self._told >= self.options.lag_interval or self.processed_until - self._told_until >= LAG_AUDIO:
            self._told, self._told_until = now, self.processed_until
            self._tell(Lag(round(self.lag, 3), self.processed_until))
        if self.lag > LAG_LIMIT:
            message = f"the transcript is {self.lag:.1f} s behind, more than {LAG_LIMIT:g} s"
            self.stop(Failed("lag_exceeded", message, "the machine is overloaded", RETRY_AFTER))
        elif self.lag > LAG_WARNED and now - self._warned > LAG_LIMIT:
            self._warned = now
            self._tell(
                StreamWarning("lag", f"the transcript is {self.lag:.1f} s behind; at {LAG_LIMIT:g} s the stream ends")
            )

    def _kept_from(self) -> int:
        """The first sample that may be needed again: the first of a chunk, so that the same steps are heard again."""
        heard = self._utterance.start if self._utterance else self.processed_until
        wanted = max(int((heard - MARGIN) * RATE), int((self._followed - MOST_KEPT) * RATE))
        chunk = self.options.latency_ms * RATE // 1000
        return max(wanted // chunk * chunk, self._audio.start)


def _last_of(answer: engine.Failed | engine.Cancelled) -> Event:
    if isinstance(answer, engine.Cancelled):
        return Cancelled()
    return Failed(answer.code, answer.message, answer.hint, answer.retry_after)
