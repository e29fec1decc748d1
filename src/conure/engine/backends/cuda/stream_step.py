"""A turn of live streams on a device, for one number of rows and one size of chunk; its buffers never move.

    fill the inputs ──> launch ──────────────────────────────────────────────────> land
    (pinned memory)      copy in, [ mel ─> encoder ─> decoder, detector ], copy out   (wait)

What is in brackets is recorded: one launch, and nothing in it waits for the host. There are two sets of inputs, so that
one is filled while the device still reads the other, and two of results. The decoder makes a number of steps that is
nearly always enough; where it was not, `land` has it make more.
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
MORE_TOKENS = 3
"""Tokens of a chunk, beyond one in two steps, that the first steps of the decoder are enough for."""
INPUT_FIELDS = ("slot", "into", "age", "fresh", "frames", "place", "lost", "known", "prompt", "ear", "steps", "begins")
"""Slot of the stream; the one that is written, which is the scratch slot where the chunk is flushed;
encoder steps it has had; whether its decoder begins anew; frames of the chunk; where in the samples the first frame's
begin, how many of them are before the stream, and up to which they are known; the prompt; where the detector goes on,
how many steps it makes, and whether it begins anew."""
SLOT, INTO, FRESH = (INPUT_FIELDS.index(name) for name in ("slot", "into", "fresh"))


@dataclass(frozen=True)
class StepInputs:
    """What differs from row to row. Rows that nobody fills are padding."""

    numbers: Tensor
    """[12, B] int64, a row for each of NUMBERS."""
    samples: Tensor
    """What the chunk's frames are made of, and what the detector hears, [B, N]."""

    @staticmethod
    def allocate(rows: int, chunk: int, device: torch.device, *, pinned: bool = False) -> StepInputs:
        numbers = torch.zeros(len(INPUT_FIELDS), rows, dtype=torch.long, device=device, pin_memory=pinned)
        return StepInputs(numbers, torch.zeros(rows, max_samples(chunk), device=device, pin_memory=pinned))

    def fill(self, numbers: list[int], scratch: int) -> None:
        """NUMBERS of the first rows, row after row; the others are padding, which reads and writes slot `scratch`."""
        array: NDArray[np.int64] = self.numbers.numpy()
        given = np.array(numbers, np.int64).reshape(-1, len(INPUT_FIELDS))
        array[:, : len(given)] = given.T
        array[:, len(given) :] = 0
        array[[SLOT, INTO], len(given) :] = scratch
        array[FRESH, len(given) :] = 1

    def write(self, other: StepInputs) -> None:
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name), non_blocking=True)


@dataclass(frozen=True)
class StepResults:
    """Tokens [B, U], how many each row has, whether a row has more, and probabilities of speech [B, n]."""

    ids: Tensor
    steps: Tensor
    durations: Tensor
    log_probabilities: Tensor
    confidences: Tensor
    counts: Tensor
    unfinished: Tensor
    speech: Tensor

    @staticmethod
    def of(loop: LabelLooping, speech: Tensor) -> StepResults:
        tokens = loop.tokens
        columns = tokens.ids, tokens.steps, tokens.durations, tokens.log_probabilities, tokens.confidences
        return StepResults(*columns, tokens.counts, loop.unfinished, speech)

    def on_host(self, *, pinned: bool) -> StepResults:
        """Room for a copy."""
        tensors = (getattr(self, part.name) for part in fields(self))
        return StepResults(*(torch.zeros_like(tensor, device="cpu", pin_memory=pinned) for tensor in tensors))

    def write(self, other: StepResults) -> None:
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name), non_blocking=True)

    def tokens(self, rows: int) -> Iterator[list[EmittedToken]]:
        """Of each of the first so many rows, in host memory."""
        columns = (self.ids, self.steps, self.durations, self.log_probabilities, self.confidences)
        arrays = [column.numpy() for column in columns]
        for row, count in enumerate(self.counts[:rows].tolist()):
            values = zip(*(array[row, :count].tolist() for array in arrays), strict=True) if count else ()
            yield [EmittedToken(*value) for value in values]


