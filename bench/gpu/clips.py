"""Whole clips: how much faster than real time, by batch and length, in each form; where the time goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch

from bench.audio import speech
from bench.gpu.device import peak, timed
from bench.gpu.told import Told, milliseconds
from conure.audio.features import LogMel
from conure.engine.clip_decoder import PlainDecoder, RecordedDecoder
from conure.engine.clips import transcribe_clips
from conure.engine.recording import CudaRecorder
from conure.engine.torch_runner import TorchRunner
from conure.fused.available import without_kernels
from conure.models.eight_bit import quantise
from conure.models.folded_encoder import FoldedEncoder
from conure.models.network import Network
from conure.models.slices import finish

__all__ = ["by_batch", "decoders", "forms", "long_clips"]

RATE = 16_000
SHORT = (15, 30)
LONG = (300, 1200, 3600)
"""Seconds."""
BATCHES = (1, 8, 32, 64, 128, 256)


def by_batch(runner: TorchRunner, device: torch.device) -> Told:
    """Samples on the host to tokens on the host."""
    columns = ("seconds", "batch", "times real time", "whole ms", "encoder ms", "decoder ms", "tokens a second", "GB")
    told = Told("Clips by batch", columns)
    for seconds in SHORT if device.type == "cuda" else (2,):
        for batch in BATCHES if device.type == "cuda" else (1, 4):
            with told.failures(f"{batch} x {seconds} s"):
                _row(told, runner, speech(seconds), batch, device)
    return told


def _row(told: Told, runner: TorchRunner, clip: np.ndarray, batch: int, device: torch.device) -> None:
    clips, seconds = [clip] * batch, len(clip) / RATE * batch

    def whole() -> list[list[object]]:
        return transcribe_clips(runner, clips, batch_seconds=seconds)

    tokens = sum(map(len, whole()))
    memory = peak(device, whole)
    samples = torch.from_numpy(np.stack(clips)).to(device)
    lengths = torch.full((batch,), len(clip), device=device)
    encoded, counts = finish(runner.encode(samples, lengths))
    encoder = timed(device, lambda: finish(runner.encode(samples, lengths)))
    decoder = timed(device, lambda: finish(runner.decoder.decode(encoded, counts)))
    took = timed(device, whole)
    parts = f"{took.median * 1e3:.1f}", f"{encoder.median * 1e3:.1f}", f"{decoder.median * 1e3:.1f}"
    speed = f"{seconds / took.median:.0f}"
    told.row(f"{len(clip) / RATE:.0f}", f"{batch}", speed, *parts, f"{tokens / seconds:.1f}", f"{memory / 1e9:.1f}")


def forms(build: Callable[[], Network], device: torch.device) -> Told:
    """The encoder alone, form by form."""
    told = Told("The encoder of clips", ("seconds", "batch", "form", "p50 ms", "p99 ms", "times real time"))
    cases = ((30, 1), (30, 32), (15, 128), (300, 4)) if device.type == "cuda" else ((2, 2),)
    for name, runner, context in _runners(build, device):
        for seconds, batch in cases:
            with told.failures(f"{name}, {batch} x {seconds} s"), context():
                samples = torch.from_numpy(np.stack([speech(seconds)] * batch)).to(device)
                lengths = torch.full((batch,), samples.shape[1], device=device)
                took = timed(device, lambda a=samples, b=lengths, r=runner: finish(r.encode(a, b)))
                speed = f"{seconds * batch / took.median:.0f}"
                told.row(f"{seconds}", f"{batch}", name, *milliseconds(took), speed)
    return told


Form = tuple[str, TorchRunner, Callable[[], AbstractContextManager[None]]]


def _runners(build: Callable[[], Network], device: torch.device) -> Iterator[Form]:
    def runner(*, folded: bool, compiled: bool = False) -> TorchRunner:
        network = build()
        return TorchRunner(network, LogMel(network.config.mel), device, folded=folded, compiled=compiled)

    yield "modules", runner(folded=False), without_kernels
    folded = runner(folded=True)
    yield "folded", folded, without_kernels
    yield "folded, kernels", folded, contextlib.nullcontext
    yield "folded, torch, compiled", runner(folded=True, compiled=True), without_kernels
    yield "folded, kernels, compiled", runner(folded=True, compiled=True), contextlib.nullcontext
    eight = runner(folded=True)
    assert isinstance(eight.encoder, FoldedEncoder)
    quantise(eight.encoder)
    yield "folded, kernels, 8-bit floats", eight, contextlib.nullcontext


def long_clips(runner: TorchRunner, device: torch.device) -> Told:
    """One at a time: attention grows with their square, and from 20 minutes on is local."""
    told = Told("Long clips", ("seconds", "times real time", "p50 ms", "p99 ms", "GB"))
    for seconds in LONG if device.type == "cuda" else (30,):
        with told.failures(f"{seconds} s"):
            clip = speech(seconds)
            call = lambda clip=clip, seconds=seconds: transcribe_clips(runner, [clip], batch_seconds=seconds)  # noqa: E731
            memory = peak(device, call)
            took = timed(device, call, rounds=5)
            told.row(f"{seconds}", f"{seconds / took.median:.0f}", *milliseconds(took), f"{memory / 1e9:.1f}")
    return told


def decoders(runner: TorchRunner, device: torch.device, *, conditional: bool) -> Told:
    """The same encoded clips, decoder by decoder; all must give the same tokens."""
    told = Told("Decoders", ("seconds", "batch", "decoder", "p50 ms", "p99 ms", "tokens as the plain one's"))
    seconds = 30 if device.type == "cuda" else 3
    for batch in (1, 32, 256) if device.type == "cuda" else (1, 3):
        samples = torch.from_numpy(np.stack([speech(seconds)] * batch))
        encoded, counts = finish(runner.encode(samples, torch.full((batch,), samples.shape[1])))
        plain = PlainDecoder(runner.heads)
        expected = [[token.id for token in row] for row in finish(plain.decode(encoded, counts))]
        for name, decoder in _decoders(runner, device, conditional=conditional):
            with told.failures(f"{name}, batch {batch}"):
                found = [[token.id for token in row] for row in finish(decoder.decode(encoded, counts))]
                took = timed(device, lambda d=decoder, e=encoded, c=counts: finish(d.decode(e, c)))
                same = "all" if found == expected else f"no: {_apart(found, expected)} differ"
                told.row(f"{seconds}", f"{batch}", name, *milliseconds(took), same)
    return told


def _decoders(
    runner: TorchRunner, device: torch.device, *, conditional: bool
) -> Iterator[tuple[str, PlainDecoder | RecordedDecoder]]:
    yield "looks after each token", PlainDecoder(runner.heads)
    if device.type != "cuda":
        return
    for window in (1, 2, 4):
        yield f"recorded, window {window}", RecordedDecoder(runner.heads, CudaRecorder(device), window)
    if conditional:
        yield "recorded, repeats itself", RecordedDecoder(runner.heads, CudaRecorder(device), conditional=True)


def _apart(found: list[list[int]], expected: list[list[int]]) -> int:
    return sum(a != b for one, two in zip(found, expected, strict=True) for a, b in zip(one, two, strict=False))
