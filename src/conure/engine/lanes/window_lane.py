"""Live streams of one unified model: each chunk is encoded with what is to its left and right, and forgotten.

    [ left context | chunk | right context ] ──> encoder ──> the chunk's steps ──> greedy tokens, state carried on

Its convolutions look ahead, so nothing but samples can be kept from chunk to chunk. Latency is the chunk and what is
to its right. A stream's first windows begin with it, the last ones before a cut end there.

A feature's mean over the clip cannot be known, so where the model wants it taken out it is the window's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from conure.engine.backends.window_runner import WindowRunner
from conure.engine.lanes.chunk_lane import ChunkPart, ChunkStream
from conure.engine.lanes.eager_lane import EagerLane
from conure.engine.messages import StreamOptions
from conure.models.config import STEP_FRAMES, STEP_MS, AttentionContext
from conure.text.tokenizer import Tokenizer
from conure.types import Token
from conure.vad.silero import Silero

__all__ = ["WindowLane", "live_contexts"]


def live_contexts(contexts: Sequence[AttentionContext]) -> dict[int, AttentionContext]:
    """The context for each latency in milliseconds, the least first.

    Where several give the same latency it is the one whose chunk and right context are most alike. The left context
    is of whole chunks, so that in a window chunks are where training had them.
    """
    chosen: dict[int, AttentionContext] = {}
    for context in sorted(contexts, key=lambda context: abs((context.chunk or 0) - context.right)):
        if context.chunk is not None and context.left >= 0 and context.right >= 0:
            left = context.left // context.chunk * context.chunk
            chosen.setdefault(
                (context.chunk + context.right) * STEP_MS, AttentionContext(left, context.right, context.chunk)
            )
    return dict(sorted(chosen.items()))


class WindowLane(EagerLane):
    def __init__(self, runner: WindowRunner, silero: Silero, slots: int, tokenizer: Tokenizer | None = None) -> None:
        super().__init__(runner.feature_extractor, silero, slots, tokenizer)
        self.runner = runner
        self.contexts = live_contexts(runner.config.encoder.contexts)
        self.state = runner.decoder.allocate(slots + 1)

    @property
    def latencies(self) -> tuple[int, ...]:
        return tuple(self.contexts)

    def _chunk(self, options: StreamOptions) -> int:
        chunk = self.contexts[options.latency_ms].chunk
        assert chunk is not None
        return chunk

    def _beyond(self, stream: ChunkStream) -> int:
        return self.contexts[stream.options.latency_ms].right * STEP_FRAMES

    def _kept(self, stream: ChunkStream) -> int:
        return max(0, stream.frames - self.contexts[stream.options.latency_ms].left * STEP_FRAMES)

    def _reset(self, row: int) -> None:
        self.state.reset(np.array([row]))

    def _recognize(self, parts: Sequence[ChunkPart]) -> list[Sequence[Token]]:
        """Parts of as many chunks go together; a flush may have several."""
        by_chunks: dict[int, list[int]] = defaultdict(list)
        for place, part in enumerate(parts):
            by_chunks[-(-part.frames // (part.stream.chunk * STEP_FRAMES))].append(place)
        found: dict[int, Sequence[Token]] = {}
        for chunks, places in by_chunks.items():
            some = [parts[place] for place in places]
            found |= zip(places, self._hear(some, chunks), strict=True)
        return [found[place] for place in range(len(parts))]

    def _hear(self, parts: Sequence[ChunkPart], chunks: int) -> Iterator[Sequence[Token]]:
        """The tokens of parts that have so many chunks each."""
        rows = np.array([part.stream.lease.row for part in parts])
        encoded, counts = self._encode(parts, chunks)
        with self.stages.time("decoding"):
            found = self.runner.decoder.decode_chunk(encoded, counts, self.state, rows, self._flushes(parts))
        return map(self._timed, parts, found)

    def _encode(self, parts: Sequence[ChunkPart], chunks: int) -> tuple[Any, Any]:
        """The steps of each part's chunks, [B, chunks * C, D], and how many they are, [B]. A chunk is a window."""
        context = self.contexts[parts[0].stream.options.latency_ms]
        size = parts[0].stream.chunk * STEP_FRAMES
        begins = np.array([part.first + size * chunk for part in parts for chunk in range(chunks)])
        first = (begins - context.left * STEP_FRAMES).clip(0)
        known = np.repeat([part.end // self.front.config.hop for part in parts], chunks)
        windows = np.minimum(begins + size + context.right * STEP_FRAMES, known) - first
        whose = [part for part in parts for _ in range(chunks)]
        prompts = None
        if self.runner.config.prompts:
            prompts = np.array([part.stream.options.prompt or 0 for part in whose])
        with self.stages.time("features"):
            mel = self.front.normalize(self._mel(whose, first.tolist(), int(windows.max())), windows)
        with self.stages.time("encoder"):
            encoded, counts = self.runner.encode(mel, windows, (begins - first) // STEP_FRAMES, context, prompts)
        # Of several windows all but the last give whole chunks.
        return encoded.reshape(len(parts), -1, encoded.shape[2]), counts.reshape(len(parts), chunks).sum(1)
