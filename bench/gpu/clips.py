"""Whole clips: how much faster than real time, by batch and length, in each form; where the time goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.audio import speech
from bench.gpu.device import peak, timed
from bench.gpu.edits import edits
from bench.gpu.floors import COLUMNS, beside
from bench.gpu.told import Told, milliseconds
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
"""Stages of the encoder; the other is the decoder's."""
FEW_ROUNDS = 3


def by_batch(runner: TorchClipRunner, device: torch.device) -> Told:
    """Samples on the host to tokens on the host; then encoder and decoder, each alone."""
    columns = ("seconds", "batch", "of", "p50 ms", "p99 ms", *COLUMNS, "times real time", "tokens a second", "GB")
    told = Told("Clips by batch", columns)
    for seconds in SHORT if device.type == "cuda" else (1,):
        for batch in BATCHES if device.type == "cuda" else (2,):
            with told.failures(f"{batch} x {seconds} s"):
                _rows(told, runner, seconds, batch, device)
    return told


def _rows(told: Told, runner: TorchClipRunner, seconds: int, batch: int, device: torch.device) -> None:
    clips, floor = [speech(seconds)] * batch, floor_of(runner.network.config, batch, seconds)

    def whole() -> list[list[EmittedToken]]:
        return transcribe_clips(runner, clips, batch_seconds=seconds * batch)

    tokens = sum(map(len, whole()))
    memory = peak(device, whole)
    took = timed(device, whole)
    cells = *milliseconds(took), *beside(took.median, floor), f"{seconds * batch / took.median:.0f}"
    told.row(f"{seconds}", f"{batch}", "all", *cells, f"{tokens / seconds / batch:.1f}", f"{memory / 1e9:.1f}")
    samples, lengths = _given(seconds, batch, device)
    encoded, counts = run_to_end(runner.encode(samples, lengths))
    parts: tuple[tuple[str, tuple[str, ...], Callable[[], object]], ...] = (
        ("encoder", ENCODER, lambda: run_to_end(runner.encode(samples, lengths))),
        ("decoder", ("decoding",), lambda: run_to_end(runner.decoder.decode(encoded, counts))),
    )
    for name, stages, call in parts:
        took = timed(device, call)
        cells = *milliseconds(took), *beside(took.median, floor, stages), f"{seconds * batch / took.median:.0f}"
        told.row(f"{seconds}", f"{batch}", name, *cells, "", "")


