"""Live streams of one cache-aware model on a GPU: while the GPU runs a step, the host prepares the next one.

    run:  fill the next step's inputs ─> wait for the last step ─> launch ─> emit the last step's events

So a step's events come with the next step, or with `drain` when there is none. At most one step is in flight.
The reference implementation is `StreamLane`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from conure.audio.stream_features import first_sample
from conure.constants import ENCODER_FRAME_MS, SAMPLE_RATE
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.cuda.stream_state import CudaStreamState
from conure.engine.backends.cuda.stream_step import CudaStreamStep, StepInputs, StepResults
from conure.engine.lanes.chunk_lane import ChunkLane, ChunkPart
from conure.engine.lanes.endpoint_merge import EndpointMerge
from conure.engine.lanes.vad_stream import Speech
from conure.engine.messages import StreamEvent, StreamTokens
from conure.models.config import LEAD_FRAMES, STEP_FRAMES
from conure.text.tokenizer import Tokenizer
from conure.vad.silero_weights import STEP

__all__ = ["CudaLane", "step_sizes"]

STEP_SIZES = (1, 8, 32, 64, 128, 256, 512, 1024, 2048)
"""Rows of the captured steps; a step is padded to the next size."""
MAX_STEP_FRAMES = 4096
"""Encoder frames in a step: matrix products gain nothing from more, and the convolutions' output is 130 kB a frame."""


def step_sizes(chunk: int, slots: int) -> list[int]:
    """Step sizes for chunks of so many encoder frames: up to the first that holds all slots, within MAX_STEP_FRAMES."""
    allowed = [size for size in STEP_SIZES if size * chunk <= MAX_STEP_FRAMES or size == STEP_SIZES[0]]
    return allowed[: bisect_left(allowed, slots) + 1]


@dataclass(frozen=True)
class _InFlight:
    step: CudaStreamStep
    parts: Sequence[ChunkPart]
    vad_starts: Sequence[int]
    """Sample at which each row's speech detector began."""


