"""Throughput of clips by batch size, length and implementation, and the time of each stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.audio import speech
from bench.gpu.device import peak_memory, timed
from bench.gpu.edit_distance import edit_distance
from bench.gpu.floors import COLUMNS, floor_cells
from bench.gpu.result_table import ResultTable, milliseconds
from bench.operations import clip as floor_of
from conure.audio.features import LogMel
from conure.decoding.emitted_token import EmittedToken
from conure.engine.backends.cuda.graph_capture import CudaGraphCapturer, no_capture
from conure.engine.backends.cuda.graph_decoder import GraphDecoder
from conure.engine.backends.decoder import ClipDecoder
from conure.engine.backends.torch_eager.clip_runner import TorchClipRunner
from conure.engine.backends.torch_eager.decoder import TorchDecoder
from conure.engine.lanes.clips import transcribe_clips
from conure.fused.available import without_kernels
from conure.models.folded_encoder import FoldedEncoder
from conure.models.fp8_linear import quantise
from conure.models.network import Network
from conure.models.preemptible import run_to_end

__all__ = ["ENCODER", "by_batch", "compiled_forms", "decoders", "forms", "long_clips"]

RATE = 16_000
SHORT = (30, 15)
LONG = (300, 1200, 3600)
"""Seconds."""
BATCHES = (128, 1, 32, 256, 8, 64)
ENCODER = ("features", "subsampling", "positions", "products", "attention")
"""Stages of the encoder."""
FEW_ROUNDS = 3


def by_batch(runner: TorchClipRunner, device: torch.device) -> ResultTable:
    """From samples on the host to tokens on the host; then encoder and decoder separately."""
    columns = ("seconds", "batch", "of", "p50 ms", "p99 ms", *COLUMNS, "times real time", "tokens per second", "GB")
    table = ResultTable("Clips by batch", columns)
    for seconds in SHORT if device.type == "cuda" else (1,):
        for batch in BATCHES if device.type == "cuda" else (2,):
            with table.record_failures(f"{batch} x {seconds} s"):
                _rows(table, runner, seconds, batch, device)
    return table


def _rows(table: ResultTable, runner: TorchClipRunner, seconds: int, batch: int, device: torch.device) -> None:
    clips, floor = [speech(seconds)] * batch, floor_of(runner.network.config, batch, seconds)

    def whole() -> list[list[EmittedToken]]:
        return transcribe_clips(runner, clips, batch_seconds=seconds * batch)

    tokens = sum(map(len, whole()))
    memory = peak_memory(device, whole)
    spread = timed(device, whole)
    cells = *milliseconds(spread), *floor_cells(spread.median, floor), f"{seconds * batch / spread.median:.0f}"
    table.add_row(f"{seconds}", f"{batch}", "all", *cells, f"{tokens / seconds / batch:.1f}", f"{memory / 1e9:.1f}")
    samples, lengths = _inputs(seconds, batch, device)
    encoded, counts = run_to_end(runner.encode(samples, lengths))
    parts: tuple[tuple[str, tuple[str, ...], Callable[[], object]], ...] = (
        ("encoder", ENCODER, lambda: run_to_end(runner.encode(samples, lengths))),
        ("decoder", ("decoding",), lambda: run_to_end(runner.decoder.decode(encoded, counts))),
    )
    for name, stages, call in parts:
        spread = timed(device, call)
        cells = (
            *milliseconds(spread),
            *floor_cells(spread.median, floor, stages),
            f"{seconds * batch / spread.median:.0f}",
        )
        table.add_row(f"{seconds}", f"{batch}", name, *cells, "", "")


def _inputs(seconds: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Samples and lengths on the device."""
    samples = torch.from_numpy(np.stack([speech(seconds)] * batch)).to(device)
    return samples, torch.full((batch,), samples.shape[1], device=device)


Form = tuple[str, Callable[[], TorchClipRunner], Callable[[], AbstractContextManager[None]]]
"""Name, constructor, and context to run in."""


def forms(build: Callable[[], Network], device: torch.device) -> ResultTable:
    """Implementations of the encoder."""
    cases = ((30, 1), (30, 32), (15, 128), (300, 4)) if device.type == "cuda" else ((2, 2),)
    return _compared("The encoder of clips", _forms(build, device), cases, device)


def compiled_forms(build: Callable[[], Network], device: torch.device) -> ResultTable:
    """Implementations with compiled layers, which take seconds to compile for each shape."""
    cases = ((30, 32), (15, 128)) if device.type == "cuda" else ((2, 2),)
    kinds = (
        ("folded, torch, compiled", lambda: _runner(build, device, compiled=True), without_kernels),
        ("folded, kernels, compiled", lambda: _runner(build, device, compiled=True), contextlib.nullcontext),
    )
    return _compared("The encoder of clips, compiled", iter(kinds), cases, device)


