"""Live streams: the time of a step in each implementation, and the number of streams that it sustains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from bench.gpu.device import Spread, free_memory, synchronize, timed
from bench.gpu.floors import COLUMNS, floor_cells
from bench.gpu.result_table import ResultTable, milliseconds
from bench.operations import stream_step as floor_of
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
    "note_capture_failure",
]

STEP_MS = 80
SAMPLES = 1280
"""Per encoder frame."""
SUSTAINED_ROUNDS = 60


@dataclass(frozen=True)
class Goal:
    """Target number of streams on one H200, and the batch sizes to try."""

    milliseconds: int
    streams: int
    rows: tuple[int, ...]

    @property
    def chunk(self) -> int:
        return self.milliseconds // STEP_MS


GOALS = (Goal(80, 2000, (2048, 1024, 512)), Goal(320, 6000, (1024, 512, 256)), Goal(1120, 12000, (256, 128, 64)))
SMALL_GOALS = (Goal(160, 4, (4,)),)
"""For a CPU."""
RIGHTS = (13, 6, 3, 1, 0)
"""Look-aheads, in encoder frames, of the goals and of nemotron-speech-streaming-en-0.6b."""
COMPARED = ((1, 256), (1, 2048), (2, 256), (14, 256))
"""Chunks and batch sizes for the comparison of implementations."""


def random_silero(device: torch.device) -> SlotSilero:
    """As fast as a trained one, whose weights may be missing on this machine."""
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in SHAPES.items()}
    return SlotSilero(tensors, device)


def live_runner(
    checkpoint: Checkpoint,
    device: torch.device,
    capturer: GraphCapturer | None = None,
    dtype: torch.dtype | None = None,
) -> CudaStreamModel:
    network, front = build_network(checkpoint, device=device)
    return CudaStreamModel(network, front, device, dtype, capturer, random_silero(device))


def note_capture_failure(runner: CudaStreamModel, table: ResultTable) -> None:
    """Adds a note and marks the section as failed if a graph capture failed."""
    if getattr(runner.capturer, "failed", False):
        table.failed = True
        table.add_note("CUDA graphs failed: see the warning above. Rows named captured are eager.")


class Rounds:
    """Steps of `rows` rows in scattered slots, until each stream had one."""

    def __init__(self, runner: CudaStreamModel, state: CudaStreamState, rows: int, chunk: int) -> None:
        self.runner = runner
        self._step = CudaStreamStep(runner, state, rows, chunk)
        synchronize(runner.device)  # without a graph capture, initialization may still be running
        generator = np.random.default_rng(rows)
        slots = generator.permutation(state.scratch)
        sets = [self._step.next_inputs() for _ in range(2)]
        for inputs in sets:
            inputs.samples.normal_(0, 0.1)
        self._numbers = [
            _numbers(sets[0], slots[begin : begin + rows].tolist(), chunk, state.scratch)
            for begin in range(0, len(slots), rows)
        ]
        self._next = 0

    def __call__(self) -> None:
        """One step, from prepared inputs to its results."""
        inputs = self._step.next_inputs()
        inputs.numbers.copy_(self._numbers[self._next])
        self._next = (self._next + 1) % len(self._numbers)
        self._step.launch(inputs)
        self._step.collect()


def _numbers(inputs: StepInputs, slots: Sequence[int], chunk: int, scratch: int) -> torch.Tensor:
    """Input numbers of a step of streams with a full past."""
    frames, known, steps = chunk * STEP_FRAMES, inputs.samples.shape[1], chunk * SAMPLES // STEP
    numbers: list[int] = []
    for slot in slots:
        numbers += numbers_of(
            slot=slot, write_slot=slot, age=LIVE_PAST, frames=frames, valid_samples=known, steps=steps
        )
    inputs.fill(numbers, scratch)
    return inputs.numbers.clone()


def numbers_of(**values: int) -> list[int]:
    """Input numbers of a row; missing ones are zero."""
    assert values.keys() <= set(INPUT_FIELDS), values
    return [values.get(name, 0) for name in INPUT_FIELDS]


def variants(checkpoint: Checkpoint, device: torch.device) -> ResultTable:
    """Times of a step in each implementation."""
    columns = ("chunk ms", "rows", "form", "p50 ms", "p99 ms", *COLUMNS, "of all forms")
    table = ResultTable("A step of streams", columns)
    for chunk, rows in COMPARED if device.type == "cuda" else ((1, 2), (2, 2)):
        floor = floor_of(checkpoint.config, rows, chunk, LIVE_PAST)
        found: dict[str, Spread] = {}
        for name, context, make in _forms(checkpoint, device, rows, chunk):
            with table.record_failures(f"{name}, {rows} rows of {chunk}"), context():
                form = make()
                found[name] = timed(device, form)
                if isinstance(form, Rounds):
                    note_capture_failure(form.runner, table)
        best = min(found, key=lambda name: found[name].median, default="")
        for name, spread in found.items():
            mark = "fastest" if name == best else f"{spread.median / found[best].median:.2f}x the time"
            cells = *milliseconds(spread), *floor_cells(spread.median, floor)
            table.add_row(f"{chunk * STEP_MS}", f"{rows}", name, *cells, mark)
    table.add_note("The floor assumes state in rings and does not include the speech detector.")
    return table


Form = tuple[str, Callable[[], AbstractContextManager[None]], Callable[[], Callable[[], None]]]
"""Name, context to run in, and constructor."""


def _forms(checkpoint: Checkpoint, device: torch.device, rows: int, chunk: int) -> Iterator[Form]:
    def rings(capturer: GraphCapturer | None) -> Rounds:
        runner = live_runner(checkpoint, device, capturer)
        return Rounds(runner, CudaStreamState.allocate(runner, rows), rows, chunk)

    def moved() -> Callable[[], None]:
        return _moved(TorchStreamRunner(*build_network(checkpoint, device=device), device), rows, chunk)

    yield "moved windows, modules, eager decoder", contextlib.nullcontext, moved
    yield "rings, torch", without_kernels, partial(rings, no_capture)
    yield "rings, kernels", contextlib.nullcontext, partial(rings, no_capture)
    if device.type == "cuda":
        yield "rings, torch, captured", without_kernels, partial(rings, None)
        yield "rings, kernels, captured", contextlib.nullcontext, partial(rings, None)


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
def held(checkpoint: Checkpoint, device: torch.device, goals: Sequence[Goal]) -> ResultTable:
    """Rounds over the goal's number of streams, back to back, for each batch size."""
    columns = (
        "chunk ms",
        "streams",
        "slots GB",
        "MB per stream",
        "rows per step",
        "p50 ms",
        "p99 ms",
        *COLUMNS,
        "in time",
    )
    table = ResultTable("Sustained streams, device only", columns)
    for goal in goals:
        with table.record_failures(f"{goal.streams} streams at {goal.milliseconds} ms"):
            runner = live_runner(checkpoint, device)
            state = CudaStreamState.allocate(runner, goal.streams)
            for rows in goal.rows:
                _sustain(runner, state, goal, rows, table)
            note_capture_failure(runner, table)
    table.add_note(
        f"{free_memory(device) / 1e9:.0f} GB of the device are free. The floor does not include the speech detector."
    )
    return table


def _sustain(runner: CudaStreamModel, state: CudaStreamState, goal: Goal, rows: int, table: ResultTable) -> None:
    chunk = goal.chunk
    spread = timed(runner.device, Rounds(runner, state, rows, chunk), SUSTAINED_ROUNDS)
    in_time = int(goal.milliseconds / 1e3 / spread.median) * rows
    memory = f"{state.bytes / 1e9:.1f}", f"{state.bytes / (goal.streams + 1) / 1e6:.2f}"
    cells = *milliseconds(spread), *floor_cells(spread.median, floor_of(runner.config, rows, chunk, LIVE_PAST))
    table.add_row(f"{goal.milliseconds}", f"{goal.streams}", *memory, f"{rows}", *cells, f"{in_time}")
