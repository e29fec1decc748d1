"""Live streams of one unified model: each chunk is encoded in a window with its left and right context.

    [ left context | chunk | right context ] ──> encoder ──> frames of the chunk ──> greedy tokens, decoder state

The encoder's convolutions look ahead, so no encoder state can be cached: windows are encoded from the samples. The
latency is the chunk and its right context. A stream's first windows begin with the stream, and the last ones before a
finalize end there.

Features that are normalized by their mean over the clip are normalized by their mean over the window.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from conure.constants import ENCODER_FRAME_MS
from conure.engine.backends.window_runner import WindowRunner
from conure.engine.lanes.chunk_lane import ChunkPart, ChunkStream
from conure.engine.lanes.eager_lane import EagerLane
from conure.engine.messages import StreamOptions
from conure.models.config import STEP_FRAMES, AttentionContext
from conure.text.tokenizer import Tokenizer
from conure.types import Token
from conure.vad.silero import Silero

__all__ = ["WindowLane", "live_contexts"]


def live_contexts(contexts: Sequence[AttentionContext]) -> dict[int, AttentionContext]:
    """The context for each latency in milliseconds, ascending.

    Of several with the same latency, the one whose chunk and right context are most alike. The left context is rounded
    down to whole chunks, so that chunk boundaries in a window are those of training.
    """
    chosen: dict[int, AttentionContext] = {}
    for context in sorted(contexts, key=lambda context: abs((context.chunk or 0) - context.right)):
        if context.chunk is not None and context.left >= 0 and context.right >= 0:
            left = context.left // context.chunk * context.chunk
            chosen.setdefault(
                (context.chunk + context.right) * ENCODER_FRAME_MS, AttentionContext(left, context.right, context.chunk)
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

    def _chunk_steps(self, options: StreamOptions) -> int:
        chunk = self.contexts[options.latency_ms].chunk
        assert chunk is not None
        return chunk

    def _look_ahead_frames(self, stream: ChunkStream) -> int:
        return self.contexts[stream.options.latency_ms].right * STEP_FRAMES

    def _first_needed_frame(self, stream: ChunkStream) -> int:
        return max(0, stream.next_frame - self.contexts[stream.options.latency_ms].left * STEP_FRAMES)

    def _reset_slot(self, slot: int) -> None:
        self.state.reset(np.array([slot]))

    def _decode_parts(self, parts: Sequence[ChunkPart]) -> list[Sequence[Token]]:
        """Parts with as many chunks share a batch; a flush may have several chunks."""
        by_chunks: dict[int, list[int]] = defaultdict(list)
        for index, part in enumerate(parts):
            by_chunks[-(-part.frames // (part.stream.chunk * STEP_FRAMES))].append(index)
        tokens: dict[int, Sequence[Token]] = {}
        for chunks, indices in by_chunks.items():
            batch = [parts[index] for index in indices]
            tokens |= zip(indices, self._decode_batch(batch, chunks), strict=True)
        return [tokens[index] for index in range(len(parts))]

    def _decode_batch(self, parts: Sequence[ChunkPart], chunks: int) -> Iterator[Sequence[Token]]:
        """The tokens of parts with `chunks` chunks each."""
        slots = np.array([part.stream.lease.slot for part in parts])
        encoded, counts = self._encode(parts, chunks)
        with self.stages.time("decoding"):
            emitted = self.runner.decoder.decode_chunk(encoded, counts, self.state, slots, self._flush_mask(parts))
        return map(self._stream_tokens, parts, emitted)

    def _encode(self, parts: Sequence[ChunkPart], chunks: int) -> tuple[Any, Any]:
        """The encoder frames of each part, [B, chunks * C, D], and their counts, [B]. Each chunk is one window."""
        context = self.contexts[parts[0].stream.options.latency_ms]
        chunk_frames = parts[0].stream.chunk * STEP_FRAMES
        begins = np.array([part.first_frame + chunk_frames * chunk for part in parts for chunk in range(chunks)])
        first = (begins - context.left * STEP_FRAMES).clip(0)
        known = np.repeat([part.known_samples // self.feature_extractor.config.hop for part in parts], chunks)
        windows = np.minimum(begins + chunk_frames + context.right * STEP_FRAMES, known) - first
        window_parts = [part for part in parts for _ in range(chunks)]
        prompts = None
        if self.runner.config.prompts:
            prompts = np.array([part.stream.options.prompt or 0 for part in window_parts])
        with self.stages.time("features"):
            mel = self._extract_mel(window_parts, first.tolist(), int(windows.max()))
            mel = self.feature_extractor.normalize(mel, windows)
        with self.stages.time("encoder"):
            encoded, counts = self.runner.encode(mel, windows, (begins - first) // STEP_FRAMES, context, prompts)
        # All windows of a part but the last give a complete chunk, so its frames are contiguous.
        return encoded.reshape(len(parts), -1, encoded.shape[2]), counts.reshape(len(parts), chunks).sum(1)
