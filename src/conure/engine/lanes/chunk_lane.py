"""Live streams of one model that hears chunk after chunk: who has a whole one, and one turn for some of them.

    samples ──> the model's own way from a chunk to tokens ─┐
        └─────> speech probabilities, every 32 ms ──────────┴──> hearing ──> answers, in the stream's order

A cut (`finalize`) flushes what has come: a last, shorter chunk is worked in, with zeros after the cut in place of what
is not known yet, and its tokens are told. It changes nothing of the row, which stays at the beginning of that chunk
and works it in when it is whole, with the audio that came instead of the zeros. So the encoder's steps and the
decoder's tokens are those of a stream without cuts; `decoding/flushed_tokens.py` leaves out those that a flush told.

A stream that ends keeps its row until its last answer is made, then it is gone: answers are made in `run` alone, so
none can be for a later tenant of the row.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conure.audio.realtime_clock import RealtimeClock
from conure.audio.stream_features import FeatureExtractor, first_sample, samples_for_frames, span_samples
from conure.decoding.emitted_token import STEP_SECONDS, EmittedToken
from conure.decoding.flushed_tokens import FlushedTokens, spoken_forms
from conure.engine.lanes.endpoint_merge import EndpointMerge
from conure.engine.lanes.slots import Lease, Slots
from conure.engine.lanes.vad_stream import Speech, VadStream
from conure.engine.messages import Answer, Cancelled, Finished, Marker, Samples, StreamOptions
from conure.engine.scheduler import MOST_ROWS, Expected, LiveWork
from conure.engine.stage_timer import StageTimer
from conure.models.config import STEP_FRAMES, STEP_MS
from conure.text.tokenizer import Tokenizer
from conure.types import Token
from conure.vad.endpointing import Endpointing

__all__ = ["ChunkLane", "Cut", "ChunkPart", "ChunkStream"]

RATE = 16_000
END = "<EOU>"
"""The token by which some networks tell that an utterance is over."""
AHEAD = 1.0
"""Seconds before it would have been spoken from which on audio is heard as that of live streams is."""
LARGE_ROWS = 64
"""On a processor; a turn of more would leave memory behind that few streams need."""


@dataclass(slots=True)
class Cut:
    """Where a final is asked for."""

    sample: int
    marker: int | None
    """None: the stream ends, too."""


@dataclass(slots=True)
class ChunkStream:
    number: int
    lease: Lease
    options: StreamOptions
    hearing: EndpointMerge
    kind: tuple[object, int]
    """What its turns are shared with."""
    flushed: FlushedTokens
    chunk: int
    """Encoder steps that a turn works in."""
    frames: int
    """Frames that were worked in; below 0 where the first chunk begins with virtual ones."""
    reached: int = 0
    """The sample up to which it was worked in, in flushes too."""
    since: int = 0
    """The sample of the last cut."""
    whole_at: int = 0
    """The sample from which on the next chunk is whole."""
    ear: VadStream = field(default_factory=VadStream)
    cuts: deque[Cut] = field(default_factory=deque)
    pushed: float = 0.0
    """When samples came last."""
    spoken: RealtimeClock = field(default_factory=RealtimeClock)
    late_until: int = 0
    """The sample before which all should have been worked in when the stream was opened."""
    closing: bool = False
    """Nothing is left to work in; its last answers are still to be made."""


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """What one stream brings to a turn."""

    stream: ChunkStream
    first: int
    """The frame that it begins with."""
    frames: int
    end: int
    """Where the samples end that the features may see."""
    cut: Cut | None
    """The cut that these frames reach."""
    reached: int
    """The place up to which the stream is worked in with this turn."""
    since: int
    """The sample of the cut before it."""
    flush: bool = False
    """The row stays where it is: not all is there that its frames would see."""


class ChunkLane(ABC):
    """The bookkeeping; how a chunk becomes tokens is the model's."""

    lead = 0
    """Virtual frames before a stream's first one."""

    def __init__(self, front: FeatureExtractor, slots: int, tokenizer: Tokenizer | None = None) -> None:
        """Without a tokenizer, no token ends an utterance and tokens are alike only if they are the same."""
        pieces = tokenizer.pieces if tokenizer else ()
        self.front = front
        self._end_token = pieces.index(END) if END in pieces else None
        self._sounds = spoken_forms(pieces)
        self.stages = StageTimer()
        self.slots = Slots(slots)
        self._streams: dict[int, ChunkStream] = {}
        self._ready: dict[int, LiveWork] = {}
        """By number of the stream."""

    @property
    @abstractmethod
    def latencies(self) -> tuple[int, ...]:
        """In milliseconds, the least first."""

    def _chunk(self, options: StreamOptions) -> int:
        """Steps that a turn works in: all that the latency allows for."""
        return options.latency_ms // STEP_MS

    def _beyond(self, stream: ChunkStream) -> int:
        """Frames after a chunk that must be there before it is worked in."""
        return 0

    def _kept(self, stream: ChunkStream) -> int:
        """The first frame that is still needed."""
        return stream.frames

    @abstractmethod
    def _reset(self, row: int) -> None:
        """Makes a row ready for a new stream."""

    @abstractmethod
    def run(self, numbers: Sequence[int], now: float) -> list[Answer]:
        """A turn for streams that are ready and have chunks of one kind. Its answers may be left for the next one."""

    @property
    def is_settled(self) -> bool:
        """Whether all turns have given their answers."""
        return True

    def settle(self) -> list[Answer]:
        """Waits for the answers that are still to come."""
        return []

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def capacity(self) -> int:
        return self.slots.count

    def open(self, number: int, options: StreamOptions, late: float = 0.0) -> bool:
        """Whether there was a row for it."""
        lease = self.slots.lease()
        if lease is None:
            return False
        self._reset(lease.row)
        hearing, kind = EndpointMerge(number, options.endpointing, self._end_token), (self, options.latency_ms)
        flushed = FlushedTokens(self._sounds)
        stream = ChunkStream(number, lease, options, hearing, kind, flushed, self._chunk(options), -self.lead)
        stream.late_until = round(late * RATE)
        self._expect(stream)
        self._streams[number] = stream
        return True

    def push(self, number: int, samples: Samples, now: float) -> None:
        stream = self._streams[number]
        stream.ear.samples.append(samples)
        stream.spoken.add_packet(len(samples), now)
        stream.pushed = now
        if number not in self._ready:
            self._see(stream, now)

    def finalize(self, number: int, marker: int | None, now: float) -> None:
        """A cut after what was pushed; without a marker the stream ends there."""
        stream = self._streams[number]
        stream.cuts.append(Cut(stream.ear.samples.end, marker))
        self._see(stream, now)

    def configure(self, number: int, endpointing: Endpointing) -> None:
        self._streams[number].hearing.configure(endpointing)

    def cancel(self, number: int) -> list[Answer]:
        self.drop(number)
        return [Cancelled(number)]

    def drop(self, number: int) -> None:
        """It is gone, without an answer."""
        self.slots.release(self._streams.pop(number).lease)
        self._ready.pop(number, None)

    def ready(self) -> list[LiveWork]:
        """Streams that have a whole chunk, or a cut."""
        return list(self._ready.values())

    def expected(self) -> list[Expected]:
        """Those that will, as they would if samples came as fast as they are spoken."""
        found = []
        for stream in self._streams.values():
            if stream.number not in self._ready and not stream.closing:
                ready = stream.pushed + (stream.whole_at - stream.ear.samples.end) / RATE
                found.append(Expected(stream.kind, ready, ready + stream.chunk * STEP_SECONDS))
        return found

    def behind(self, number: int) -> float:
        """Seconds of audio that came and were not worked in."""
        stream = self._streams[number]
        return (stream.ear.samples.end - stream.reached) / RATE

    def largest_turn(self, latency_ms: int) -> int:
        """Rows of the largest turn whose cost is worth measuring: more of them cost as much each."""
        return LARGE_ROWS

    def _most_rows(self, chunk: int) -> int:
        """That share a turn."""
        return MOST_ROWS

    def _expect(self, stream: ChunkStream) -> None:
        """Notes when the next chunk will be whole."""
        frames = stream.frames + stream.chunk * STEP_FRAMES + self._beyond(stream)
        stream.whole_at = samples_for_frames(frames, self.front.config)

    def _see(self, stream: ChunkStream, now: float) -> None:
        """Notes that it is ready, and since when, or that it is not."""
        number = stream.number
        if stream.closing or not (stream.cuts or stream.ear.samples.end >= stream.whole_at):
            self._ready.pop(number, None)
            stream.spoken.reset_lead(now)
        elif number not in self._ready:
            end = min(stream.whole_at, stream.cuts[0].sample) if stream.cuts else stream.whole_at
            whole = stream.spoken.spoken_at(end) if end > stream.late_until else now
            due, most = whole + stream.chunk * STEP_SECONDS, self._most_rows(stream.chunk)
            work = LiveWork(number, stream.kind, due, most=most, firm_from=whole - AHEAD, since=stream.pushed)
            self._ready[number] = work

    def _part(self, stream: ChunkStream) -> ChunkPart:
        """What it brings to the next turn: a whole chunk, or, where a cut comes before its end, a flush."""
        hop, first, most = self.front.config.hop, stream.frames, stream.chunk * STEP_FRAMES
        cut = stream.cuts[0] if stream.cuts else None
        if cut is not None and cut.sample < stream.whole_at:
            is_new = cut.sample >= hop and cut.sample > stream.reached
            frames = cut.sample // hop - first if is_new else 0
            reached = max(stream.reached, cut.sample)
            return ChunkPart(stream, first, frames, cut.sample, cut, reached, stream.since, flush=True)
        if cut is not None and cut.sample // hop > first + most:
            cut = None
        reached = max(stream.reached, cut.sample if cut else (first + most) * hop)
        return ChunkPart(stream, first, most, stream.ear.samples.end, cut, reached, stream.since)

    def _mel(self, parts: Sequence[ChunkPart], first: Sequence[int], frames: int) -> Any:
        """So many frames of each part's stream from its `first` one on, [B, T, F], not normalised."""
        config = self.front.config
        spans = np.empty((len(parts), span_samples(frames, config)), np.float32)
        known = []
        for part, begin, span in zip(parts, first, spans, strict=True):
            known.append(self._read(part, begin, span))
        return self.front.extract_spans(spans, np.array(known))

    def _read(self, part: ChunkPart, begin: int, span: Samples) -> int:
        """The samples that a part's frames from `begin` on are made of; tells how many of them are known."""
        place = first_sample(begin, self.front.config)
        part.stream.ear.samples.read_into(place, span, part.end)
        return part.end - place

    @staticmethod
    def _flushes(parts: Sequence[ChunkPart]) -> NDArray[np.bool_] | None:
        """Which parts are flushes, [B]; None where none is, as nearly always."""
        return np.array([part.flush for part in parts]) if any(part.flush for part in parts) else None

    @staticmethod
    def _timed(part: ChunkPart, emitted: Sequence[EmittedToken]) -> Sequence[Token]:
        """In times of the stream: what is told at a cut is before it, and what is told later after it."""
        since, end = part.since / RATE, part.cut.sample / RATE if part.cut else math.inf
        emitted = part.stream.flushed.remove_known(emitted, part.flush)
        return tuple(token.to_token(end=end, since=since) for token in emitted)

    def _advance(self, part: ChunkPart, now: float) -> None:
        """The stream stands where this part of it ends; what is needed of it must have been read."""
        stream, cut = part.stream, part.cut
        stream.reached = part.reached
        if not part.flush:
            stream.frames += part.frames
        if cut:
            stream.cuts.popleft()
            stream.closing = cut.marker is None
            stream.since = cut.sample
        self._expect(stream)
        needed = max(first_sample(self._kept(stream), self.front.config), 0)
        stream.ear.samples.discard_before(min(needed, stream.ear.listened))
        stream.spoken.discard_before(part.reached)
        self._ready.pop(stream.number, None)
        self._see(stream, now)

    def _tell(self, part: ChunkPart, tokens: Sequence[Token], speech: Sequence[Speech]) -> Iterator[Answer]:
        """What follows from a stream's part of a turn; nothing where it has gone meanwhile."""
        stream, cut = part.stream, part.cut
        if self._streams.get(stream.number) is not stream:
            return
        yield from stream.hearing.tell(tokens, speech, part.reached / RATE)
        if cut is None:
            return
        yield from stream.hearing.end(cut.sample / RATE, "closed" if cut.marker is None else "asked")
        if cut.marker is None:
            self.drop(stream.number)
            yield Finished(stream.number)
        else:
            yield Marker(stream.number, cut.marker)
