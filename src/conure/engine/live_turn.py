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

from conure.audio.features import MelConfig
from conure.audio.features_stream import mel_of_spans, span_samples
from conure.decoding.hypothesis import EmittedToken
from conure.decoding.label_loop import LabelLoop
from conure.engine.live_runner import LiveRunner
from conure.engine.live_state import LiveState
from conure.models.config import STEP_FRAMES
from conure.vad.silero_weights import STEP

__all__ = ["Inputs", "LiveTurn", "Results", "most_sounds"]

HOP = 160
MOST_WINDOW = 4
MORE_TOKENS = 3
"""Tokens of a chunk, beyond one in two steps, that the first steps of the decoder are enough for."""


@dataclass(frozen=True)
class Inputs:
    """What differs from row to row. Rows that nobody fills are padding: see `pad`."""

    numbers: Tensor
    """[7, B] int64: slot; encoder steps before the chunk; its frames; known samples of the span; prompt; steps of the
    detector; whether the detector begins anew."""
    spans: Tensor
    """Samples that the chunk's frames are made of, [B, N]."""
    sounds: Tensor
    """Samples that the detector hears, [B, n * 512]."""

    @staticmethod
    def allocate(rows: int, chunk: int, device: torch.device, *, pinned: bool = False) -> Inputs:
        def made(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device, pin_memory=pinned)

        numbers = made(7, rows, dtype=torch.long)
        return Inputs(numbers, made(rows, _span(chunk)), made(rows, most_sounds(chunk) * STEP))

    def fill(self, numbers: list[tuple[int, ...]], scratch: int) -> None:
        """The numbers of the first rows; the others are padding, which reads and writes the slot `scratch`."""
        array: NDArray[np.int64] = self.numbers.numpy()
        array[:, : len(numbers)] = np.array(numbers).T
        array[:, len(numbers) :] = 0
        array[0, len(numbers) :] = scratch

    def write(self, other: Inputs) -> None:
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name), non_blocking=True)


@dataclass(frozen=True)
class Results:
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
    def of(loop: LabelLoop, speech: Tensor) -> Results:
        tokens = loop.tokens
        columns = tokens.ids, tokens.steps, tokens.durations, tokens.log_probabilities, tokens.confidences
        return Results(*columns, tokens.counts, loop.unfinished, speech)

    def on_host(self, *, pinned: bool) -> Results:
        """Room for a copy."""
        tensors = (getattr(self, part.name) for part in fields(self))
        return Results(*(torch.zeros_like(tensor, device="cpu", pin_memory=pinned) for tensor in tensors))

    def write(self, other: Results) -> None:
        for part in fields(self):
            getattr(self, part.name).copy_(getattr(other, part.name), non_blocking=True)

    def tokens(self, rows: int) -> Iterator[list[EmittedToken]]:
        """Of each of the first so many rows, in host memory."""
        columns = (self.ids, self.steps, self.durations, self.log_probabilities, self.confidences)
        arrays = [column.numpy() for column in columns]
        for row, count in enumerate(self.counts[:rows].tolist()):
            values = zip(*(array[row, :count].tolist() for array in arrays), strict=True) if count else ()
            yield [EmittedToken(*value) for value in values]


class LiveTurn:
    def __init__(self, runner: LiveRunner, state: LiveState, rows: int, chunk: int) -> None:
        """Records it, where the runner's recorder does."""
        self.rows, self.chunk = rows, chunk
        self._runner, self._state = runner, state
        pinned = runner.device.type == "cuda"
        runner.encoder.prepare(chunk)
        self._given = Inputs.allocate(rows, chunk, runner.device)
        self._loop = LabelLoop(runner.network, rows, chunk, chunk // 2 + MORE_TOKENS, min(chunk, MOST_WINDOW))
        self._made = Results.of(self._loop, torch.zeros(rows, most_sounds(chunk), device=runner.device))
        self._sets = [Inputs.allocate(rows, chunk, torch.device("cpu"), pinned=pinned) for _ in range(2)]
        self._landed = [self._made.on_host(pinned=pinned) for _ in range(2)]
        self._event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]
        self._rehearse()
        self._play = runner.recorder(self._work, [self._loop.steps, self._made.speech])
        self._play_more = runner.recorder(self._decode)

    def inputs(self) -> Inputs:
        """Those that the device does not read, to be filled."""
        self._sets.reverse()
        return self._sets[0]

    def launch(self, inputs: Inputs) -> None:
        """Returns at once; nothing else may be launched before it has landed."""
        self._landed.reverse()
        with self._runner.urgently():
            self._given.write(inputs)
            self._play()
            self._bring()

    def land(self) -> Results:
        """Waits. What is returned stays until the launch after the next."""
        self._wait()
        while self._landed[0].unfinished:
            with self._runner.urgently():
                self._play_more()
                self._bring()
            self._wait()
        return self._landed[0]

    def _work(self) -> None:
        runner, state, given = self._runner, self._state, self._given
        slots, age, frames, known, prompts, steps, begins = given.numbers.unbind()
        mel = mel_of_spans(runner.front, given.spans, known).to(runner.dtype)
        encoded, counts = runner.encoder.step(mel, frames, slots, age, state.encoder)
        encoded = runner.network.prompted(encoded, prompts if runner.config.prompts else None)
        spoken = state.decoder.gather(slots).anew(age == 0, state.start)
        self._loop.begin(encoded.float(), counts, spoken)
        self._decode()
        self._made.speech.copy_(runner.silero.listen(given.sounds, steps, begins.bool(), slots, state.ears))

    def _decode(self) -> None:
        self._loop.advance()
        self._state.decoder.scatter(self._given.numbers[0], self._loop.state())

    def _bring(self) -> None:
        self._landed[0].write(self._made)
        if self._event:
            self._event.record()

    def _wait(self) -> None:
        if self._event:
            self._event.synchronize()

    def _rehearse(self) -> None:
        """Something to hear while it is recorded: in the scratch slot, by rows that remember nothing."""
        given = self._given
        given.spans.normal_(0, 0.1)
        given.sounds.normal_(0, 0.1)
        frames, samples, sounds = self.chunk * STEP_FRAMES, given.spans.shape[1], most_sounds(self.chunk)
        for row, number in enumerate((self._state.scratch, 0, frames, samples, 0, sounds, 1)):
            given.numbers[row].fill_(number)


def most_sounds(chunk: int) -> int:
    """Steps of the detector that a chunk may complete, with what was left of the one before and of a clip's end."""
    return ((chunk * STEP_FRAMES + 1) * HOP - 1 + STEP - 1) // STEP


def _span(chunk: int) -> int:
    return span_samples(chunk * STEP_FRAMES, MelConfig())
