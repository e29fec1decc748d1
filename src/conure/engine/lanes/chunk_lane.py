"""Live streams of one model that decodes chunk by chunk: which have a complete chunk, and one step for several of them.

    samples ──> the model: chunk to tokens ────────────┐
        └─────> speech probabilities, every 32 ms ─────┴──> endpoint merge ──> events, in the stream's order

A finalize flushes the unfinished chunk: it is decoded with zeros after the last sample, and its tokens are emitted. The
stream's slot keeps its state from before the flush, and decodes the chunk again when it is complete, with the audio
that followed instead of the zeros. So encoder frames and decoder tokens are those of a stream without finalizes;
`decoding/flushed_tokens.py` removes the tokens that a flush has emitted.

A stream that ends keeps its slot until its last event is emitted. Events are emitted only in `run`, `drain` and
`cancel`, so none can be emitted for a later stream of the same slot.
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
from conure.constants import ENCODER_FRAME_MS, ENCODER_FRAME_SECONDS, END_OF_UTTERANCE, SAMPLE_RATE
from conure.decoding.emitted_token import EmittedToken
from conure.decoding.flushed_tokens import FlushedTokens, spoken_forms
from conure.engine.lanes.endpoint_merge import EndpointMerge
from conure.engine.lanes.slots import Lease, Slots
from conure.engine.lanes.vad_stream import Speech, VadStream
from conure.engine.messages import Cancelled, Finished, Marker, Samples, StreamEvent, StreamOptions
from conure.engine.scheduler import MAX_ROWS, ExpectedWork, StreamWork
from conure.engine.stage_timer import StageTimer
from conure.models.config import STEP_FRAMES
from conure.text.tokenizer import Tokenizer
from conure.types import Token
from conure.vad.endpointing import Endpointing, EndReason

__all__ = ["ChunkLane", "FinalizePoint", "ChunkPart", "ChunkStream"]

LEAD_SECONDS = 1.0
"""Audio this early is still treated as real time."""
CPU_STEP_ROWS = 64
"""Rows of the largest step that is measured on a CPU; a larger one would allocate memory that few streams need."""


@dataclass(slots=True)
class FinalizePoint:
    sample: int
    marker: int | None
    """None: the stream ends here."""


@dataclass(slots=True)
class ChunkStream:
    number: int
    lease: Lease
    options: StreamOptions
    endpoint_merge: EndpointMerge
    kind: tuple[object, int]
    """Streams of the same kind may share steps."""
    flushed: FlushedTokens
    chunk: int
    """Encoder frames in a chunk."""
    next_frame: int
    """First mel frame of the next chunk; below 0 where the first chunk begins with virtual frames."""
    processed: int = 0
    """Samples that were decoded, in flushes too."""
    last_finalize: int = 0
    """Sample of the last finalize that was handled."""
    chunk_end: int = 0
    """Samples that complete the next chunk."""
    vad: VadStream = field(default_factory=VadStream)
    finalizes: deque[FinalizePoint] = field(default_factory=deque)
    last_packet_at: float = 0.0
    clock: RealtimeClock = field(default_factory=RealtimeClock)
    overdue_until: int = 0
    """Samples that were overdue when the stream was opened."""
    is_closing: bool = False
    """All audio is decoded; the last events are still to come."""


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """A stream's part of a step."""

    stream: ChunkStream
    first_frame: int
    frames: int
    known_samples: int
    """End of the samples that the features may use; zeros follow."""
    finalize: FinalizePoint | None
    """The finalize that these frames reach."""
    processed: int
    """Samples of the stream that are decoded after this step."""
    last_finalize: int
    """Sample of the finalize before this part."""
    is_flush: bool = False
    """The slot's state stays as it is, because the frames' audio is incomplete."""


