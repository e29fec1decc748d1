"""Live streams of a model that transcribes whole clips only: each utterance is a clip.

    samples ──> speech probabilities ──> utterances ─┬─> ended: a clip ──> its final tokens
                                                     └─> in progress: a clip at intervals ──> partial tokens

A stream has one piece of work at a time: its ended utterance, else audio for the speech detector, else a partial. So
events are in the stream's order. Clips of several streams are transcribed together, in slices; a partial is dropped
when its utterance ends.

Audio that is certainly not speech is not transcribed. An utterance that ends by its length is split between two words;
the next one begins there, and its clip somewhat earlier.

A finalize ends an utterance wherever it is, and changes nothing else: the detector continues, and the clip of the next
utterance may begin before the finalize, so that its first word is decoded with its context. Words that were emitted at
the finalize are not emitted again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from conure.constants import SAMPLE_RATE
from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.clip_runner import ClipRunner
from conure.engine.lanes.chunk_lane import FinalizePoint
from conure.engine.lanes.clip_batch import ClipBatch, seconds_of
from conure.engine.lanes.segment_stream import SegmentStream
from conure.engine.lanes.utterance import Utterance, audio_after
from conure.engine.lanes.vad_stream import detect_speech
from conure.engine.messages import (
    Cancelled,
    Failed,
    Finished,
    Marker,
    PartialTokens,
    Samples,
    SpeechStarted,
    StreamEvent,
    StreamOptions,
    StreamTokens,
    UtteranceEnded,
    UtteranceProgress,
)
from conure.engine.scheduler import ExpectedWork, StreamWork
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

LATENCIES = (80, 160, 320, 560, 1120, 2080)
"""Milliseconds of new audio from one partial to the next, at least."""
BATCH_SECONDS = 60.0
"""Audio in a batch, padding counted; short, because live clients wait for it."""


class SegmentLane:
    latencies = LATENCIES

    def __init__(
        self,
        runner: ClipRunner,
        silero: Silero,
        tokenizer: Tokenizer,
        slots: int,
        segmentation: SegmentationSettings | None = None,
    ) -> None:
        self.runner = runner
        self.silero = silero
        self.tokenizer = tokenizer
        self.capacity = slots
        self.settings = segmentation or SegmentationSettings()
        self.stages = StageTimer()
        self._streams: dict[int, SegmentStream] = {}
        self._finals: ClipBatch | None = None
        self._partials: ClipBatch | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, number: int, options: StreamOptions, overdue_seconds: float = 0.0) -> bool:
        if len(self._streams) >= self.capacity:
            return False
        stream = SegmentStream(number, options, UtteranceDetector(options.endpointing, self.settings))
        stream.overdue_until = round(overdue_seconds * SAMPLE_RATE)
        self._streams[number] = stream
        return True

    def push(self, number: int, samples: Samples, now: float) -> None:
        stream = self._streams[number]
        stream.vad.samples.append(samples)
        stream.clock.add_packet(len(samples), now)
        stream.last_packet_at = now
        self._update_ready(stream, now)

    def finalize(self, number: int, marker: int | None, now: float) -> None:
        stream = self._streams[number]
        stream.finalizes.append(FinalizePoint(stream.vad.samples.end, marker))
        self._update_ready(stream, now)

    def configure(self, number: int, endpointing: Endpointing) -> None:
        self._streams[number].detector.configure(endpointing)

    def cancel(self, number: int) -> list[StreamEvent]:
        self.drop(number)
        return [Cancelled(number)]

    def drop(self, number: int) -> None:
        del self._streams[number]
        self._drop_partial(number)
        if self._finals and number in self._finals.wanted and not self._finals.drop(number):
            self._finals = None

    def backlog_seconds(self, number: int) -> float:
        stream = self._streams[number]
        handled = stream.steps[0][0] if stream.steps else stream.vad.processed / SAMPLE_RATE
        return stream.vad.samples.end / SAMPLE_RATE - handled

    def ready_work(self) -> list[StreamWork]:
        works = (self._work(stream) for stream in self._streams.values())
        return [work for work in works if work is not None]

    def expected_work(self) -> list[ExpectedWork]:
        """Streams that will have audio for the speech detector."""
        expected = []
        for stream in self._streams.values():
            if stream.audio_since is None and stream.speech_end is None:
                missing = stream.vad.processed + stream.vad_samples - stream.vad.samples.end
                ready_at = stream.last_packet_at + missing / SAMPLE_RATE
                expected.append(ExpectedWork((self, "vad"), ready_at, ready_at + stream.latency))
        return expected

    @property
    def is_drained(self) -> bool:
        return True

    def drain(self) -> list[StreamEvent]:
        return []

    def run(self, numbers: Sequence[int], now: float) -> list[StreamEvent]:
        """Runs the speech detector, or one slice of a batch."""
        streams = [self._streams[number] for number in numbers]
        if streams[0].speech_end is not None:
            stage, work = "transcribing", self._run_finals
        elif streams[0].audio_since is not None:
            stage, work = "listening", self._run_detector
        else:
            stage, work = "guessing", self._run_partials
        with self.stages.time(stage):
            events = work(streams)
        for stream in self._streams.values():
            self._update_ready(stream, now)
        return events

    def _work(self, stream: SegmentStream) -> StreamWork | None:
        number, prompt = stream.number, stream.options.prompt
        if stream.final_since is not None:
            if self._finals and number not in self._finals.wanted:
                return None
            kind = (self, "final", prompt, self._finals is not None)
            work = replace(stream.work(kind, stream.clip_end, stream.final_since), size=stream.clip_seconds)
            if self._finals:  # other streams may wait for the batch to end
                return replace(work, realtime_from=float("-inf"))
            return replace(work, is_exclusive=True)
        if stream.audio_since is not None:
            end = min(stream.audio_end, stream.vad.processed + stream.vad_samples)
            return stream.work((self, "vad"), end, stream.audio_since)
        if stream.partial_since is not None and stream.utterance is not None:
            if self._partials and number not in self._partials.wanted:
                return None
            kind = (self, "partial", prompt, self._partials is not None)
            seconds = seconds_of(stream.vad.processed - stream.utterance.partial_first)
            return StreamWork(number, kind, stream.partial_since + stream.latency, seconds, is_optional=True)
        return None

    def _update_ready(self, stream: SegmentStream, now: float) -> None:
        """Notes since when each kind of work is ready."""
        is_complete = stream.vad.samples.end - stream.vad.processed >= stream.vad_samples
        if not (is_complete or stream.finalizes or stream.steps):
            stream.audio_since = None
            stream.clock.reset_lead(now)
        elif stream.audio_since is None:
            stream.audio_since = now
        stream.clock.discard_before(stream.vad.processed)
        if stream.speech_end is None:
            stream.final_since = None
        elif stream.final_since is None:
            stream.final_since = now
            self._drop_partial(stream.number)
        if not stream.wants_partial:
            stream.partial_since = None
        elif stream.partial_since is None:
            stream.partial_since = now

    def _drop_partial(self, number: int) -> None:
        if self._partials and number in self._partials.wanted and not self._partials.drop(number):
            self._partials = None

    def _run_detector(self, streams: Sequence[SegmentStream]) -> list[StreamEvent]:
        limit = MOST_STEPS * STEP
        targets = [(stream.vad, min(stream.audio_end, stream.vad.processed + limit)) for stream in streams]
        for stream, steps in zip(streams, detect_speech(self.silero, targets), strict=True):
            stream.steps += steps
        return [event for stream in streams for event in self._handle_steps(stream)]

    def _handle_steps(self, stream: SegmentStream) -> Iterator[StreamEvent]:
        """Handles detector steps up to the end of an utterance or to a finalize."""
        while stream.steps and stream.speech_end is None:
            yield from self._handle_step(stream, *stream.steps.popleft())
        if stream.speech_end is not None:
            return
        if stream.finalizes and stream.finalizes[0].sample - stream.vad.processed < STEP:
            yield from self._reach_finalize(stream, stream.finalizes[0])
            return
        if stream.utterance is None:
            stream.settled = max(stream.settled, self._settled(stream))
            yield StreamTokens(stream.number, (), max(stream.settled, stream.last_finalize) / SAMPLE_RATE)
        else:
            yield UtteranceProgress(stream.number, stream.vad.processed / SAMPLE_RATE)
        needed = stream.utterance.first if stream.utterance else stream.settled
        stream.vad.samples.discard_before(min(needed, stream.vad.processed))

    def _settled(self, stream: SegmentStream) -> int:
        """Samples that were processed and cannot become part of an utterance any more."""
        short, padded = (
            self.settings.short_seconds * SAMPLE_RATE,
            stream.vad.processed - round(self.settings.padding * SAMPLE_RATE),
        )
        if not stream.has_spoken and stream.vad.processed - stream.last_finalize <= short:
            return min(stream.last_finalize, padded)
        return padded

    def _handle_step(
        self, stream: SegmentStream, start: float, end: float, probability: float
    ) -> Iterator[StreamEvent]:
        stream.max_probability = max(stream.max_probability, probability)
        event = stream.detector.add_step(start, end, probability)
        if stream.utterance is None and stream.detector.speech_start is not None:
            self._begin_utterance(stream, stream.detector.speech_start)
        if isinstance(event, SpeechBegan) and stream.utterance and not stream.utterance.is_reported:
            yield self._speech_started(stream, event.at)
        elif isinstance(event, SpeechEnded):
            stream.speech_end = event

    def _begin_utterance(self, stream: SegmentStream, at: float) -> None:
        since = stream.last_finalize / SAMPLE_RATE
        at = max(at, since)
        first = max(stream.settled, round((at - self.settings.padding) * SAMPLE_RATE))
        seam = stream.finalize_seam
        stream.utterance = Utterance(
            at,
            first,
            seam=seam if seam and first < seam.at * SAMPLE_RATE else None,
            since=since,
            next_partial=round((at + stream.latency) * SAMPLE_RATE),
        )
        stream.has_spoken = True

    def _speech_started(self, stream: SegmentStream, at: float) -> SpeechStarted:
        assert stream.utterance is not None
        stream.utterance.is_reported = True
        return SpeechStarted(stream.number, max(at, stream.utterance.first / SAMPLE_RATE))

    def _reach_finalize(self, stream: SegmentStream, finalize: FinalizePoint) -> Iterator[StreamEvent]:
        """Processes the incomplete step before a finalize, then ends the utterance, then the finalize itself."""
        if stream.vad.processed < finalize.sample and not stream.has_probed:
            stream.has_probed = True
            yield from self._handle_step(stream, *stream.vad.probe_remainder(self.silero, finalize.sample))
        if stream.speech_end is None and not stream.has_spoken and self._may_hold_word(stream, finalize):
            self._begin_utterance(stream, stream.last_finalize / SAMPLE_RATE)
        if stream.speech_end is None and stream.utterance is not None:
            reason: EndReason = "closed" if finalize.marker is None else "asked"
            at = finalize.sample / SAMPLE_RATE
            stream.speech_end = stream.detector.end_speech(at, reason) or SpeechEnded(at, reason)
        if stream.speech_end is None:
            yield from self._complete_finalize(stream, finalize)

    def _may_hold_word(self, stream: SegmentStream, finalize: FinalizePoint) -> bool:
        """Whether short audio in which the detector found no speech may still hold a word."""
        seconds = (finalize.sample - stream.last_finalize) / SAMPLE_RATE
        return seconds <= self.settings.short_seconds and stream.max_probability >= self.settings.speech_in_short

    def _complete_finalize(self, stream: SegmentStream, finalize: FinalizePoint) -> Iterator[StreamEvent]:
        stream.finalizes.popleft()
        yield StreamTokens(stream.number, (), finalize.sample / SAMPLE_RATE)
        if finalize.marker is None:
            self.drop(stream.number)
            yield Finished(stream.number)
            return
        stream.last_finalize = finalize.sample
        stream.max_probability, stream.has_spoken, stream.has_probed = 0.0, False, False
        yield Marker(stream.number, finalize.marker)

    def _run_finals(self, streams: Sequence[SegmentStream]) -> list[StreamEvent]:
        if self._finals is None:
            first = {stream.number: stream.utterance.first for stream in streams if stream.utterance}
            ends = {stream.number: stream.clip_end for stream in streams if stream.speech_end}
            self._finals = self._form_batch({number: (first[number], ends[number]) for number in first})
        tokens = self._finals.run()
        if tokens is None:
            return []
        failed, self._finals = self._finals.failed, None
        events = [event for number in tokens for event in self._end_utterance(self._streams[number], tokens[number])]
        return [*events, *self._drop_failed(failed)]

    def _run_partials(self, streams: Sequence[SegmentStream]) -> list[StreamEvent]:
        if self._partials is None:
            spans = {s.number: (s.utterance.partial_first, s.vad.processed) for s in streams if s.utterance}
            self._partials = self._form_batch(spans)
        batch, tokens = self._partials, self._partials.run()
        if tokens is None:
            return []
        self._partials = None
        failed = self._drop_failed(batch.failed)
        partials = (self._partial(self._streams[n], len(batch.clips[n]), emitted) for n, emitted in tokens.items())
        return [*failed, *partials]

    def _drop_failed(self, failed: Sequence[Failed]) -> Sequence[Failed]:
        for event in failed:
            self.drop(event.stream)
        return failed

    def _form_batch(self, spans: dict[int, tuple[int, int]]) -> ClipBatch:
        """As many clips as a batch may hold, in the order of the spans."""
        chosen: dict[int, Samples] = {}
        longest = 0
        for number, (first, end) in spans.items():
            longest = max(longest, end - first)
            if chosen and longest * (len(chosen) + 1) > BATCH_SECONDS * SAMPLE_RATE:
                break
            chosen[number] = self._streams[number].read(first, end)
        prompt = self._streams[next(iter(chosen))].options.prompt
        return ClipBatch.start(self.runner, chosen, (prompt or 0) if self.runner.config.prompts else None)

    def _partial(self, stream: SegmentStream, samples: int, emitted: Sequence[EmittedToken]) -> StreamEvent:
        utterance = stream.utterance
        assert utterance is not None
        until = utterance.partial_first + samples
        tokens = _stream_tokens(emitted, utterance.partial_first, until)
        partial = utterance.partial(tokens, until, round(stream.latency * SAMPLE_RATE), self.tokenizer)
        stream.partial_since = None
        return PartialTokens(stream.number, tuple(partial), until / SAMPLE_RATE)

    def _end_utterance(self, stream: SegmentStream, emitted: Sequence[EmittedToken]) -> Iterator[StreamEvent]:
        """Emits an ended utterance, and handles the detector steps since its end."""
        utterance, speech_end = stream.utterance, stream.speech_end
        assert utterance is not None
        assert speech_end is not None
        end, at, next_utterance = stream.clip_end, speech_end.at, None
        until = end / SAMPLE_RATE
        tokens = _stream_tokens(emitted, utterance.first, end)
        if speech_end.reason == "length":
            final, seam = utterance.split(tokens, end, self.tokenizer)
            at = until = seam.at
            first = audio_after(seam, utterance.first)
            next_utterance = Utterance(at, first, seam=seam, since=utterance.since, next_partial=end)
            stream.detector.resume(at, speech_end.at, utterance.is_reported)
        else:
            final = utterance.final(tokens, self.tokenizer)
        if final and not utterance.is_reported:
            yield self._speech_started(stream, utterance.start)
        yield StreamTokens(stream.number, tuple(final), until)
        if utterance.is_reported:
            yield UtteranceEnded(stream.number, at, speech_end.reason)
        stream.utterance, stream.speech_end, stream.final_since = next_utterance, None, None
        stream.settled = end if next_utterance is None else next_utterance.first
        if speech_end.reason == "asked":
            stream.finalize_seam = ForcedSeam(until, tuple(words_from_tokens(final, self.tokenizer)))
            stream.settled = max(utterance.first, end - round(self.settings.padding * SAMPLE_RATE))
        if next_utterance and utterance.is_reported:
            yield self._speech_started(stream, at)
        yield from self._handle_steps(stream)


def _stream_tokens(emitted: Sequence[EmittedToken], first: int, end: int) -> list[Token]:
    return [token.to_token(first / SAMPLE_RATE, end / SAMPLE_RATE) for token in emitted]