def _given(seconds: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Samples and lengths, where the encoder is."""
    samples = torch.from_numpy(np.stack([speech(seconds)] * batch)).to(device)
    return samples, torch.full((batch,), samples.shape[1], device=device)


Form = tuple[str, Callable[[], TorchClipRunner], Callable[[], AbstractContextManager[None]]]
"""What it is called, what makes it, and what it runs within."""


def forms(build: Callable[[], Network], device: torch.device) -> Told:
    """The encoder alone, form by form."""
    cases = ((30, 1), (30, 32), (15, 128), (300, 4)) if device.type == "cuda" else ((2, 2),)
    return _compared("The encoder of clips", _forms(build, device), cases, device)


def compiled_forms(build: Callable[[], Network], device: torch.device) -> Told:
    """The same of compiled layers, which take seconds at every new shape."""
    cases = ((30, 32), (15, 128)) if device.type == "cuda" else ((2, 2),)
    kinds = (
        ("folded, torch, compiled", lambda: _runner(build, device, compiled=True), without_kernels),
        ("folded, kernels, compiled", lambda: _runner(build, device, compiled=True), contextlib.nullcontext),
    )
    return _compared("The encoder of clips, compiled", iter(kinds), cases, device)


def _compared(title: str, kinds: Iterator[Form], cases: tuple[tuple[int, int], ...], device: torch.device) -> Told:
    told = Told(title, ("seconds", "batch", "form", "p50 ms", "p99 ms", *COLUMNS, "times real time"))
    for name, make, context in kinds:
        with told.failures(name):
            runner = make()
            for seconds, batch in cases:
                with told.failures(f"{name}, {batch} x {seconds} s"), context():
                    samples, lengths = _given(seconds, batch, device)
                    took = timed(device, lambda a=samples, b=lengths, r=runner: run_to_end(r.encode(a, b)))
                    floor = floor_of(runner.network.config, batch, seconds)
                    cells = *milliseconds(took), *beside(took.median, floor, ENCODER)
                    told.row(f"{seconds}", f"{batch}", name, *cells, f"{seconds * batch / took.median:.0f}")
    return told


def _forms(build: Callable[[], Network], device: torch.device) -> Iterator[Form]:
    folded = _runner(build, device)
    yield "folded, kernels", lambda: folded, contextlib.nullcontext
    yield "folded", lambda: folded, without_kernels
    if device.type == "cuda":  # not every torch scales by rows on a processor
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


def long_clips(runner: TorchClipRunner, device: torch.device) -> Told:
    """One at a time: attention grows with their square, and from 20 minutes on is local."""
    told = Told("Long clips", ("seconds", "times real time", "p50 ms", "p99 ms", *COLUMNS, "GB"))
    for seconds in LONG if device.type == "cuda" else (4,):
        with told.failures(f"{seconds} s"):
            clip = speech(seconds)
            call = lambda clip=clip, seconds=seconds: transcribe_clips(runner, [clip], batch_seconds=seconds)  # noqa: E731
            memory = peak(device, call)
            took = timed(device, call, FEW_ROUNDS)
            cells = *milliseconds(took), *beside(took.median, floor_of(runner.network.config, 1, seconds))
            told.row(f"{seconds}", f"{seconds / took.median:.0f}", *cells, f"{memory / 1e9:.1f}")
    return told


def decoders(runner: TorchClipRunner, device: torch.device, *, conditional: bool = False) -> Told:
    """The same encoded clips, decoder by decoder; all must give the same tokens, and do but for rounding."""
    told = Told("Decoders", ("seconds", "batch", "decoder", "p50 ms", "p99 ms", *COLUMNS, "edits of the plain one's"))
    seconds = 30 if device.type == "cuda" else 1
    for batch in (1, 32, 256) if device.type == "cuda" else (3,):
        encoded, counts = run_to_end(runner.encode(*_given(seconds, batch, device)))
        floor = floor_of(runner.network.config, batch, seconds)
        with without_kernels():
            expected = _tokens(TorchDecoder(runner.heads), encoded, counts)
        for name, make, context in _decoders(runner, device, conditional=conditional):
            with told.failures(f"{name}, batch {batch}"), context():
                decoder = make()
                differ = edits(_tokens(decoder, encoded, counts), expected)
                took = timed(device, lambda d=decoder, e=encoded, c=counts: run_to_end(d.decode(e, c)))
                cells = *milliseconds(took), *beside(took.median, floor, ("decoding",))
                told.row(f"{seconds}", f"{batch}", name, *cells, f"{differ} of {sum(map(len, expected))}")
    return told


def _tokens(decoder: ClipDecoder, encoded: Tensor, counts: Tensor) -> list[list[int]]:
    return [[token.id for token in row] for row in run_to_end(decoder.decode(encoded, counts))]


def _decoders(
    runner: TorchClipRunner, device: torch.device, *, conditional: bool
) -> Iterator[tuple[str, Callable[[], ClipDecoder], Callable[[], AbstractContextManager[None]]]]:
    heads, recorder = runner.heads, CudaGraphCapturer(device) if device.type == "cuda" else no_capture
    yield "looks after each token, torch", lambda: TorchDecoder(heads), without_kernels
    yield "looks after each token, kernels", lambda: TorchDecoder(heads), contextlib.nullcontext
    yield "loops, torch, window 4", lambda: GraphDecoder(heads, recorder, 4), without_kernels
    for window in (1, 2, 4):
        make = partial(GraphDecoder, heads, recorder, window)
        yield f"loops, kernels, window {window}", make, contextlib.nullcontext
    if conditional:
        again = partial(GraphDecoder, heads, recorder, conditional=True)
        yield "loop that repeats itself, kernels", again, contextlib.nullcontext
