"""Live streams: what a turn takes in each form that it can have, and how many streams that is in time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from bench.gpu.device import Spread, free, timed, wait
from bench.gpu.floors import COLUMNS, beside
from bench.gpu.told import Told, milliseconds
from bench.operations import turn as floor_of
from bench.random_model import LIVE_PAST
from conure.engine.backends.cuda.graph_capture import GraphCapturer, no_capture
from conure.engine.backends.cuda.stream_model import CudaStreamModel
from conure.engine.backends.cuda.stream_state import CudaStreamState
from conure.engine.backends.cuda.stream_step import INPUT_FIELDS, CudaStreamStep, StepInputs
from conure.engine.backends.torch_eager.stream_runner import TorchStreamRunner
from conure.fused.available import without_kernels
from conure.models.checkpoint import Checkpoint
from conure.models.config import STEP_FRAMES
from conure.models.loader import build_network
from conure.vad.silero_torch import SlotSilero
from conure.vad.silero_weights import SHAPES, STEP

__all__ = [
    "GOALS",
    "RIGHTS",
    "SMALL_GOALS",
    "Goal",
    "held",
    "live_runner",
    "numbers_of",
    "random_silero",
    "variants",
    "were_recorded",
]

STEP_MS = 80
SAMPLES = 1280
"""Of an encoder step."""
HELD_ROUNDS = 60


@dataclass(frozen=True)
class Goal:
    """Streams to reach on one H200, and the rows of turns that it is tried with."""

    milliseconds: int
    streams: int
    rows: tuple[int, ...]

    @property
    def chunk(self) -> int:
        return self.milliseconds // STEP_MS


GOALS = (Goal(80, 2000, (2048, 1024, 512)), Goal(320, 6000, (1024, 512, 256)), Goal(1120, 12000, (256, 128, 64)))
SMALL_GOALS = (Goal(160, 4, (4,)),)
"""To see that the bench works."""
RIGHTS = (13, 6, 3, 1, 0)
"""Of the goals and of nemotron-speech-streaming-en-0.6b."""
COMPARED = ((1, 256), (1, 2048), (2, 256), (14, 256))
"""Chunk and rows that all forms are compared at."""


def random_silero(device: torch.device) -> SlotSilero:
    """Takes as long as one that was trained, whose weights this machine may not have."""
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in SHAPES.items()}
    return SlotSilero(tensors, device)


def live_runner(
    checkpoint: Checkpoint,
    device: torch.device,
    recorder: GraphCapturer | None = None,
    dtype: torch.dtype | None = None,
) -> CudaStreamModel:
    network, front = build_network(checkpoint, device=device)
    return CudaStreamModel(network, front, device, dtype, recorder, random_silero(device))


def were_recorded(runner: CudaStreamModel, told: Told) -> None:
    """Says it where turns are not recorded although they should be."""
    if getattr(runner.capturer, "failed", False):
        told.failed = True
        told.note("CUDA graphs failed: see the warning above. What is called recorded was not.")


class Rounds:
    """Turns of so many rows at a time, in slots all over, until all streams have had one."""

    def __init__(self, runner: CudaStreamModel, state: CudaStreamState, rows: int, chunk: int) -> None:
        self.runner = runner
        self._turn = CudaStreamStep(runner, state, rows, chunk)
        wait(runner.device)  # where nothing is recorded, nobody has waited for what was written
        generator = np.random.default_rng(rows)
        slots = generator.permutation(state.scratch)
        sets = [self._turn.next_inputs() for _ in range(2)]
        for inputs in sets:
            inputs.samples.normal_(0, 0.1)
        self._numbers = [
            _numbers(sets[0], slots[begin : begin + rows].tolist(), chunk, state.scratch)
            for begin in range(0, len(slots), rows)
        ]
        self._next = 0

    def __call__(self) -> None:
        """One turn, from inputs that stand ready to its results."""
        inputs = self._turn.next_inputs()
        inputs.numbers.copy_(self._numbers[self._next])
        self._next = (self._next + 1) % len(self._numbers)
        self._turn.launch(inputs)
        self._turn.collect()


def _numbers(inputs: StepInputs, slots: Sequence[int], chunk: int, scratch: int) -> torch.Tensor:
    """Of a turn of streams that remember as much as they can."""
    frames, known, steps = chunk * STEP_FRAMES, inputs.samples.shape[1], chunk * SAMPLES // STEP
    numbers: list[int] = []
    for slot in slots:
        numbers += numbers_of(slot=slot, into=slot, age=LIVE_PAST, frames=frames, known=known, steps=steps)
    inputs.fill(numbers, scratch)
    return inputs.numbers.clone()


def numbers_of(**given: int) -> list[int]:
    """Of a row; what is not given is zero."""
    return [given.get(name, 0) for name in INPUT_FIELDS]


def variants(checkpoint: Checkpoint, device: torch.device) -> Told:
    """Milliseconds of a turn, form by form."""
    told = Told("A turn of streams", ("chunk ms", "rows", "form", "p50 ms", "p99 ms", *COLUMNS, "of all forms"))
    for chunk, rows in COMPARED if device.type == "cuda" else ((1, 2), (2, 2)):
        floor = floor_of(checkpoint.config, rows, chunk, LIVE_PAST)
        found: dict[str, Spread] = {}
        for name, context, make in _forms(checkpoint, device, rows, chunk):
            with told.failures(f"{name}, {rows} rows of {chunk}"), context():
                form = make()
                found[name] = timed(device, form)
                if isinstance(form, Rounds):
                    were_recorded(form.runner, told)
        best = min(found, key=lambda name: found[name].median, default="")
        for name, spread in found.items():
            mark = "fastest" if name == best else f"{spread.median / found[best].median:.2f} x as long"
            cells = *milliseconds(spread), *beside(spread.median, floor)
            told.row(f"{chunk * STEP_MS}", f"{rows}", name, *cells, mark)
    told.note("The floor is that of memory in rings; the speech detector is not counted in it.")
    return told


Form = tuple[str, Callable[[], AbstractContextManager[None]], Callable[[], Callable[[], None]]]
"""What it is called, what it runs within, and what makes it."""


def _forms(checkpoint: Checkpoint, device: torch.device, rows: int, chunk: int) -> Iterator[Form]:
    def rings(recorder: GraphCapturer | None) -> Rounds:
        runner = live_runner(checkpoint, device, recorder)
        return Rounds(runner, CudaStreamState.allocate(runner, rows), rows, chunk)

    def moved() -> Callable[[], None]:
        return _moved(TorchStreamRunner(*build_network(checkpoint, device=device), device), rows, chunk)

    yield "windows moved, modules, decoder that looks", contextlib.nullcontext, moved
    yield "rings, torch", without_kernels, partial(rings, no_capture)
    yield "rings, kernels", contextlib.nullcontext, partial(rings, no_capture)
    if device.type == "cuda":
        yield "rings, torch, recorded", without_kernels, partial(rings, None)
        yield "rings, kernels, recorded", contextlib.nullcontext, partial(rings, None)


@torch.inference_mode()
def _moved(runner: TorchStreamRunner, rows: int, chunk: int) -> Callable[[], None]:
    device = runner.heads.device
    state = runner.allocate(rows + 1)
    state.encoder.started[:] = True
    state.encoder.length[:] = LIVE_PAST
    places = np.random.default_rng(0).permutation(rows)
    mel = torch.randn(rows, chunk * STEP_FRAMES, 128, device=device)
    frames = np.full(rows, chunk * STEP_FRAMES)

    @torch.inference_mode()
    def once() -> None:
        encoded, counts = runner.encode_chunk(mel, frames, state, places)
        runner.decode_chunk(encoded, counts, state, places)

    return once


@torch.inference_mode()
def held(checkpoint: Checkpoint, device: torch.device, goals: Sequence[Goal]) -> Told:
    """Whole rounds over as many streams as are to be held, back to back, whatever the rows of a turn."""
    columns = ("chunk ms", "streams", "slots GB", "MB a stream", "rows a turn", "p50 ms", "p99 ms", *COLUMNS, "in time")
    told = Told("Streams in time, the device alone", columns)
    for goal in goals:
        with told.failures(f"{goal.streams} streams at {goal.milliseconds} ms"):
            runner = live_runner(checkpoint, device)
            state = CudaStreamState.allocate(runner, goal.streams)
            for rows in goal.rows:
                _hold(runner, state, goal, rows, told)
            were_recorded(runner, told)
    told.note(f"{free(device) / 1e9:.0f} GB of the device are left. The speech detector is not counted in the floor.")
    return told


def _hold(runner: CudaStreamModel, state: CudaStreamState, goal: Goal, rows: int, told: Told) -> None:
    chunk = goal.chunk
    spread = timed(runner.device, Rounds(runner, state, rows, chunk), HELD_ROUNDS)
    in_time = int(goal.milliseconds / 1e3 / spread.median) * rows
    memory = f"{state.bytes / 1e9:.1f}", f"{state.bytes / (goal.streams + 1) / 1e6:.2f}"
    cells = *milliseconds(spread), *beside(spread.median, floor_of(runner.config, rows, chunk, LIVE_PAST))
    told.row(f"{goal.milliseconds}", f"{goal.streams}", *memory, f"{rows}", *cells, f"{in_time}")