class CudaLane(ChunkLane):
    lead_frames = LEAD_FRAMES

    def __init__(self, runner: CudaStreamModel, slots: int, tokenizer: Tokenizer | None = None) -> None:
        super().__init__(runner.feature_extractor, slots, tokenizer)
        self.runner = runner
        self.state = CudaStreamState.allocate(runner, slots)
        self._steps: dict[tuple[int, int], CudaStreamStep] = {}
        self._in_flight: _InFlight | None = None

    @property
    def latencies(self) -> tuple[int, ...]:
        return self.runner.config.encoder.latencies

    @property
    def is_drained(self) -> bool:
        return self._in_flight is None

    @torch.inference_mode()
    def capture_steps(self) -> None:
        """Captures steps of all sizes, the largest first: the others share its memory."""
        chunks = [latency // ENCODER_FRAME_MS for latency in self.latencies]
        shapes = [(size, chunk) for chunk in chunks for size in step_sizes(chunk, self.slots.count)]
        for size, chunk in sorted(shapes, key=lambda shape: -shape[0] * shape[1]):
            self._step(size, chunk)

    @torch.inference_mode()
    def run(self, numbers: Sequence[int], now: float) -> list[StreamEvent]:
        parts = [self._next_part(self._streams[number]) for number in numbers]
        step = self._step(len(parts), parts[0].stream.chunk)
        inputs = step.next_inputs()
        with self.stages.time("filling"):
            vad_starts = self._fill(inputs, parts)
            for part in parts:
                self._advance(part, now)
        finished = self._collect()
        step.launch(inputs)
        events = self._finished_events(finished)
        self._in_flight = _InFlight(step, parts, vad_starts)
        return events

    @torch.inference_mode()
    def drain(self) -> list[StreamEvent]:
        return self._finished_events(self._collect())

    def _reset_slot(self, slot: int) -> None:
        """The inputs of a step mark the rows whose stream begins."""

    def max_step_rows(self, latency_ms: int) -> int:
        return min(self.slots.count, self._max_rows(latency_ms // ENCODER_FRAME_MS))

    def _max_rows(self, chunk: int) -> int:
        return step_sizes(chunk, self.slots.count)[-1]

    def _step(self, rows: int, chunk: int) -> CudaStreamStep:
        """The smallest step for so many rows."""
        sizes = step_sizes(chunk, self.slots.count)
        size = sizes[bisect_left(sizes, rows)]
        if (size, chunk) not in self._steps:
            self._steps[size, chunk] = CudaStreamStep(self.runner, self.state, size, chunk)
        return self._steps[size, chunk]

    def _fill(self, inputs: StepInputs, parts: Sequence[ChunkPart]) -> list[int]:
        """Fills the inputs and advances the speech detectors; returns the sample at which each of them began."""
        config, width = self.feature_extractor.config, inputs.samples.shape[1]
        fields: list[int] = []
        vad_starts: list[int] = []
        for part, row in zip(parts, inputs.samples.numpy(), strict=False):
            stream, vad = part.stream, part.stream.vad
            first, vad_start = first_sample(part.first_frame, config), vad.processed
            missing = max(0, -first)
            begin = min(first + missing, vad_start)
            samples = vad.samples.view(begin, begin + width)
            row[: len(samples)] = samples
            offset, known = first - begin, part.known_samples - first
            age, vad_steps = (part.first_frame + LEAD_FRAMES) // STEP_FRAMES, (part.processed - vad_start) // STEP
            slot = stream.lease.slot
            target, prompt = self.state.scratch if part.is_flush else slot, stream.options.prompt or 0
            fields += (slot, target, age, age == 0)
            fields += (part.frames, offset, missing, known, prompt, vad_start - begin, vad_steps, vad_start == 0)
            vad_starts.append(vad_start)
            vad.processed = vad_start + vad_steps * STEP
        inputs.fill(fields, self.state.scratch)
        return vad_starts

    def _collect(self) -> tuple[_InFlight, StepResults] | None:
        """Waits for the step in flight."""
        if self._in_flight is None:
            return None
        with self.stages.time("waiting"):
            results = self._in_flight.step.collect()
        finished, self._in_flight = (self._in_flight, results), None
        return finished

    def _finished_events(self, finished: tuple[_InFlight, StepResults] | None) -> list[StreamEvent]:
        if finished is None:
            return []
        step, results = finished
        events: list[StreamEvent] = []
        with self.stages.time("telling"):
            speech = SpeechBatch(step.parts, step.vad_starts, results.speech.numpy())
            for row, (part, emitted) in enumerate(zip(step.parts, results.tokens(len(step.parts)), strict=True)):
                stream = part.stream
                if not emitted and part.finalize is None and speech.skip(row, stream.endpoint_merge):
                    if self._streams.get(stream.number) is stream:
                        events.append(StreamTokens(stream.number, (), part.processed / SAMPLE_RATE))
                    continue
                events += self._events(part, self._stream_tokens(part, emitted), speech.steps(row))
        return events


class SpeechBatch:
    """The speech probabilities of a step, row by row."""

    def __init__(
        self, parts: Sequence[ChunkPart], vad_starts: Sequence[int], probabilities: NDArray[np.float32]
    ) -> None:
        """probabilities [B, n]: only the first detector steps of each row are valid."""
        self._vad_starts, self._probabilities = vad_starts, probabilities
        self._counts = [(part.processed - start) // STEP for part, start in zip(parts, vad_starts, strict=True)]
        rows = probabilities[: len(parts)]
        is_valid = np.arange(probabilities.shape[1]) < np.array(self._counts)[:, None]
        self._lowest = np.where(is_valid, rows, 1.0).min(1).tolist()
        self._highest = np.where(is_valid, rows, 0.0).max(1).tolist()

    def skip(self, row: int, endpoint_merge: EndpointMerge) -> bool:
        """Skips a row whose extreme probabilities show that no speech began or ended; False when one may have."""
        count = self._counts[row]
        until = (self._vad_starts[row] + STEP * count) / SAMPLE_RATE
        return count == 0 or endpoint_merge.skip(until, self._lowest[row], self._highest[row])

    def steps(self, row: int) -> list[Speech]:
        count, vad_start = self._counts[row], self._vad_starts[row]
        bounds = [(vad_start + STEP * step) / SAMPLE_RATE for step in range(count + 1)]
        return list(zip(bounds, bounds[1:], self._probabilities[row, :count].tolist(), strict=False))