class CudaStreamStep:
    def __init__(self, runner: CudaStreamModel, state: CudaStreamState, rows: int, chunk: int) -> None:
        """Records it, where the runner's recorder does."""
        self.rows, self.chunk = rows, chunk
        self._runner, self._state = runner, state
        pinned = runner.device.type == "cuda"
        runner.encoder.prepare(chunk)
        self._given = StepInputs.allocate(rows, chunk, runner.device)
        self._span = torch.arange(
            span_samples(chunk * STEP_FRAMES, runner.feature_extractor.config), device=runner.device
        )
        self._sound = torch.arange(max_vad_steps(chunk) * STEP, device=runner.device)
        window = min(chunk, window_for(rows, jumps=bool(runner.config.durations)))
        self._loop = LabelLooping(runner.network, rows, chunk, chunk // 2 + MORE_TOKENS, window)
        self._made = StepResults.of(self._loop, torch.zeros(rows, max_vad_steps(chunk), device=runner.device))
        self._sets = [StepInputs.allocate(rows, chunk, torch.device("cpu"), pinned=pinned) for _ in range(2)]
        self._landed = [self._made.on_host(pinned=pinned) for _ in range(2)]
        self._event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]
        self._rehearse()
        self._play = runner.capturer(self._work, [self._loop.steps, self._made.speech])
        self._play_more = runner.capturer(self._decode)

    def next_inputs(self) -> StepInputs:
        """Those that the device does not read, to be filled."""
        self._sets.reverse()
        return self._sets[0]

    def launch(self, inputs: StepInputs) -> None:
        """Returns at once; nothing else may be launched before it has landed."""
        self._landed.reverse()
        with self._runner.high_priority():
            self._given.write(inputs)
            self._play()
            self._bring()

    def collect(self) -> StepResults:
        """Waits. What is returned stays until the launch after the next."""
        self._wait()
        while self._landed[0].unfinished:
            with self._runner.high_priority():
                self._play_more()
                self._bring()
            self._wait()
        return self._landed[0]

    def _work(self) -> None:
        runner, state, given = self._runner, self._state, self._given
        slots, into, age, fresh, frames, place, lost, known, prompts, ear, steps, begins = given.numbers.unbind()
        spans = self._from(place, self._span) * (self._span >= lost[:, None])
        mel = runner.feature_extractor.extract_spans(spans, known).to(runner.dtype)
        encoded, counts = runner.encoder.step(mel, frames, slots, age, state.encoder, into)
        encoded = runner.network.apply_prompt(encoded, prompts if runner.config.prompts else None)
        spoken = state.decoder.gather(slots).reset_where(fresh.bool(), state.initial)
        self._loop.begin(encoded.float(), counts, spoken)
        self._decode()
        sounds = self._from(ear, self._sound)
        self._made.speech.copy_(runner.silero.detect(sounds, steps, begins.bool(), slots, state.vad))

    def _from(self, place: Tensor, steps: Tensor) -> Tensor:
        """So many of each row's samples, from its own place on; where there are none it does not matter what."""
        index = (place[:, None] + steps).clamp(0, self._given.samples.shape[1] - 1)
        return self._given.samples.gather(1, index)

    def _decode(self) -> None:
        self._loop.advance()
        self._state.decoder.scatter(self._given.numbers[INTO], self._loop.state())

    def _bring(self) -> None:
        self._landed[0].write(self._made)
        if self._event:
            self._event.record()

    def _wait(self) -> None:
        if self._event:
            self._event.synchronize()

    def _rehearse(self) -> None:
        """Something to hear while it is recorded: in the scratch slot, by rows that remember nothing."""
        self._given.samples.normal_(0, 0.1)
        frames, steps = self.chunk * STEP_FRAMES, max_vad_steps(self.chunk)
        scratch = self._state.scratch
        values = (scratch, scratch, 0, 1, frames, 0, 0, len(self._span), 0, 0, steps, 1)
        for number, value in zip(self._given.numbers, values, strict=True):
            number.fill_(value)


def max_vad_steps(chunk: int) -> int:
    """Steps of the detector that a chunk may complete, with what was left of the one before and of a stream's end."""
    return ((chunk * STEP_FRAMES + 1) * HOP - 1 + STEP - 1) // STEP


def max_samples(chunk: int) -> int:
    """That a row brings: those of the frames, and what the detector is behind and, at a cut, ahead of them."""
    return span_samples(chunk * STEP_FRAMES, MelConfig()) + STEP
