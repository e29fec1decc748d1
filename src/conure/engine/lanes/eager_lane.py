"""Live streams of a model that is run here and now: when a turn returns, its answers are made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from conure.audio.stream_features import FeatureExtractor
from conure.engine.lanes.chunk_lane import ChunkLane, ChunkPart
from conure.engine.lanes.vad_stream import listen
from conure.engine.messages import Answer
from conure.text.tokenizer import Tokenizer
from conure.types import Token
from conure.vad.silero import Silero

__all__ = ["EagerLane"]


class EagerLane(ChunkLane):
    def __init__(self, front: FeatureExtractor, silero: Silero, slots: int, tokenizer: Tokenizer | None = None) -> None:
        super().__init__(front, slots, tokenizer)
        self.silero = silero

    @abstractmethod
    def _recognize(self, parts: Sequence[ChunkPart]) -> list[Sequence[Token]]:
        """The tokens of each part, in times of the stream."""

    def run(self, numbers: Sequence[int], now: float) -> list[Answer]:
        parts = [self._part(self._streams[number]) for number in numbers]
        spoken = [part for part in parts if part.frames > 0]
        found = zip(spoken, self._recognize(spoken) if spoken else [], strict=True)
        tokens = {part.stream.number: emitted for part, emitted in found}
        with self.stages.time("listening"):
            speech = listen(self.silero, [(part.stream.ear, part.reached) for part in parts])
        for part in parts:
            self._advance(part, now)
        return [
            answer
            for part, steps in zip(parts, speech, strict=True)
            for answer in self._tell(part, tokens.get(part.stream.number, ()), steps)
        ]
