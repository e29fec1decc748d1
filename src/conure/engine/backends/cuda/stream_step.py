"""A step of streams on a GPU, for a fixed number of rows and a fixed chunk; its buffers have fixed addresses.

    fill the inputs ──> launch ───────────────────────────────────────────────> collect
    (pinned memory)      copy in, [ mel ─> encoder ─> decoder, VAD ], copy out   (wait)

The part in brackets is a captured graph: one launch that never waits for the host. There are two sets of host inputs,
so that one is filled while the device still reads the other, and two sets of results. The graph runs a number of
decoder iterations that is nearly always enough; otherwise `collect` replays more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conure.audio.mel import MelConfig
from conure.audio.stream_features import span_samples
from conure.decoding.emitted_token import EmittedToken
from conure.decoding.label_looping import LabelLooping
from conure.engine.backends.cuda.graph_decoder import window_for
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.cuda.stream_state import CudaStreamState
from conure.models.config import STEP_FRAMES
from conure.vad.silero_weights import STEP

__all__ = ["INPUT_FIELDS", "StepInputs", "CudaStreamStep", "StepResults", "max_samples", "max_vad_steps"]

HOP = 160
EXTRA_TOKENS = 3
"""Decoder iterations of the graph, in addition to one per two encoder steps."""
INPUT_FIELDS = (
    "slot",
    "write_slot",
    "age",
    "is_new",
    "frames",
    "first_sample",
    "missing_samples",
    "valid_samples",
    "prompt",
    "vad_sample",
    "steps",
    "is_vad_new",
)
"""The integers of a row:

slot, write_slot                     the slot that is read, and the one that is written (the scratch slot for a flush)
age, is_new                          encoder steps of the stream so far; whether its decoder state is reset
frames, first_sample                 mel frames of the chunk, and the index of their first sample
missing_samples, valid_samples       samples before the start of the stream, and the end of the valid samples
prompt                               language prompt
vad_sample, steps, is_vad_new        first sample of the speech detector, its steps, and whether its state is reset
"""
SLOT, WRITE_SLOT, IS_NEW = (INPUT_FIELDS.index(name) for name in ("slot", "write_slot", "is_new"))


@dataclass(frozen=True)
class StepInputs:
    """Inputs by row. Rows that are not filled are padding."""

    numbers: Tensor
    """[12, B] int64: INPUT_FIELDS by row."""
    samples: Tensor
    """Samples of the chunk's mel frames and of the speech detector, [B, N]."""

    @staticmethod
    def allocate(rows: int, chunk: int, device: torch.device, *, pinned: bool = False) -> StepInputs:
        numbers = torch.zeros(len(INPUT_FIELDS), rows, dtype=torch.long, device=device, pin_memory=pinned)
        return StepInputs(numbers, torch.zeros(rows, max_samples(chunk), device=device, pin_memory=pinned))

    def fill(self, numbers: list[int], scratch: int) -> None:
        """Writes INPUT_FIELDS of the first rows, row by row. The others become padding, which uses the scratch slot."""
        array: NDArray[np.int64] = self.numbers.numpy()
        filled = np.array(numbers, np.int64).reshape(-1, len(INPUT_FIELDS))
        array[:, : len(filled)] = filled.T
        array[:, len(filled) :] = 0
        array[[SLOT, WRITE_SLOT], len(filled) :] = scratch
        array[IS_NEW, len(filled) :] = 1

    def copy_from(self, other: StepInputs) -> None:
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name), non_blocking=True)


@dataclass(frozen=True)
class StepResults:
    """Tokens [B, U], their counts [B], whether any row is unfinished, and speech probabilities [B, n]."""

    ids: Tensor
    steps: Tensor
    durations: Tensor
    log_probabilities: Tensor
    confidences: Tensor
    counts: Tensor
    unfinished: Tensor
    speech: Tensor

    @staticmethod
    def from_loop(loop: LabelLooping, speech: Tensor) -> StepResults:
        tokens = loop.tokens
        columns = tokens.ids, tokens.steps, tokens.durations, tokens.log_probabilities, tokens.confidences
        return StepResults(*columns, tokens.counts, loop.unfinished, speech)

    def on_host(self, *, pinned: bool) -> StepResults:
        """Allocates a copy on the host."""
        tensors = (getattr(self, part.name) for part in fields(self))
        return StepResults(*(torch.zeros_like(tensor, device="cpu", pin_memory=pinned) for tensor in tensors))

    def copy_from(self, other: StepResults) -> None:
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name), non_blocking=True)

    def tokens(self, rows: int) -> Iterator[list[EmittedToken]]:
        """Tokens of the first `rows` rows; the tensors must be on the host."""
        columns = (self.ids, self.steps, self.durations, self.log_probabilities, self.confidences)
        arrays = [column.numpy() for column in columns]
        for row, count in enumerate(self.counts[:rows].tolist()):
            values = zip(*(array[row, :count].tolist() for array in arrays), strict=True) if count else ()
            yield [EmittedToken(*value) for value in values]


