"""Live streams of one unified model: each chunk is encoded with what is to its left and right, and forgotten.

    [ left context | chunk | right context ] ──> encoder ──> the chunk's steps ──> greedy tokens, state carried on

Its convolutions look ahead, so nothing but samples can be kept from chunk to chunk. Latency is the chunk and what is
to its right. A stream's first windows begin with the clip, the last ones end with it.

A feature's mean over the clip cannot be known, so where the model wants it taken out it is the window's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from conure.engine.buffered_runner import BufferedRunner
from conure.engine.chunk_lane import RATE, Part, Stream
from conure.engine.direct_lane import DirectLane
from conure.engine.messages import StreamOptions
from conure.models.config import STEP_FRAMES, STEP_MS, AttentionContext
from conure.types import Token
from conure.vad.silero import Silero

__all__ = ["BufferedLane", "live_contexts"]


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


class BufferedLane(DirectLane):
    def __init__(self, runner: BufferedRunner, silero: Silero, slots: int, end_token: int | None = None) -> None:
        super().__init__(runner.front, silero, slots, end_token)
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

    def _beyond(self, stream: Stream) -> int:
        return self.contexts[stream.options.latency_ms].right * STEP_FRAMES

    def _kept(self, stream: Stream) -> int:
        return max(0, stream.frames - self.contexts[stream.options.latency_ms].left * STEP_FRAMES)

    def _reset(self, row: int) -> None:
        self.state.reset(np.array([row]))

    def _recognize(self, parts: Sequence[Part]) -> list[Sequence[Token]]:
        rows = np.array([part.stream.lease.row for part in parts])
        encoded, counts = self._encode(parts)
        with self.stages.time("decoding"):
            found = self.runner.decoder.decode_rows(encoded, counts, self.state, rows)
        return [
            tuple(token.timed(part.stream.origin / RATE) for token in emitted)
            for part, emitted in zip(parts, found, strict=True)
        ]

    def _encode(self, parts: Sequence[Part]) -> tuple[Any, Any]:
        """The steps of each part's chunk, [B, C, D], and how many they are, [B]."""
        first = [self._kept(part.stream) for part in parts]
        until = [self._window_end(part) for part in parts]
        windows = np.subtract(until, first)
        left = np.array([(part.stream.frames - begin) // STEP_FRAMES for part, begin in zip(parts, first, strict=True)])
        prompts = None
        if self.runner.config.prompts:
            prompts = np.array([part.stream.options.prompt or 0 for part in parts])
        context = self.contexts[parts[0].stream.options.latency_ms]
        with self.stages.time("features"):
            mel = self.front.normalize(self._mel(parts, first, int(windows.max())), windows)
        with self.stages.time("encoder"):
            return self.runner.encode(mel, windows, left, context, prompts)

    def _window_end(self, part: Part) -> int:
        """The frame after the last one that the chunk may see."""
        whole = part.stream.frames + part.stream.chunk * STEP_FRAMES + self._beyond(part.stream)
        if not part.stream.cuts:
            return whole
        return min(whole, (part.end - part.stream.origin) // self.front.config.hop)