def _compared(
    title: str, kinds: Iterator[Form], cases: tuple[tuple[int, int], ...], device: torch.device
) -> ResultTable:
    table = ResultTable(title, ("seconds", "batch", "form", "p50 ms", "p99 ms", *COLUMNS, "times real time"))
    for name, make, context in kinds:
        with table.record_failures(name):
            runner = make()
            for seconds, batch in cases:
                with table.record_failures(f"{name}, {batch} x {seconds} s"), context():
                    samples, lengths = _inputs(seconds, batch, device)
                    spread = timed(device, lambda a=samples, b=lengths, r=runner: run_to_end(r.encode(a, b)))
                    floor = floor_of(runner.network.config, batch, seconds)
                    cells = *milliseconds(spread), *floor_cells(spread.median, floor, ENCODER)
                    table.add_row(f"{seconds}", f"{batch}", name, *cells, f"{seconds * batch / spread.median:.0f}")
    return table


def _forms(build: Callable[[], Network], device: torch.device) -> Iterator[Form]:
    folded = _runner(build, device)
    yield "folded, kernels", lambda: folded, contextlib.nullcontext
    yield "folded", lambda: folded, without_kernels
    if device.type == "cuda":  # not every version of torch supports row-wise scaling on a CPU
        yield "folded, kernels, 8-bit floats", lambda: _eight_bit(build, device), contextlib.nullcontext
    yield "modules", lambda: _runner(build, device, folded=False), without_kernels


def _runner(
    build: Callable[[], Network],
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    folded: bool = True,
    compiled: bool = False,
) -> TorchClipRunner:
    network = build()
    return TorchClipRunner(network, LogMel(network.config.mel), device, dtype, folded=folded, compiled=compiled)


def _eight_bit(build: Callable[[], Network], device: torch.device) -> TorchClipRunner:
    runner = _runner(build, device, torch.bfloat16)
    assert isinstance(runner.encoder, FoldedEncoder)
    quantise(runner.encoder)
    return runner


def long_clips(runner: TorchClipRunner, device: torch.device) -> ResultTable:
    """One clip at a time: attention is quadratic in the length, and local from 20 minutes on."""
    table = ResultTable("Long clips", ("seconds", "times real time", "p50 ms", "p99 ms", *COLUMNS, "GB"))
    for seconds in LONG if device.type == "cuda" else (4,):
        with table.record_failures(f"{seconds} s"):
            clip = speech(seconds)
            call = lambda clip=clip, seconds=seconds: transcribe_clips(runner, [clip], batch_seconds=seconds)  # noqa: E731
            memory = peak_memory(device, call)
            spread = timed(device, call, FEW_ROUNDS)
            cells = *milliseconds(spread), *floor_cells(spread.median, floor_of(runner.network.config, 1, seconds))
            table.add_row(f"{seconds}", f"{seconds / spread.median:.0f}", *cells, f"{memory / 1e9:.1f}")
    return table


def decoders(runner: TorchClipRunner, device: torch.device, *, conditional: bool = False) -> ResultTable:
    """Decoders with the same encoded clips. Their tokens edits by rounding only."""
    columns = ("seconds", "batch", "decoder", "p50 ms", "p99 ms", *COLUMNS, "edits against the reference")
    table = ResultTable("Decoders", columns)
    seconds = 30 if device.type == "cuda" else 1
    for batch in (1, 32, 256) if device.type == "cuda" else (3,):
        encoded, counts = run_to_end(runner.encode(*_inputs(seconds, batch, device)))
        floor = floor_of(runner.network.config, batch, seconds)
        with without_kernels():
            expected = _tokens(TorchDecoder(runner.heads), encoded, counts)
        for name, make, context in _decoders(runner, device, conditional=conditional):
            with table.record_failures(f"{name}, batch {batch}"), context():
                decoder = make()
                edits = edit_distance(_tokens(decoder, encoded, counts), expected)
                spread = timed(device, lambda d=decoder, e=encoded, c=counts: run_to_end(d.decode(e, c)))
                cells = *milliseconds(spread), *floor_cells(spread.median, floor, ("decoding",))
                table.add_row(f"{seconds}", f"{batch}", name, *cells, f"{edits} of {sum(map(len, expected))}")
    return table


def _tokens(decoder: ClipDecoder, encoded: Tensor, counts: Tensor) -> list[list[int]]:
    return [[token.id for token in row] for row in run_to_end(decoder.decode(encoded, counts))]


def _decoders(
    runner: TorchClipRunner, device: torch.device, *, conditional: bool
) -> Iterator[tuple[str, Callable[[], ClipDecoder], Callable[[], AbstractContextManager[None]]]]:
    heads, capturer = runner.heads, CudaGraphCapturer(device) if device.type == "cuda" else no_capture
    yield "eager, torch", lambda: TorchDecoder(heads), without_kernels
    yield "eager, kernels", lambda: TorchDecoder(heads), contextlib.nullcontext
    yield "label looping, torch, window 4", lambda: GraphDecoder(heads, capturer, 4), without_kernels
    for window in (1, 2, 4):
        make = partial(GraphDecoder, heads, capturer, window)
        yield f"label looping, kernels, window {window}", make, contextlib.nullcontext
    if conditional:
        make = partial(GraphDecoder, heads, capturer, conditional=True)
        yield "conditional nodes, kernels", make, contextlib.nullcontext
