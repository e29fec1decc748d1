"""Single operators of real sizes: attention of a clip of 30 s, best tokens, the speech detector."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from bench.audio import speech
from bench.gpu.agreement import in_float32
from bench.gpu.device import free_memory
from bench.gpu.result_table import NOTHING, ResultTable
from bench.gpu.streams import random_silero
from conure.decoding.emitted_token import ALPHA
from conure.fused.available import has_fused_kernels
from conure.fused.clip_attention import attend_clip
from conure.fused.token_scores import best_tokens
from conure.vad.silero_weights import STEP

__all__ = ["parts"]

CPU = torch.device("cpu")
HEADS, WIDTH, JOINT, VOCABULARY = 8, 128, 640, 8193
CLIP, SHORTER = 375, 301
"""Encoder frames: a clip of 30 s, and a shorter clip in the same batch."""
PLANS = 64
FRAMES = 512
"""Encoder frames for which tokens are chosen."""


@torch.inference_mode()
def parts(device: torch.device) -> ResultTable:
    columns = ("part", "form", "relative distance", "ids that differ")
    table = ResultTable("Parts, against float32 on the CPU", columns)
    with table.record_failures("attention to clips"):
        _attention(table, device)
    with table.record_failures("best tokens"):
        _best_tokens(table, device)
    with table.record_failures("the speech detector"):
        with in_float32():
            expected = _speech_probabilities(CPU)
        table.add_row(
            "speech detector", "the process's precision", _distance(_speech_probabilities(device), expected), NOTHING
        )
    if device.type == "cuda":
        with table.record_failures("spectra"):
            table.add_note(
                f"{PLANS} sizes of spectra take {_plan_memory(device) / 1e6:.0f} MB of the device beside torch's own."
            )
    return table


def _attention(table: ResultTable, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(2, CLIP, 3, HEADS, WIDTH, generator=generator)
    positions = torch.randn(HEADS, 2 * CLIP - 1, WIDTH, generator=generator)
    biases = torch.randn(2, HEADS, WIDTH, generator=generator)

    def attended(device: torch.device, dtype: torch.dtype, kernels: bool) -> Tensor:
        (query, key, value), (bias_u, bias_v) = steps.to(device, dtype).unbind(2), biases.to(device, dtype)
        counts = torch.tensor([CLIP, SHORTER], device=device)
        given = query, key, value, positions.to(device, dtype), bias_u, bias_v, counts
        mixed = attend_clip(*given, kernels=kernels).float().cpu()
        return torch.cat([mixed[0], mixed[1, :SHORTER]])

    with in_float32():
        expected = attended(CPU, torch.float32, False)
    for dtype in (torch.float32, torch.bfloat16):
        for name, kernels, context in _variants(device):
            if kernels and dtype == torch.float32:  # takes half a minute to compile, and is not used
                continue
            with table.record_failures(f"attention to clips, {name}"), context:
                got = attended(device, dtype, kernels)
                form = f"{str(dtype).removeprefix('torch.')}, {name}"
                table.add_row("attention to clips of 30 s", form, _distance(got, expected), NOTHING)


def _best_tokens(table: ResultTable, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (
        torch.randn(FRAMES, JOINT, generator=generator),
        torch.randn(VOCABULARY, JOINT, generator=generator),
    )
    bias = torch.randn(VOCABULARY, generator=generator)

    def found(device: torch.device, kernels: bool) -> tuple[Tensor, Tensor]:
        given = hidden.to(device), (weight * 0.1).to(device), bias.to(device)
        ids, *sure = best_tokens(*given, ALPHA, kernels=kernels)
        return ids.cpu(), torch.stack(sure).cpu()

    with in_float32():
        ids, sure = found(CPU, False)
    for name, kernels, context in _variants(device):
        with table.record_failures(f"best tokens, {name}"), context:
            mine, sureness = found(device, kernels)
            table.add_row("best tokens", name, _distance(sureness, sure), f"{int((mine != ids).sum())} of {FRAMES}")


def _variants(device: torch.device) -> Iterator[tuple[str, bool, AbstractContextManager[None]]]:
    """With the process's precision of float32 products (TF32 after a runner was made), and with full float32."""
    yield "torch", False, contextlib.nullcontext()
    yield "torch, products in full", False, in_float32()
    if has_fused_kernels(device):
        yield "kernel", True, contextlib.nullcontext()


def _speech_probabilities(device: torch.device) -> Tensor:
    """Speech probabilities of some seconds, three rows and three windows at a time."""
    silero = random_silero(device)
    state = silero.allocate(4)
    rows, counts = torch.arange(3, device=device), torch.full((3,), 3, device=device)
    samples = torch.from_numpy(speech(11.0))[: 3 * 100 * STEP].view(3, -1).to(device)
    outputs = []
    for at in range(0, samples.shape[1] - 3 * STEP + 1, 3 * STEP):
        fresh = torch.full((3,), at == 0, device=device)
        outputs.append(silero.detect(samples[:, at : at + 3 * STEP], counts, fresh, rows, state).cpu())
    return torch.cat(outputs, 1)


def _plan_memory(device: torch.device) -> float:
    """Bytes of cuFFT plans for PLANS new sizes; torch caches 4,096 plans."""
    torch.fft.rfft(torch.zeros(1, 512, device=device))
    torch.cuda.empty_cache()
    before = free_memory(device)
    for rows in range(1001, 1001 + PLANS):
        torch.fft.rfft(torch.zeros(rows, 512, device=device))
    torch.cuda.empty_cache()
    return before - free_memory(device)


def _distance(got: Tensor, expected: Tensor) -> str:
    return f"{float((got - expected).norm() / expected.norm()):.1e}"
