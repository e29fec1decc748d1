"""Live streams: what a turn takes in each form that it can have, and how many streams that is in time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from bench.gpu.device import Spread, free, timed
from bench.gpu.told import Told, milliseconds
from bench.random_model import LIVE_PAST
from conure.decoding.transducer import decode_transducer
from conure.engine.device_lane import sizes_of
from conure.engine.live_runner import LiveRunner
from conure.engine.live_state import LiveState
from conure.engine.live_turn import LiveTurn
from conure.engine.recording import CudaRecorder, Recorder, as_it_is
from conure.engine.stream_runner import TorchStreamRunner
from conure.fused.available import without_kernels
from conure.models.checkpoint import Checkpoint
from conure.models.config import STEP_FRAMES
from conure.models.loading import build_network
from conure.vad.silero_torch import SlotSilero
from conure.vad.silero_weights import SHAPES

__all__ = ["GOALS", "held", "live_runner", "tokens_a_second", "variants"]

STEP_SECONDS = 0.08
GOALS = ((80, 2000), (320, 6000), (1120, 12000))
"""Milliseconds of a chunk, and streams to reach on one H200."""
COMPARED = ((1, 256), (1, 2048), (2, 256), (14, 256))
"""Chunk and rows that all forms are compared at."""


def random_silero(device: torch.device) -> SlotSilero:
    """Takes as long as one that was trained, whose weights this machine may not have."""
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in SHAPES.items()}
    return SlotSilero(tensors, device)


def live_runner(checkpoint: Checkpoint, device: torch.device, recorder: Recorder | None = None) -> LiveRunner:
    return LiveRunner(*build_network(checkpoint), device, recorder=recorder, silero=random_silero(device))


class Rounds:
    """Turns of so many rows at a time, in slots all over, until all streams have had one."""

    def __init__(self, runner: LiveRunner, state: LiveState, rows: int, chunk: int) -> None:
        self.turn = LiveTurn(runner, state, rows, chunk)
        self.rows, self.chunk = rows, chunk
        generator = np.random.default_rng(rows)
        slots = generator.permutation(state.scratch)
        self._numbers = [slots[begin : begin + rows].tolist() for begin in range(0, len(slots), rows)]
        for inputs in (self.turn.inputs(), self.turn.inputs()):
            inputs.samples.normal_(0, 0.1)
        self._next = 0

    def once(self) -> None:
        """One turn, from its inputs to its results."""
        slots = self._numbers[self._next]
        self._next = (self._next + 1) % len(self._numbers)
        inputs = self.turn.inputs()
        frames, steps = self.chunk * STEP_FRAMES, self.chunk * STEP_FRAMES * 160 // 512
        numbers: list[int] = []
        for slot in slots:
            numbers += (slot, LIVE_PAST, frames, 0, 0, inputs.samples.shape[1], 0, 0, steps, 0)
        inputs.fill(numbers, self.turn._state.scratch)
        self.turn.launch(inputs)
        self.turn.land()


def variants(checkpoint: Checkpoint, device: torch.device) -> Told:
    """Milliseconds of a turn, form by form."""
    told = Told("A turn of streams", ("chunk ms", "rows", "form", "p50 ms", "p99 ms", "of all forms"))
    for chunk, rows in COMPARED if device.type == "cuda" else ((1, 8), (14, 8)):
        found: dict[str, Spread] = {}
        for name, form in _forms(checkpoint, device, rows, chunk):
            with told.failures(f"{name}, {rows} rows of {chunk}"):
                found[name] = timed(device, form)
        best = min(found, key=lambda name: found[name].median, default="")
        for name, spread in found.items():
            mark = "fastest" if name == best else f"{spread.median / found[best].median:.2f} x as long"
            told.row(f"{chunk * 80}", f"{rows}", name, *milliseconds(spread), mark)
    return told


Form = tuple[str, Callable[[], object]]


def _forms(checkpoint: Checkpoint, device: torch.device, rows: int, chunk: int) -> Iterator[Form]:
    plain = TorchStreamRunner(*build_network(checkpoint), device)
    yield "windows moved, modules, decoder that looks", _moved(plain, rows, chunk)
    del plain
    recorders: dict[str, Callable[[], Recorder]] = {"": lambda: as_it_is}
    if device.type == "cuda":
        recorders[", recorded"] = lambda: CudaRecorder(device)
    for recorded, recorder in recorders.items():
        for kernels, context in (("torch", without_kernels), ("kernels", contextlib.nullcontext)):
            with context():
                runner = live_runner(checkpoint, device, recorder())
                yield f"rings, {kernels}{recorded}", Rounds(runner, LiveState.allocate(runner, rows), rows, chunk).once


@torch.inference_mode()
def _moved(runner: TorchStreamRunner, rows: int, chunk: int) -> Callable[[], object]:
    device = runner.heads.device
    state = runner.allocate(rows + 1)
    state.encoder.started[:] = True
    state.encoder.length[:] = LIVE_PAST
    places = torch.randperm(rows, device=device)
    mel = torch.randn(rows, chunk * STEP_FRAMES, 128, device=device)
    frames = torch.full((rows,), chunk * STEP_FRAMES, device=device)

    @torch.inference_mode()
    def once() -> None:
        encoded, counts = runner.step(mel, frames, state, places)
        _, after = decode_transducer(runner.heads, encoded, counts, state.decoder.gather(places))
        state.decoder.scatter(places, after)

    return once


@dataclass(frozen=True)
class Goal:
    milliseconds: int
    streams: int


@torch.inference_mode()
def held(checkpoint: Checkpoint, device: torch.device, goals: tuple[tuple[int, int], ...]) -> Told:
    """Whole rounds over as many streams as are to be held, back to back, whatever the rows of a turn."""
    columns = ("chunk ms", "streams", "slots GB", "MB a stream", "rows a turn", "turn p50", "p99 ms", "in time")
    told = Told("Streams in time, the device alone", columns)
    runner = live_runner(checkpoint, device)
    for latency, streams in goals:
        chunk = latency // 80
        with told.failures(f"{streams} streams at {latency} ms"):
            state = LiveState.allocate(runner, streams)
            for rows in sizes_of(chunk, streams)[-3:]:
                spread = timed(device, Rounds(runner, state, rows, chunk).once, rounds=60)
                in_time = int(chunk * STEP_SECONDS / spread.median) * rows
                memory = f"{state.bytes / 1e9:.1f}", f"{state.bytes / (streams + 1) / 1e6:.2f}"
                told.row(f"{latency}", f"{streams}", *memory, f"{rows}", *milliseconds(spread), f"{in_time}")
            del state
    told.note(f"{free(device) / 1e9:.0f} GB of the device are left. The goals are {GOALS}.")
    return told


@torch.inference_mode()
def tokens_a_second(runner: LiveRunner, seconds: float, samples: np.ndarray) -> float:
    """That come out of speech at 80 ms: random weights say what they like, but not more or less than people."""
    state = LiveState.allocate(runner, 1)
    turn, frames, count = LiveTurn(runner, state, 1, 1), STEP_FRAMES, 0
    width = turn.inputs().samples.shape[1]
    for age in range(int(seconds / STEP_SECONDS)):
        inputs = turn.inputs()
        place = max(0, age * 1280 - 257)
        inputs.samples[0].copy_(torch.from_numpy(samples[place : place + width]))
        inputs.fill([0, age, frames, 0, 0, width, 0, 0, 2, int(age == 0)], state.scratch)
        turn.launch(inputs)
        count += int(turn.land().counts[0])
    return count / seconds


@torch.inference_mode()
def record_all(runner: LiveRunner, slots: int) -> int:
    """Every turn that so many slots may need; tells how many."""
    state = LiveState.allocate(runner, slots)
    chunks = [context.right + 1 for context in runner.config.encoder.contexts]
    sizes = sorted(
        ((size, chunk) for chunk in chunks for size in sizes_of(chunk, slots)), key=lambda one: -one[0] * one[1]
    )
    return len([LiveTurn(runner, state, *size) for size in sizes])
