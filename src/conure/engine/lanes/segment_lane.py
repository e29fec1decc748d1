"""Live streams of one model that hears whole clips only: each utterance is one.

    samples ──> speech probabilities ──> utterances ─┬─> over: a clip ──> its tokens, for sure
                                                     └─> goes on: a clip now and then ──> a guess at them

A stream has one piece of work at a time: the utterance that is over, else the audio that it has not listened to, else
a guess. So answers are in the stream's order. Clips of several streams are transcribed together, slice by slice; a
guess is given up when its utterance is over.

What the detector is sure is no speech is not transcribed. An utterance that ends by its length ends between two words;
the next one begins there, and its clip somewhat before.

A cut (`finalize`) ends an utterance wherever it is, and changes nothing else: the detector goes on, and the clip of the
next utterance may begin before the cut, so that it hears its first word with what was before it. Words that were told
at the cut are not told again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.lanes.chunk_lane import Cut
from conure.engine.lanes.clip_batch import ClipBatch, seconds_of
from conure.engine.lanes.segment_stream import SegmentStream
from conure.engine.lanes.utterance import Utterance, right_of
from conure.engine.lanes.vad_stream import listen
from conure.engine.messages import (
    Answer,
    Cancelled,
    ClipTokens,
    Failed,
    Finished,
    Marker,
    PartialTokens,
    Samples,
    SpeechStarted,
    StreamOptions,
    StreamTokens,
    UtteranceEnded,
)
from conure.engine.scheduler import Expected, LiveWork
from conure.engine.stage_timer import StageTimer
from conure.text.overlap_merge import ForcedSeam
from conure.text.tokenizer import Tokenizer
from conure.text.words import words_from_tokens
from conure.types import Token
from conure.vad.endpointing import Endpointing, EndReason, SpeechBegan, SpeechEnded
from conure.vad.segmentation import SegmentationSettings
from conure.vad.silero import MOST_STEPS, STEP, Silero
from conure.vad.utterance_detector import UtteranceDetector

__all__ = ["SegmentLane"]

RATE = 16_000
LATENCIES = (80, 160, 320, 560, 1120, 2080)
"""Milliseconds of new audio that are worth a guess."""
BATCH_SECONDS = 60.0
"""Audio in a batch, padding counted: utterances are waited for."""


class SegmentLane:
    latencies = LATENCIES

    def __init__(
        self,
        runner: ClipRunner,
        silero: Silero,
        tokenizer: Tokenizer,
        slots: int,
        cuts: SegmentationSettings | None = None,
    ) -> None:
        self.runner = runner
        self.silero = silero
        self.tokenizer = tokenizer
        self.capacity = slots
        self.settings = cuts or SegmentationSettings()
        self.stages = StageTimer()
        self._streams: dict[int, SegmentStream] = {}
        self._finals: ClipBatch | None = None
        self._guesses: ClipBatch | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, number: int, options: StreamOptions, late: float = 0.0) -> bool:
        if len(self._streams) >= self.capacity:
            return False
        stream = SegmentStream(number, options, UtteranceDetector(options.endpointing, self.settings))
        stream.late_until = round(late * RATE)
        self._streams[number] = stream
        return True

    def push(self, number: int, samples: Samples, now: float) -> None:
        stream = self._streams[number]
        stream.ear.samples.append(samples)
        stream.spoken.add_packet(len(samples), now)
        stream.pushed = now
        self._see(stream, now)

    def finalize(self, number: int, marker: int | None, now: float) -> None:
        stream = self._streams[number]
        stream.cuts.append(Cut(stream.ear.samples.end, marker))
        self._see(stream, now)

    def configure(self, number: int, endpointing: Endpointing) -> None:
        self._streams[number].utterances.configure(endpointing)

    def cancel(self, number: int) -> list[Answer]:
        self.drop(number)
        return [Cancelled(number)]

    def drop(self, number: int) -> None:
        del self._streams[number]
        self._forget_guess(number)
        if self._finals and number in self._finals.wanted and not self._finals.forget(number):
            self._finals = None

    def behind(self, number: int) -> float:
        stream = self._streams[number]
        followed = stream.steps[0][0] if stream.steps else stream.ear.listened / RATE
        return stream.ear.samples.end / RATE - followed

    def ready(self) -> list[LiveWork]:
        works = (self._work(stream) for stream in self._streams.values())
        return [work for work in works if work is not None]

    def expected(self) -> list[Expected]:
        """Streams that will have something to listen to."""
        found = []
        for stream in self._streams.values():
            if stream.since is None and stream.over is None:
                ready = stream.pushed + (stream.ear.listened + stream.listens - stream.ear.samples.end) / RATE
                found.append(Expected((self, "listen"), ready, ready + stream.latency))
        return found

    @property
    def is_settled(self) -> bool:
        return True

    def settle(self) -> list[Answer]:
        return []

    def run(self, numbers: Sequence[int], now: float) -> list[Answer]:
        """Listens, or transcribes a slice."""
        streams = [self._streams[number] for number in numbers]
        if streams[0].over is not None:
            stage, work = "transcribing", self._run_finals
        elif streams[0].since is not None:
            stage, work = "listening", self._listen
        else:
            stage, work = "guessing", self._run_guesses
        with self.stages.time(stage):
            answers = work(streams)
        for stream in self._streams.values():
            self._see(stream, now)
        return answers

    def _work(self, stream: SegmentStream) -> LiveWork | None:
        number, prompt = stream.number, stream.options.prompt
        if stream.over_since is not None:
            if self._finals and number not in self._finals.wanted:
                return None
            kind = (self, "final", prompt, self._finals is not None)
            work = replace(stream.work(kind, stream.over_at, stream.over_since), size=stream.seconds)
            if self._finals:  # others may wait for what was begun
                return replace(work, firm_from=float("-inf"))
            return replace(work, alone=True)
        if stream.since is not None:
            end = min(stream.end, stream.ear.listened + stream.listens)
            return stream.work((self, "listen"), end, stream.since)
        if stream.guess_since is not None and stream.goes_on is not None:
            if self._guesses and number not in self._guesses.wanted:
                return None
            kind = (self, "guess", prompt, self._guesses is not None)
            seconds = seconds_of(stream.ear.listened - stream.goes_on.guess_first)
            return LiveWork(number, kind, stream.guess_since + stream.latency, seconds, spare=True)
        return None

    def _see(self, stream: SegmentStream, now: float) -> None:
        """Notes since when there is something to do."""
        whole = stream.ear.samples.end - stream.ear.listened >= stream.listens
        if not (whole or stream.cuts or stream.steps):
            stream.since = None
            stream.spoken.reset_lead(now)
        elif stream.since is None:
            stream.since = now
        stream.spoken.discard_before(stream.ear.listened)
        if stream.over is None:
            stream.over_since = None
        elif stream.over_since is None:
            stream.over_since = now
            self._forget_guess(stream.number)
        if not stream.wants_guess:
            stream.guess_since = None
        elif stream.guess_since is None:
            stream.guess_since = now

    def _forget_guess(self, number: int) -> None:
        if self._guesses and number in self._guesses.wanted and not self._guesses.forget(number):
            self._guesses = None

    def _listen(self, streams: Sequence[SegmentStream]) -> list[Answer]:
        wanted = [(stream.ear, min(stream.end, stream.ear.listened + MOST_STEPS * STEP)) for stream in streams]
        for stream, steps in zip(streams, listen(self.silero, wanted), strict=True):
            stream.steps += steps
        return [answer for stream in streams for answer in self._follow(stream)]

    def _follow(self, stream: SegmentStream) -> Iterator[Answer]:
        """What was heard, as far as it can be told: to the end of an utterance, or of the clip."""
        while stream.steps and stream.over is None:
            yield from self._step(stream, *stream.steps.popleft())
        if stream.over is not None:
            return
        if stream.cuts and stream.cuts[0].sample - stream.ear.listened < STEP:
            yield from self._reach(stream, stream.cuts[0])
            return
        if stream.goes_on is None:
            stream.clear = max(stream.clear, self._clear(stream))
            yield StreamTokens(stream.number, (), max(stream.clear, stream.origin) / RATE)
        else:
            yield ClipTokens(stream.number, stream.ear.listened / RATE)
        needed = stream.goes_on.first if stream.goes_on else stream.clear
        stream.ear.samples.discard_before(min(needed, stream.ear.listened))

    def _clear(self, stream: SegmentStream) -> int:
        """What was listened to and cannot become part of an utterance any more."""
        short, padded = self.settings.short_seconds * RATE, stream.ear.listened - round(self.settings.padding * RATE)
        if not stream.spoke and stream.ear.listened - stream.origin <= short:
            return min(stream.origin, padded)
        return padded

    def _step(self, stream: SegmentStream, start: float, end: float, probability: float) -> Iterator[Answer]:
        stream.likeliest = max(stream.likeliest, probability)
        event = stream.utterances.add_step(start, end, probability)
        if stream.goes_on is None and stream.utterances.speech_start is not None:
            self._begin(stream, stream.utterances.speech_start)
        if isinstance(event, SpeechBegan) and stream.goes_on and not stream.goes_on.is_told:
            yield self._started(stream, event.at)
        elif isinstance(event, SpeechEnded):
            stream.over = event

    def _begin(self, stream: SegmentStream, at: float) -> None:
        at = max(at, stream.origin / RATE)
        first = max(stream.clear, round((at - self.settings.padding) * RATE))
        border = stream.border if stream.border and first < stream.border.at * RATE else None
        stream.goes_on = Utterance(
            at, first, seam=border, since=stream.origin / RATE, next_guess=round((at + stream.latency) * RATE)
        )
        stream.spoke = True

    def _started(self, stream: SegmentStream, at: float) -> SpeechStarted:
        assert stream.goes_on is not None
        stream.goes_on.is_told = True
        return SpeechStarted(stream.number, max(at, stream.goes_on.first / RATE))

    def _reach(self, stream: SegmentStream, cut: Cut) -> Iterator[Answer]:
        """The end of a clip: of its last part of a step, then of the utterance, then of itself."""
        if stream.ear.listened < cut.sample and not stream.heard_rest:
            stream.heard_rest = True
            yield from self._step(stream, *stream.ear.rest(self.silero, cut.sample))
        if stream.over is None and not stream.spoke and self._is_doubtful(stream, cut):
            self._begin(stream, stream.origin / RATE)
        if stream.over is None and stream.goes_on is not None:
            reason: EndReason = "closed" if cut.marker is None else "asked"
            at = cut.sample / RATE
            stream.over = stream.utterances.end_speech(at, reason) or SpeechEnded(at, reason)
        if stream.over is None:
            yield from self._end_clip(stream, cut)

    def _is_doubtful(self, stream: SegmentStream, cut: Cut) -> bool:
        """Whether a clip that is short altogether, and seemed to hold no speech, may hold a word."""
        seconds = (cut.sample - stream.origin) / RATE
        return seconds <= self.settings.short_seconds and stream.likeliest >= self.settings.speech_in_short

    def _end_clip(self, stream: SegmentStream, cut: Cut) -> Iterator[Answer]:
        stream.cuts.popleft()
        yield StreamTokens(stream.number, (), cut.sample / RATE)
        if cut.marker is None:
            self.drop(stream.number)
            yield Finished(stream.number)
            return
        stream.origin = cut.sample
        stream.likeliest, stream.spoke, stream.heard_rest = 0.0, False, False
        yield Marker(stream.number, cut.marker)

    def _run_finals(self, streams: Sequence[SegmentStream]) -> list[Answer]:
        if self._finals is None:
            first = {stream.number: stream.goes_on.first for stream in streams if stream.goes_on}
            ends = {stream.number: stream.over_at for stream in streams if stream.over}
            self._finals = self._form({number: (first[number], ends[number]) for number in first})
        found = self._finals.run()
        if found is None:
            return []
        failed, self._finals = self._finals.failed, None
        heard = [answer for number, tokens in found.items() for answer in self._conclude(self._streams[number], tokens)]
        return [*heard, *self._give_up(failed)]

    def _run_guesses(self, streams: Sequence[SegmentStream]) -> list[Answer]:
        if self._guesses is None:
            spans = {s.number: (s.goes_on.guess_first, s.ear.listened) for s in streams if s.goes_on}
            self._guesses = self._form(spans)
        batch, found = self._guesses, self._guesses.run()
        if found is None:
            return []
        self._guesses = None
        clips, failed = batch.clips, self._give_up(batch.failed)
        return [*failed, *(self._guess(self._streams[n], len(clips[n]), tokens) for n, tokens in found.items())]

    def _give_up(self, failed: Sequence[Failed]) -> Sequence[Failed]:
        """Streams whose clips did not fit."""
        for answer in failed:
            self.drop(answer.stream)
        return failed

    def _form(self, spans: dict[int, tuple[int, int]]) -> ClipBatch:
        """As many clips as a batch may hold, the first ones first."""
        chosen: dict[int, Samples] = {}
        longest = 0
        for number, (first, end) in spans.items():
            longest = max(longest, end - first)
            if chosen and longest * (len(chosen) + 1) > BATCH_SECONDS * RATE:
                break
            chosen[number] = self._streams[number].read(first, end)
        prompt = self._streams[next(iter(chosen))].options.prompt
        return ClipBatch.of(self.runner, chosen, (prompt or 0) if self.runner.config.prompts else None)

    def _guess(self, stream: SegmentStream, heard: int, emitted: Sequence[EmittedToken]) -> Answer:
        going = stream.goes_on
        assert going is not None
        until = going.guess_first + heard
        tokens = _timed(emitted, going.guess_first, until)
        said = going.guess(tokens, until, round(stream.latency * RATE), self.tokenizer)
        stream.guess_since = None
        return PartialTokens(stream.number, tuple(said), until / RATE)

    def _conclude(self, stream: SegmentStream, emitted: Sequence[EmittedToken]) -> Iterator[Answer]:
        """An utterance that is over, and what was heard since."""
        said, over = stream.goes_on, stream.over
        assert said is not None
        assert over is not None
        end, at, after = stream.over_at, over.at, None
        until = end / RATE
        tokens = _timed(emitted, said.first, end)
        if over.reason == "length":
            own, seam = said.cut(tokens, end, self.tokenizer)
            at = until = seam.at
            first = right_of(seam, said.first)
            after = Utterance(at, first, seam=seam, since=said.since, next_guess=end)
            stream.utterances.resume(at, over.at, said.is_told)
        else:
            own = said.final(tokens, self.tokenizer)
        if own and not said.is_told:
            yield self._started(stream, said.began)
        yield StreamTokens(stream.number, tuple(own), until)
        if said.is_told:
            yield UtteranceEnded(stream.number, at, over.reason)
        stream.goes_on, stream.over, stream.over_since = after, None, None
        stream.clear = end if after is None else after.first
        if over.reason == "asked":
            stream.border = ForcedSeam(until, tuple(words_from_tokens(own, self.tokenizer)))
            stream.clear = max(said.first, end - round(self.settings.padding * RATE))
        if after and said.is_told:
            yield self._started(stream, at)
        yield from self._follow(stream)


def _timed(emitted: Sequence[EmittedToken], first: int, end: int) -> list[Token]:
    return [token.to_token(first / RATE, end / RATE) for token in emitted]
