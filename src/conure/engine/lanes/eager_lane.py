"""Live streams of a model that runs synchronously: the events of a step are emitted when it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from conure.audio.stream_features import FeatureExtractor
from conure.engine.lanes.chunk_lane import ChunkLane, ChunkPart
from conure.engine.lanes.vad_stream import detect_speech
from conure.engine.messages import StreamEvent
from conure.text.tokenizer import Tokenizer
from conure.types import Token
from conure.vad.silero import Silero

__all__ = ["EagerLane"]


class EagerLane(ChunkLane):
    def __init__(
        self, feature_extractor: FeatureExtractor, silero: Silero, slots: int, tokenizer: Tokenizer | None = None
    ) -> None:
        super().__init__(feature_extractor, slots, tokenizer)
        self.silero = silero

    @abstractmethod
    def _decode_parts(self, parts: Sequence[ChunkPart]) -> list[Sequence[Token]]:
        """The tokens of each part, with times of the stream."""

    def run(self, numbers: Sequence[int], now: float) -> list[StreamEvent]:
        parts = [self._next_part(self._streams[number]) for number in numbers]
        decoded = [part for part in parts if part.frames > 0]
        results = zip(decoded, self._decode_parts(decoded) if decoded else [], strict=True)
        tokens = {part.stream.number: part_tokens for part, part_tokens in results}
        with self.stages.time("listening"):
            speech = detect_speech(self.silero, [(part.stream.vad, part.processed) for part in parts])
        for part in parts:
            self._advance(part, now)
        return [
            event
            for part, steps in zip(parts, speech, strict=True)
            for event in self._events(part, tokens.get(part.stream.number, ()), steps)
        ]
