"""Each kernel beside its plain twin, on a few random numbers, before any of them is relied on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from conure.fused.clip_attention import attend_clip
from conure.fused.filter_step import filter_step
from conure.fused.joint_step import joint_step
from conure.fused.label_step import Rules, label_step
from conure.fused.lstm_step import lstm_step
from conure.fused.ring_attention import attend_ring
from conure.fused.token_scores import best_tokens

__all__ = ["disagreement"]

TOLERANCE = 0.03
"""Relative, of all that a kernel gives together: bfloat16 rounds to 0.004."""
HEADS, WIDTH, PAST, CHUNK = 2, 64, 24, 3

Run = Callable[[bool], list[Tensor]]
"""With the kernel or without: what it gives and what it wrote."""


def disagreement(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> str | None:
    """Which kernel gives something else than its twin; None where none does. Raises what a compiler raises."""
    generator = torch.Generator(device).manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=generator).to(dtype)

    for name, run in _runs(noise, device):
        for got, expected in zip(run(True), run(False), strict=True):
            apart = float((got.float() - expected.float()).norm() / expected.float().norm())
            if not apart <= TOLERANCE:
                return f"{name} is {apart:.2g} away from its plain twin"
    return None


def _runs(noise: Callable[..., Tensor], device: torch.device) -> Iterator[tuple[str, Run]]:
    # The second row only tries its chunk.
    numbers = [2, 0], [2, 1], [40, 5], [CHUNK, 1]
    rows, into, age, counts = (torch.tensor(values, device=device) for values in numbers)
    query, key, value = noise(2, CHUNK, 3, HEADS, WIDTH).unbind(2)
    distances = PAST + 2 * CHUNK - 1
    by_distance = noise(HEADS, 2 * CHUNK, distances), noise(HEADS, distances), noise(HEADS, WIDTH)
    rings = noise(3, HEADS, PAST, WIDTH), noise(3, HEADS, PAST, WIDTH)

    def ring(kernels: bool) -> list[Tensor]:
        own = [part.clone() for part in rings]
        given = query, *by_distance, key, value, *own, rows, into, age, counts
        return [attend_ring(*given, kernels=kernels)[:, :1], *own]

    yield "attention to rings", ring
    queries, clip_keys, clip_values = noise(2, 50, 3, HEADS, WIDTH).unbind(2)
    around = noise(HEADS, 99, WIDTH), noise(HEADS, WIDTH), noise(HEADS, WIDTH)
    lengths = torch.tensor([50, 50], device=device)
    clip = queries, clip_keys, clip_values, *around, lengths
    yield "attention to clips", lambda kernels: [attend_clip(*clip, kernels=kernels)]
    mixed, weight, cache = noise(2, CHUNK, 2 * WIDTH), noise(9, WIDTH), noise(3, 8, WIDTH)
    norm = nn.LayerNorm(WIDTH, device=device, dtype=mixed.dtype)

    def filtered(kernels: bool) -> list[Tensor]:
        own = cache.clone()
        return [filter_step(mixed, own, rows, into, age, counts, weight, None, norm, kernels=kernels)[:, :1], own]

    yield "the filter", filtered
    hidden, heads, bias = noise(5, WIDTH).float(), noise(300, WIDTH).float(), noise(300).float()
    yield "scores of tokens", lambda kernels: list(best_tokens(hidden, heads, bias, 0.33, kernels=kernels))[1:]
    yield from _runs_of_decoders(noise, device)


def _runs_of_decoders(noise: Callable[..., Tensor], device: torch.device) -> Iterator[tuple[str, Run]]:
    time, counts, zeros = (torch.tensor(values, device=device) for values in ([0, 4], [6, 6], [0, 0]))
    # A blank and then a token; blanks up to the end.
    ids, duration = torch.tensor([[[9, 1, 2, 3], [9, 9, 9, 4]], [[1, 2, 1, 0], [0, 1, 1, 3]]], device=device)
    scored, rules = (ids, duration, noise(2, 4).float(), noise(2, 4).float()), Rules(9, (0, 1, 2, 4), 5)

    def label(kernels: bool) -> list[Tensor]:
        here, repeats, count = time.clone(), zeros.clone(), zeros.clone()
        whole, real = torch.zeros(3, 2, 9, device=device).long(), torch.zeros(2, 2, 9, device=device)
        written = whole[0], whole[1], whole[2], real[0], real[1], count
        emits, _ = label_step(scored, counts, counts, here, repeats, written, rules, kernels=kernels)
        return [emits, torch.cat([here, repeats, count]), whole[..., :8], real[..., :8]]

    yield "a step of the decoders", label
    joint = noise(2, 5, WIDTH), time, noise(2, WIDTH), 2, noise(5, WIDTH), noise(5)
    yield "what the joint reads", lambda kernels: [joint_step(*joint, kernels=kernels)[0]]
    gates, biases, state = noise(2, 2, 4 * WIDTH), noise(2, 4 * WIDTH), noise(2, 2, WIDTH)

    def lstm(kernels: bool) -> list[Tensor]:
        hidden, cell = state[0].clone(), state[1].clone()
        lstm_step(gates[0], gates[1], biases[0], biases[1], time > 0, hidden, cell, kernels=kernels)
        return [hidden, cell]

    yield "the cell", lstm
