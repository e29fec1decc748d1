"""Live streams of one cache-aware model: each chunk is encoded once, and the slot caches what the next one needs.

mel of the chunk ──> encoder step ──> greedy tokens
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from conure.engine.backends.stream_runner import StreamRunner
from conure.engine.lanes.chunk_lane import ChunkPart
from conure.engine.lanes.eager_lane import EagerLane
from conure.models.config import LEAD_FRAMES, STEP_FRAMES
from conure.text.tokenizer import Tokenizer
from conure.types import Token
from conure.vad.silero import Silero

__all__ = ["StreamLane"]


class StreamLane(EagerLane):
    lead_frames = LEAD_FRAMES

    def __init__(
        self, runner: StreamRunner[Any], silero: Silero, slots: int, tokenizer: Tokenizer | None = None
    ) -> None:
        super().__init__(runner.feature_extractor, silero, slots, tokenizer)
        self.runner = runner
        self.state = runner.allocate(slots + 1)

    def release_memory(self) -> None:
        """Frees the memory of slots that were written; only while there is no stream."""
        self.state = self.runner.allocate(self.capacity + 1)

    @property
    def latencies(self) -> tuple[int, ...]:
        return self.runner.config.encoder.latencies

    def _reset_slot(self, slot: int) -> None:
        self.state.reset(np.array([slot]))

    def _decode_parts(self, parts: Sequence[ChunkPart]) -> list[Sequence[Token]]:
        slots = np.array([part.stream.lease.slot for part in parts])
        frames = np.array([part.frames for part in parts])
        prompts = None
        if self.runner.config.prompts:
            prompts = np.array([part.stream.options.prompt or 0 for part in parts])
        flush, chunk_frames = self._flush_mask(parts), parts[0].stream.chunk * STEP_FRAMES
        with self.stages.time("features"):
            mel = self._extract_mel(parts, [part.first_frame for part in parts], chunk_frames)
        with self.stages.time("encoder"):
            encoded, counts = self.runner.encode_chunk(mel, frames, self.state, slots, prompts, flush)
        with self.stages.time("decoding"):
            emitted = self.runner.decode_chunk(encoded, counts, self.state, slots, flush)
        return [self._stream_tokens(part, tokens) for part, tokens in zip(parts, emitted, strict=True)]