class CudaStreamStep:
    def __init__(self, runner: CudaStreamModel, state: CudaStreamState, rows: int, chunk: int) -> None:
        """Captures the step by the runner's capturer."""
        self.rows, self.chunk = rows, chunk
        self._runner, self._state = runner, state
        pinned = runner.device.type == "cuda"
        runner.encoder.prepare(chunk)
        self._inputs = StepInputs.allocate(rows, chunk, runner.device)
        self._span = torch.arange(
            span_samples(chunk * STEP_FRAMES, runner.feature_extractor.config), device=runner.device
        )
        self._vad_span = torch.arange(max_vad_steps(chunk) * STEP, device=runner.device)
        window = min(chunk, window_for(rows, has_durations=bool(runner.config.durations)))
        self._loop = LabelLooping(runner.network, rows, chunk, chunk // 2 + EXTRA_TOKENS, window)
        self._results = StepResults.from_loop(self._loop, torch.zeros(rows, max_vad_steps(chunk), device=runner.device))
        self._host_inputs = [StepInputs.allocate(rows, chunk, torch.device("cpu"), pinned=pinned) for _ in range(2)]
        self._host_results = [self._results.on_host(pinned=pinned) for _ in range(2)]
        self._event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]
        self._fill_with_noise()
        self._replay_step = runner.capturer(self._run, [self._loop.steps, self._results.speech])
        self._replay_decoding = runner.capturer(self._decode)

    def next_inputs(self) -> StepInputs:
        """The set of inputs that the device is not reading, to be filled."""
        self._host_inputs.reverse()
        return self._host_inputs[0]

    def launch(self, inputs: StepInputs) -> None:
        """Launches the step and returns. `collect` must be called before the next launch."""
        self._host_results.reverse()
        with self._runner.high_priority():
            self._inputs.copy_from(inputs)
            self._replay_step()
            self._copy_results()

    def collect(self) -> StepResults:
        """Waits for the results, which stay valid until the launch after the next."""
        self._synchronise()
        while self._host_results[0].unfinished:
            with self._runner.high_priority():
                self._replay_decoding()
                self._copy_results()
            self._synchronise()
        return self._host_results[0]

    def _run(self) -> None:
        runner, state, inputs = self._runner, self._state, self._inputs
        slots, write_slots, age, is_new, frames, first, missing, valid, prompts, vad_first, steps, is_vad_new = (
            inputs.numbers.unbind()
        )
        spans = self._gather_samples(first, self._span) * (self._span >= missing[:, None])
        mel = runner.feature_extractor.extract_spans(spans, valid).to(runner.dtype)
        encoded, counts = runner.encoder.step(mel, frames, slots, age, state.encoder, write_slots)
        encoded = runner.network.apply_prompt(encoded, prompts if runner.config.prompts else None)
        decoder_state = state.decoder.gather(slots).reset_where(is_new.bool(), state.initial)
        self._loop.begin(encoded.float(), counts, decoder_state)
        self._decode()
        vad_samples = self._gather_samples(vad_first, self._vad_span)
        self._results.speech.copy_(runner.silero.detect(vad_samples, steps, is_vad_new.bool(), slots, state.vad))

    def _gather_samples(self, first: Tensor, offsets: Tensor) -> Tensor:
        """Samples of each row from `first` [B] on; indices beyond the end repeat the last sample."""
        index = (first[:, None] + offsets).clamp(0, self._inputs.samples.shape[1] - 1)
        return self._inputs.samples.gather(1, index)

    def _decode(self) -> None:
        self._loop.advance()
        self._state.decoder.scatter(self._inputs.numbers[WRITE_SLOT], self._loop.state())

    def _copy_results(self) -> None:
        self._host_results[0].copy_from(self._results)
        if self._event:
            self._event.record()

    def _synchronise(self) -> None:
        if self._event:
            self._event.synchronize()

    def _fill_with_noise(self) -> None:
        """Fills the inputs with noise for warm-up and capture, in new rows of the scratch slot."""
        self._inputs.samples.normal_(0, 0.1)
        frames, steps = self.chunk * STEP_FRAMES, max_vad_steps(self.chunk)
        scratch = self._state.scratch
        values = (scratch, scratch, 0, 1, frames, 0, 0, len(self._span), 0, 0, steps, 1)
        for number, value in zip(self._inputs.numbers, values, strict=True):
            number.fill_(value)


def max_vad_steps(chunk: int) -> int:
    """Maximal number of detector steps in a chunk, including remainders of the previous chunk and of a stream's end."""
    return ((chunk * STEP_FRAMES + 1) * HOP - 1 + STEP - 1) // STEP


def max_samples(chunk: int) -> int:
    """Maximal number of samples of a row: those of the frames, and the detector's lag and, for a flush, its lead."""
    return span_samples(chunk * STEP_FRAMES, MelConfig()) + STEP
