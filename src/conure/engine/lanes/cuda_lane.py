"""Live streams of one cache-aware model on a device: while it works on one turn, the host prepares the next.

    run:  fill the next turn's inputs ─> wait for the last turn ─> launch ─> tell the last turn's answers

So a turn's answers come with the next one, or with `settle` where there is none. One turn at a time is under way.
The plain twin is `StreamLane`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from conure.audio.stream_features import first_sample
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.cuda.stream_state import CudaStreamState
from conure.engine.backends.cuda.stream_step import CudaStreamStep, StepInputs, StepResults
from conure.engine.lanes.chunk_lane import RATE, ChunkLane, ChunkPart
from conure.engine.lanes.endpoint_merge import EndpointMerge
from conure.engine.lanes.vad_stream import Speech
from conure.engine.messages import Answer, StreamTokens
from conure.models.config import LEAD_FRAMES, STEP_FRAMES, STEP_MS
from conure.text.tokenizer import Tokenizer
from conure.vad.silero_weights import STEP

__all__ = ["CudaLane", "sizes_of"]

SIZES = (1, 8, 32, 64, 128, 256, 512, 1024, 2048)
"""Rows that a turn may have; it is filled up with padding to the next of them."""
MOST_STEPS = 4096
"""Encoder steps in a turn: products get no faster with more, and what the convolutions make takes 130 kB a step."""


def sizes_of(chunk: int, slots: int) -> list[int]:
    """Rows of turns of so many steps a row: as few as hold all slots, as many as are allowed."""
    allowed = [size for size in SIZES if size * chunk <= MOST_STEPS or size == SIZES[0]]
    return allowed[: bisect_left(allowed, slots) + 1]


@dataclass(frozen=True)
class _UnderWay:
    turn: CudaStreamStep
    parts: Sequence[ChunkPart]
    listened: Sequence[int]
    """Where each row's detector was."""


