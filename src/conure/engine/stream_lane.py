"""Live streams of one cache-aware model: who has a whole chunk, and one turn for some of them.

    samples ──> mel of the chunk ──> encoder step ──> greedy tokens ─┐
        └─────> speech probabilities, every 32 ms ──────────────────┴──> endpointer ──> answers, in the stream's order

A stream is cut into clips by `finalize`: what is left of the clip is worked in as its last, shorter chunk, and the row
starts afresh with the next sample. Between such cuts the tokens are those of the whole clip.

A stream that ends keeps its row until its last answer is made, then it is gone: answers are made in `run` alone, so
none can be for a later tenant of the row.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from conure.audio.backlog import Backlog
from conure.audio.features_stream import first_sample, mel_of_spans, samples_of, span_samples
from conure.decoding.hypothesis import STEP_SECONDS
from conure.decoding.transducer import decode_transducer
from conure.engine.messages import (
    Answer,
    Cancelled,
    Finished,
    Heard,
    Marker,
    Samples,
    SpeechStarted,
    StreamOptions,
    UtteranceEnded,
)
from conure.engine.scheduler import Expected, LiveWork
from conure.engine.slots import Lease, Slots
from conure.engine.stream_runner import StreamRunner
from conure.models.config import STEP_FRAMES
from conure.models.subsampling import LEAD_FRAMES
from conure.types import Token
from conure.vad.endpoints import Began, Endpointer, Endpointing
from conure.vad.silero import STEP as VAD_SAMPLES
from conure.vad.silero import Silero, SileroState

__all__ = ["StreamLane"]

RATE = 16_000
STEP_MS = 80

_Speech = tuple[float, float, float]
"""Start, end and probability of a step of the speech detector."""


@dataclass(slots=True)
class _Cut:
    """Where a clip of the stream ends."""

    sample: int
    marker: int | None
    """None: the stream ends, too."""


@dataclass(slots=True)
class _Stream:
    number: int
    lease: Lease
    options: StreamOptions
    endpointer: Endpointer
    samples: Backlog = field(default_factory=Backlog)
    origin: int = 0
    """The sample at which the clip began."""
    frames: int = -LEAD_FRAMES
    """Frames of the clip that were worked in; the first chunk begins with virtual ones."""
    cuts: deque[_Cut] = field(default_factory=deque)
    vad: SileroState = field(default_factory=SileroState)
    listened: int = 0
    """Samples that the speech detector has heard."""
    since: float | None = None
    """When it had a whole chunk."""
    pushed: float = 0.0
    """When samples came last."""

    @property
    def chunk(self) -> int:
        return self.options.latency_ms // STEP_MS


@dataclass(frozen=True, slots=True)
class _Part:
    """What one stream brings to a turn."""

    stream: _Stream
    frames: int
    """At most 8 a step of the chunk."""
    begin: int
    """The place of its first sample, for the features."""
    end: int
    """Where the samples end that the features may see."""
    cut: _Cut | None
    """The cut that these frames reach."""
    reached: int
    """The place up to which the stream is worked in with this turn."""


class StreamLane:
    def __init__(self, runner: StreamRunner, silero: Silero, slots: int, end_token: int | None = None) -> None:
        self.runner = runner
        self.silero = silero
        self.end_token = end_token
        self.slots = Slots(slots)
        self.state = runner.allocate(slots + 1)
        self._streams: dict[int, _Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def capacity(self) -> int:
        return self.slots.count

    @property
    def latencies(self) -> tuple[int, ...]:
        """In milliseconds, the least first."""
        return tuple(sorted((context.right + 1) * STEP_MS for context in self.runner.config.encoder.contexts))

    def open(self, number: int, options: StreamOptions) -> bool:
        """Whether there was a row for it."""
        lease = self.slots.lease()
        if lease is None:
            return False
        self.state.reset(self._rows([lease.row]))
        self._streams[number] = _Stream(number, lease, options, Endpointer(options.endpointing))
        return True

    def push(self, number: int, samples: Samples, now: float) -> None:
        stream = self._streams[number]
        stream.samples.push(samples)
        stream.pushed = now
        self._see(stream, now)

    def finalize(self, number: int, marker: int | None, now: float) -> None:
        """A cut after what was pushed; without a marker the stream ends there."""
        stream = self._streams[number]
        stream.cuts.append(_Cut(stream.samples.end, marker))
        self._see(stream, now)

    def configure(self, number: int, endpointing: Endpointing) -> None:
        self._streams[number].endpointer.settings = endpointing

    def cancel(self, number: int) -> list[Answer]:
        self.drop(number)
        return [Cancelled(number)]

    def drop(self, number: int) -> None:
        """It is gone, without an answer."""
        self.slots.release(self._streams.pop(number).lease)

    def ready(self) -> list[LiveWork]:
        """Streams that have a whole chunk, or a cut."""
        return [
            LiveWork(stream.number, (self, stream.chunk), stream.since + stream.chunk * STEP_SECONDS)
            for stream in self._streams.values()
            if stream.since is not None
        ]

    def expected(self) -> list[Expected]:
        """Those that will, as they would if samples came as fast as they are spoken."""
        found = []
        for stream in self._streams.values():
            if stream.since is None:
                seconds = stream.chunk * STEP_SECONDS
                ready = stream.pushed + self._missing(stream) / RATE
                found.append(Expected((self, stream.chunk), ready, ready + seconds))
        return found

    def behind(self, number: int) -> float:
        """Seconds of audio that came and were not worked in."""
        stream = self._streams[number]
        hop = self.runner.front.config.hop
        return (stream.samples.end - stream.origin - max(stream.frames, 0) * hop) / RATE

    @torch.inference_mode()
    def run(self, numbers: Iterable[int], now: float) -> list[Answer]:
        """A turn for streams that are ready and have chunks of one size."""
        parts = [self._part(self._streams[number]) for number in numbers]
        tokens = self._recognize([part for part in parts if part.frames > 0])
        speech = self._listen(parts)
        answers: list[Answer] = []
        for part in parts:
            number = part.stream.number
            answers += self._deliver(part, tokens.get(number, ()), speech.get(number, ()))
            if number in self._streams:
                self._see(part.stream, now)
        return answers

    def _see(self, stream: _Stream, now: float) -> None:
        """Notes since when it is ready."""
        whole = self._missing(stream) <= 0
        stream.since = (now if stream.since is None else stream.since) if whole or stream.cuts else None

    def _missing(self, stream: _Stream) -> int:
        """Samples until the next chunk is whole."""
        needed = samples_of(stream.frames + stream.chunk * STEP_FRAMES, self.runner.front.config)
        return stream.origin + needed - stream.samples.end

    def _part(self, stream: _Stream) -> _Part:
        config = self.runner.front.config
        cut = stream.cuts[0] if stream.cuts else None
        most = stream.chunk * STEP_FRAMES
        end = cut.sample if cut else stream.samples.end
        left = (end - stream.origin) // config.hop - stream.frames if cut else most
        frames = min(left, most) if left > 0 and end - stream.origin >= config.hop else 0
        begin = stream.origin + first_sample(stream.frames, config)
        if left > most:
            cut = None
        reached = cut.sample if cut else stream.origin + max(stream.frames + frames, 0) * config.hop
        return _Part(stream, frames, begin, end, cut, reached)

    def _recognize(self, parts: Sequence[_Part]) -> dict[int, tuple[Token, ...]]:
        """The tokens of each stream."""
        if not parts:
            return {}
        rows = self._rows([part.stream.lease.row for part in parts])
        frames = torch.tensor([part.frames for part in parts], device=rows.device)
        prompts = None
        if self.runner.config.prompts:
            prompts = torch.tensor([part.stream.options.prompt or 0 for part in parts], device=rows.device)
        encoded, counts = self.runner.step(self._mel(parts), frames, self.state, rows, prompts)
        found, decoder = decode_transducer(self.runner.heads, encoded, counts, self.state.decoder.gather(rows))
        self.state.decoder.scatter(rows, decoder)
        return {
            part.stream.number: tuple(token.timed(part.stream.origin / RATE) for token in emitted)
            for part, emitted in zip(parts, found, strict=True)
        }

    def _mel(self, parts: Sequence[_Part]) -> Tensor:
        """[B, 8C, F]"""
        config = self.runner.front.config
        spans = np.empty((len(parts), span_samples(parts[0].stream.chunk * STEP_FRAMES, config)), np.float32)
        for part, span in zip(parts, spans, strict=True):
            # The clip before is not to be heard in this one.
            lost = max(0, part.stream.origin - part.begin)
            span[:lost] = 0
            part.stream.samples.read(part.begin + lost, span[lost:], part.end)
        known = torch.tensor([part.end - part.begin for part in parts])
        device = self.runner.front.window.device
        return mel_of_spans(self.runner.front, torch.from_numpy(spans).to(device), known.to(device))

    def _deliver(self, part: _Part, tokens: Sequence[Token], speech: Sequence[_Speech]) -> Iterator[Answer]:
        """What follows from a stream's part of the turn."""
        stream = part.stream
        stream.frames += part.frames
        yield from self._tell(part, tokens, speech)
        if part.cut:
            yield from self._end_clip(stream, part.cut)
        self._forget(stream)

    def _tell(self, part: _Part, tokens: Sequence[Token], speech: Sequence[_Speech]) -> Iterator[Answer]:
        """Tokens and steps of the detector, merged by time, as the endpointer sees them."""
        stream, number, pending = part.stream, part.stream.number, deque(tokens)
        said: list[Token] = []
        for start, end, probability in speech:
            while pending and pending[0].start + STEP_SECONDS <= end:
                yield from self._say(stream, pending.popleft(), said)
            event = stream.endpointer.step(start, end, probability)
            if isinstance(event, Began):
                yield SpeechStarted(number, event.at)
            elif event is not None:
                yield Heard(number, tuple(said), event.at)
                said.clear()
                yield UtteranceEnded(number, event.at, event.reason)
        while pending:
            yield from self._say(stream, pending.popleft(), said)
        yield Heard(number, tuple(said), part.reached / RATE)

    def _say(self, stream: _Stream, token: Token, said: list[Token]) -> Iterator[Answer]:
        said.append(token)
        began = stream.endpointer.token(token.start, token.end, token.id == self.end_token)
        if began:
            yield SpeechStarted(stream.number, began.at)

    def _listen(self, parts: Sequence[_Part]) -> dict[int, list[_Speech]]:
        """The detector's steps of each stream up to where its part reaches."""
        by_count: dict[int, list[_Stream]] = defaultdict(list)
        for part in parts:
            by_count[(part.reached - part.stream.listened) // VAD_SAMPLES].append(part.stream)
        heard: dict[int, list[_Speech]] = {}
        for count, streams in by_count.items():
            if count <= 0:
                continue
            samples = np.empty((len(streams), count * VAD_SAMPLES), np.float32)
            for stream, row in zip(streams, samples, strict=True):
                stream.samples.read(stream.listened, row)
            probabilities, states = self.silero.listen_together(samples, [stream.vad for stream in streams])
            for stream, row, state in zip(streams, probabilities, states, strict=True):
                places = (stream.listened + VAD_SAMPLES * np.arange(count + 1)) / RATE
                heard[stream.number] = list(zip(places[:-1].tolist(), places[1:].tolist(), row.tolist(), strict=True))
                stream.vad = state
                stream.listened += count * VAD_SAMPLES
        return heard

    def _end_clip(self, stream: _Stream, cut: _Cut) -> Iterator[Answer]:
        stream.cuts.popleft()
        ended = stream.endpointer.end(cut.sample / RATE, "closed" if cut.marker is None else "asked")
        if ended:
            yield UtteranceEnded(stream.number, ended.at, ended.reason)
        if cut.marker is None:
            self.drop(stream.number)
            yield Finished(stream.number)
            return
        stream.origin, stream.frames, stream.since = cut.sample, -LEAD_FRAMES, None
        self.state.reset(self._rows([stream.lease.row]))
        yield Marker(stream.number, cut.marker)

    def _forget(self, stream: _Stream) -> None:
        needed = stream.origin + max(first_sample(stream.frames, self.runner.front.config), 0)
        stream.samples.forget(min(needed, stream.listened))

    def _rows(self, rows: list[int]) -> Tensor:
        return torch.tensor(rows, device=self.runner.heads.device)