class ChunkLane(ABC):
    """The bookkeeping of streams; subclasses decode chunks to tokens."""

    lead_frames = 0
    """Virtual mel frames before a stream's first one."""

    def __init__(self, feature_extractor: FeatureExtractor, slots: int, tokenizer: Tokenizer | None = None) -> None:
        """Without a tokenizer, no token ends an utterance, and flushed tokens match equal ids only."""
        pieces = tokenizer.pieces if tokenizer else ()
        self.feature_extractor = feature_extractor
        self._end_token = pieces.index(END_OF_UTTERANCE) if END_OF_UTTERANCE in pieces else None
        self._spoken_forms = spoken_forms(pieces)
        self.stages = StageTimer()
        self.slots = Slots(slots)
        self._streams: dict[int, ChunkStream] = {}
        self._ready: dict[int, StreamWork] = {}
        """By number of the stream."""

    @property
    @abstractmethod
    def latencies(self) -> tuple[int, ...]:
        """In milliseconds, ascending."""

    def _chunk_steps(self, options: StreamOptions) -> int:
        """Encoder frames in a chunk: as many as the latency allows."""
        return options.latency_ms // ENCODER_FRAME_MS

    def _look_ahead_frames(self, stream: ChunkStream) -> int:
        """Mel frames after a chunk that the encoder needs."""
        return 0

    def _first_needed_frame(self, stream: ChunkStream) -> int:
        """The first mel frame that later chunks need."""
        return stream.next_frame

    @abstractmethod
    def _reset_slot(self, slot: int) -> None:
        """Initializes a slot for a new stream."""

    @abstractmethod
    def run(self, numbers: Sequence[int], now: float) -> list[StreamEvent]:
        """One step for streams that are ready and of one kind. Its events may be left for the next step."""

    @property
    def is_drained(self) -> bool:
        """Whether no step has events that are still to come."""
        return True

    def drain(self) -> list[StreamEvent]:
        """Waits for the events of the last step."""
        return []

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def capacity(self) -> int:
        return self.slots.count

    def open(self, number: int, options: StreamOptions, overdue_seconds: float = 0.0) -> bool:
        """False when all slots are in use. `overdue_seconds`: audio at its beginning that is overdue."""
        lease = self.slots.lease()
        if lease is None:
            return False
        self._reset_slot(lease.slot)
        merge, kind = EndpointMerge(number, options.endpointing, self._end_token), (self, options.latency_ms)
        flushed, chunk = FlushedTokens(self._spoken_forms), self._chunk_steps(options)
        stream = ChunkStream(number, lease, options, merge, kind, flushed, chunk, -self.lead_frames)
        stream.overdue_until = round(overdue_seconds * SAMPLE_RATE)
        self._update_chunk_end(stream)
        self._streams[number] = stream
        return True

    def push(self, number: int, samples: Samples, now: float) -> None:
        stream = self._streams[number]
        stream.vad.samples.append(samples)
        stream.clock.add_packet(len(samples), now)
        stream.last_packet_at = now
        if number not in self._ready:
            self._update_ready(stream, now)

    def finalize(self, number: int, marker: int | None, now: float) -> None:
        """Finalizes all audio pushed so far; without a marker the stream ends there."""
        stream = self._streams[number]
        stream.finalizes.append(FinalizePoint(stream.vad.samples.end, marker))
        self._update_ready(stream, now)

    def configure(self, number: int, endpointing: Endpointing) -> None:
        self._streams[number].endpoint_merge.configure(endpointing)

    def cancel(self, number: int) -> list[StreamEvent]:
        self.drop(number)
        return [Cancelled(number)]

    def drop(self, number: int) -> None:
        """Removes a stream without an event."""
        self.slots.release(self._streams.pop(number).lease)
        self._ready.pop(number, None)

    def ready_work(self) -> list[StreamWork]:
        """Streams with a complete chunk or a finalize."""
        return list(self._ready.values())

    def expected_work(self) -> list[ExpectedWork]:
        """The other streams, at the time when their chunk is complete if audio arrives in real time."""
        expected = []
        for stream in self._streams.values():
            if stream.number not in self._ready and not stream.is_closing:
                ready_at = stream.last_packet_at + (stream.chunk_end - stream.vad.samples.end) / SAMPLE_RATE
                expected.append(ExpectedWork(stream.kind, ready_at, ready_at + stream.chunk * ENCODER_FRAME_SECONDS))
        return expected

    def backlog_seconds(self, number: int) -> float:
        """Seconds of audio that was received and is not decoded yet."""
        stream = self._streams[number]
        return (stream.vad.samples.end - stream.processed) / SAMPLE_RATE

    def max_step_rows(self, latency_ms: int) -> int:
        """Rows of the largest step that calibration measures; beyond, the cost per row stays the same."""
        return CPU_STEP_ROWS

    def _max_rows(self, chunk: int) -> int:
        """Streams that may share a step."""
        return MAX_ROWS

    def _update_chunk_end(self, stream: ChunkStream) -> None:
        frames = stream.next_frame + stream.chunk * STEP_FRAMES + self._look_ahead_frames(stream)
        stream.chunk_end = samples_for_frames(frames, self.feature_extractor.config)

    def _update_ready(self, stream: ChunkStream, now: float) -> None:
        """Adds the stream to the ready ones or removes it."""
        number = stream.number
        if stream.is_closing or not (stream.finalizes or stream.vad.samples.end >= stream.chunk_end):
            self._ready.pop(number, None)
            stream.clock.reset_lead(now)
        elif number not in self._ready:
            self._ready[number] = self._work(stream, now)

    def _work(self, stream: ChunkStream, now: float) -> StreamWork:
        end = min(stream.chunk_end, stream.finalizes[0].sample) if stream.finalizes else stream.chunk_end
        complete_at = stream.clock.spoken_at(end) if end > stream.overdue_until else now
        return StreamWork(
            stream.number,
            stream.kind,
            due=complete_at + stream.chunk * ENCODER_FRAME_SECONDS,
            max_streams=self._max_rows(stream.chunk),
            realtime_from=complete_at - LEAD_SECONDS,
            arrived_at=stream.last_packet_at,
        )

    def _next_part(self, stream: ChunkStream) -> ChunkPart:
        """The stream's next chunk; a flush when a finalize comes before the chunk's end."""
        hop, first, chunk_frames = self.feature_extractor.config.hop, stream.next_frame, stream.chunk * STEP_FRAMES
        finalize = stream.finalizes[0] if stream.finalizes else None
        if finalize is not None and finalize.sample < stream.chunk_end:
            is_new = finalize.sample >= hop and finalize.sample > stream.processed
            frames = finalize.sample // hop - first if is_new else 0
            processed, known = max(stream.processed, finalize.sample), finalize.sample
            return ChunkPart(stream, first, frames, known, finalize, processed, stream.last_finalize, is_flush=True)
        if finalize is not None and finalize.sample // hop > first + chunk_frames:
            finalize = None
        processed = max(stream.processed, finalize.sample if finalize else (first + chunk_frames) * hop)
        known = stream.vad.samples.end
        return ChunkPart(stream, first, chunk_frames, known, finalize, processed, stream.last_finalize)

    def _extract_mel(self, parts: Sequence[ChunkPart], first_frames: Sequence[int], frames: int) -> Any:
        """Mel frames of each part's stream from its `first_frames` on, [B, frames, F], not normalized."""
        config = self.feature_extractor.config
        spans = np.empty((len(parts), span_samples(frames, config)), np.float32)
        known = []
        for part, first_frame, span in zip(parts, first_frames, spans, strict=True):
            known.append(self._read_samples(part, first_frame, span))
        return self.feature_extractor.extract_spans(spans, np.array(known))

    def _read_samples(self, part: ChunkPart, first_frame: int, span: Samples) -> int:
        """Fills the span for the frames from `first_frame` on; returns how many of its samples are known."""
        first = first_sample(first_frame, self.feature_extractor.config)
        part.stream.vad.samples.read_into(first, span, part.known_samples)
        return part.known_samples - first

    @staticmethod
    def _flush_mask(parts: Sequence[ChunkPart]) -> NDArray[np.bool_] | None:
        """Which parts are flushes, [B]; None when there is none, as in nearly all steps."""
        return np.array([part.is_flush for part in parts]) if any(part.is_flush for part in parts) else None

    @staticmethod
    def _stream_tokens(part: ChunkPart, emitted: Sequence[EmittedToken]) -> Sequence[Token]:
        """The new tokens, their times in the stream limited to the time between the finalizes around them."""
        since, end = part.last_finalize / SAMPLE_RATE, part.finalize.sample / SAMPLE_RATE if part.finalize else math.inf
        emitted = part.stream.flushed.remove_known(emitted, part.is_flush)
        return tuple(token.to_token(end=end, since=since) for token in emitted)

    def _advance(self, part: ChunkPart, now: float) -> None:
        """Moves the stream to the end of this part; the part's samples must have been read."""
        stream, finalize = part.stream, part.finalize
        stream.processed = part.processed
        if not part.is_flush:
            stream.next_frame += part.frames
        if finalize:
            stream.finalizes.popleft()
            stream.is_closing = finalize.marker is None
            stream.last_finalize = finalize.sample
        self._update_chunk_end(stream)
        needed = max(first_sample(self._first_needed_frame(stream), self.feature_extractor.config), 0)
        stream.vad.samples.discard_before(min(needed, stream.vad.processed))
        stream.clock.discard_before(part.processed)
        self._ready.pop(stream.number, None)
        self._update_ready(stream, now)

    def _events(self, part: ChunkPart, tokens: Sequence[Token], speech: Sequence[Speech]) -> Iterator[StreamEvent]:
        """The events of a stream's part of a step; none when the stream was dropped meanwhile."""
        stream, finalize = part.stream, part.finalize
        if self._streams.get(stream.number) is not stream:
            return
        yield from stream.endpoint_merge.merge(tokens, speech, part.processed / SAMPLE_RATE)
        if finalize is None:
            return
        reason: EndReason = "closed" if finalize.marker is None else "asked"
        yield from stream.endpoint_merge.end(finalize.sample / SAMPLE_RATE, reason)
        if finalize.marker is None:
            self.drop(stream.number)
            yield Finished(stream.number)
        else:
            yield Marker(stream.number, finalize.marker)