class CudaLane(ChunkLane):
    lead = LEAD_FRAMES

    def __init__(self, runner: CudaStreamModel, slots: int, tokenizer: Tokenizer | None = None) -> None:
        super().__init__(runner.feature_extractor, slots, tokenizer)
        self.runner = runner
        self.state = CudaStreamState.allocate(runner, slots)
        self._turns: dict[tuple[int, int], CudaStreamStep] = {}
        self._under_way: _UnderWay | None = None

    @property
    def latencies(self) -> tuple[int, ...]:
        return self.runner.config.encoder.latencies

    @property
    def is_settled(self) -> bool:
        return self._under_way is None

    @torch.inference_mode()
    def prepare(self) -> None:
        """Records every turn that there can be, the largest first: the others take their memory from what it took."""
        chunks = [latency // STEP_MS for latency in self.latencies]
        wanted = [(size, chunk) for chunk in chunks for size in sizes_of(chunk, self.slots.count)]
        for size, chunk in sorted(wanted, key=lambda one: -one[0] * one[1]):
            self._turn(size, chunk)

    @torch.inference_mode()
    def run(self, numbers: Sequence[int], now: float) -> list[Answer]:
        parts = [self._part(self._streams[number]) for number in numbers]
        turn = self._turn(len(parts), parts[0].stream.chunk)
        inputs = turn.next_inputs()
        with self.stages.time("filling"):
            listened = self._fill(inputs, parts)
            for part in parts:
                self._advance(part, now)
        last = self._land()
        turn.launch(inputs)
        told = self._answers(last)
        self._under_way = _UnderWay(turn, parts, listened)
        return told

    @torch.inference_mode()
    def settle(self) -> list[Answer]:
        return self._answers(self._land())

    def _reset(self, row: int) -> None:
        """A turn is told which rows begin."""

    def largest_turn(self, latency_ms: int) -> int:
        """Streams that share a turn, at most."""
        return min(self.slots.count, self._most_rows(latency_ms // STEP_MS))

    def _most_rows(self, chunk: int) -> int:
        return sizes_of(chunk, self.slots.count)[-1]

    def _turn(self, rows: int, chunk: int) -> CudaStreamStep:
        """One that has room for so many rows."""
        sizes = sizes_of(chunk, self.slots.count)
        size = sizes[bisect_left(sizes, rows)]
        if (size, chunk) not in self._turns:
            self._turns[size, chunk] = CudaStreamStep(self.runner, self.state, size, chunk)
        return self._turns[size, chunk]

    def _fill(self, inputs: StepInputs, parts: Sequence[ChunkPart]) -> list[int]:
        """Tells where each detector was; they stand where this turn takes them."""
        config, width = self.front.config, inputs.samples.shape[1]
        numbers: list[int] = []
        listened: list[int] = []
        for part, row in zip(parts, inputs.samples.numpy(), strict=False):
            stream, ear = part.stream, part.stream.ear
            first, heard = first_sample(part.first, config), ear.listened
            lost = max(0, -first)
            begin = min(first + lost, heard)
            samples = ear.samples.view(begin, begin + width)
            row[: len(samples)] = samples
            place, known = first - begin, part.end - first
            age, steps = (part.first + LEAD_FRAMES) // STEP_FRAMES, (part.reached - heard) // STEP
            into = self.state.scratch if part.flush else stream.lease.row
            numbers += (stream.lease.row, into, age, age == 0)
            numbers += (part.frames, place, lost, known, stream.options.prompt or 0, heard - begin, steps, heard == 0)
            listened.append(heard)
            ear.listened = heard + steps * STEP
        inputs.fill(numbers, self.state.scratch)
        return listened

    def _land(self) -> tuple[_UnderWay, StepResults] | None:
        if self._under_way is None:
            return None
        with self.stages.time("waiting"):
            results = self._under_way.turn.collect()
        landed, self._under_way = (self._under_way, results), None
        return landed

    def _answers(self, landed: tuple[_UnderWay, StepResults] | None) -> list[Answer]:
        if landed is None:
            return []
        turn, results = landed
        answers: list[Answer] = []
        with self.stages.time("telling"):
            speech = Speeches(turn.parts, turn.listened, results.speech.numpy())
            for row, (part, emitted) in enumerate(zip(turn.parts, results.tokens(len(turn.parts)), strict=True)):
                hearing = part.stream.hearing
                if not emitted and part.cut is None and speech.is_told_by_outline(row, hearing):
                    if self._streams.get(part.stream.number) is part.stream:
                        answers.append(StreamTokens(part.stream.number, (), part.reached / RATE))
                    continue
                answers += self._tell(part, self._timed(part, emitted), speech.steps(row))
        return answers


class Speeches:
    """What the detectors heard in a turn, row by row."""

    def __init__(self, parts: Sequence[ChunkPart], listened: Sequence[int], probabilities: NDArray[np.float32]) -> None:
        """probabilities [B, n], of which each row's first steps count."""
        self._listened, self._probabilities = listened, probabilities
        self._counts = [(part.reached - heard) // STEP for part, heard in zip(parts, listened, strict=True)]
        heard = probabilities[: len(parts)]
        there = np.arange(probabilities.shape[1]) < np.array(self._counts)[:, None]
        self._lowest = np.where(there, heard, 1.0).min(1).tolist()
        self._highest = np.where(there, heard, 0.0).max(1).tolist()

    def is_told_by_outline(self, row: int, hearing: EndpointMerge) -> bool:
        """Whether where the last step ends and the least and the largest probability are enough: nothing happened."""
        count = self._counts[row]
        until = (self._listened[row] + STEP * count) / RATE
        return count == 0 or hearing.skim(until, self._lowest[row], self._highest[row])

    def steps(self, row: int) -> list[Speech]:
        count, listened = self._counts[row], self._listened[row]
        places = [(listened + STEP * step) / RATE for step in range(count + 1)]
        return list(zip(places, places[1:], self._probabilities[row, :count].tolist(), strict=False))
