"""Compares each kernel with its reference implementation on random inputs, before the kernels are used."""

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

__all__ = ["find_mismatch"]

TOLERANCE = 0.03
"""Relative error over all outputs of a kernel; bfloat16 rounds to 0.004."""
HEADS, WIDTH, PAST, CHUNK = 2, 64, 24, 3

Run = Callable[[bool], list[Tensor]]
"""Runs a function with or without its kernel; returns its outputs and the tensors that it has written."""


def find_mismatch(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> str | None:
    """Describes the first kernel that differs from its reference; None if all agree. Compiler errors propagate."""
    generator = torch.Generator(device).manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=generator).to(dtype)

    for name, run in _test_runs(noise, device):
        for got, expected in zip(run(True), run(False), strict=True):
            error = float((got.float() - expected.float()).norm() / expected.float().norm())
            if not error <= TOLERANCE:
                return f"the {name} kernel differs from its reference by {error:.2g}"
    return None


def _test_runs(noise: Callable[..., Tensor], device: torch.device) -> Iterator[tuple[str, Run]]:
    # The second row is flushed: it writes to another slot.
    row_values = [2, 0], [2, 1], [40, 5], [CHUNK, 1]
    slots, write_slots, age, counts = (torch.tensor(values, device=device) for values in row_values)
    query, key, value = noise(2, CHUNK, 3, HEADS, WIDTH).unbind(2)
    distances = PAST + 2 * CHUNK - 1
    by_distance = noise(HEADS, 2 * CHUNK, distances), noise(HEADS, distances), noise(HEADS, WIDTH)
    rings = noise(3, HEADS, PAST, WIDTH), noise(3, HEADS, PAST, WIDTH)

    def ring(kernels: bool) -> list[Tensor]:
        copies = [part.clone() for part in rings]
        args = query, *by_distance, key, value, *copies, slots, write_slots, age, counts
        return [attend_ring(*args, kernels=kernels)[:, :1], *copies]

    yield "ring attention", ring
    queries, clip_keys, clip_values = noise(2, 50, 3, HEADS, WIDTH).unbind(2)
    around = noise(HEADS, 99, WIDTH), noise(HEADS, WIDTH), noise(HEADS, WIDTH)
    lengths = torch.tensor([50, 50], device=device)
    clip = queries, clip_keys, clip_values, *around, lengths
    yield "clip attention", lambda kernels: [attend_clip(*clip, kernels=kernels)]
    mixed, weight, cache = noise(2, CHUNK, 2 * WIDTH), noise(9, WIDTH), noise(3, 8, WIDTH)
    norm = nn.LayerNorm(WIDTH, device=device, dtype=mixed.dtype)

    def filtered(kernels: bool) -> list[Tensor]:
        copy = cache.clone()
        output = filter_step(mixed, copy, slots, write_slots, age, counts, weight, None, norm, kernels=kernels)
        return [output[:, :1], copy]

    yield "filter step", filtered
    hidden, heads, bias = noise(5, WIDTH).float(), noise(300, WIDTH).float(), noise(300).float()
    yield "token scores", lambda kernels: list(best_tokens(hidden, heads, bias, 0.33, kernels=kernels))[1:]
    yield from _decoder_runs(noise, device)


def _decoder_runs(noise: Callable[..., Tensor], device: torch.device) -> Iterator[tuple[str, Run]]:
    time, counts, zeros = (torch.tensor(values, device=device) for values in ([0, 4], [6, 6], [0, 0]))
    # Row 0: a blank, then a token. Row 1: blanks only, up to the end.
    ids, duration = torch.tensor([[[9, 1, 2, 3], [9, 9, 9, 4]], [[1, 2, 1, 0], [0, 1, 1, 3]]], device=device)
    scored, rules = (ids, duration, noise(2, 4).float(), noise(2, 4).float()), Rules(9, (0, 1, 2, 4), 5)

    def label(kernels: bool) -> list[Tensor]:
        here, repeats, count = time.clone(), zeros.clone(), zeros.clone()
        whole, real = torch.zeros(3, 2, 9, device=device).long(), torch.zeros(2, 2, 9, device=device)
        written = whole[0], whole[1], whole[2], real[0], real[1], count
        emits, _ = label_step(scored, counts, counts, here, repeats, written, rules, kernels=kernels)
        return [emits, torch.cat([here, repeats, count]), whole[..., :8], real[..., :8]]

    yield "label step", label
    joint = noise(2, 5, WIDTH), time, noise(2, WIDTH), 2, noise(5, WIDTH), noise(5)
    yield "joint step", lambda kernels: [joint_step(*joint, kernels=kernels)[0]]
    gates, biases, state = noise(2, 2, 4 * WIDTH), noise(2, 4 * WIDTH), noise(2, 2, WIDTH)

    def lstm(kernels: bool) -> list[Tensor]:
        hidden, cell = state[0].clone(), state[1].clone()
        lstm_step(gates[0], gates[1], biases[0], biases[1], time > 0, hidden, cell, kernels=kernels)
        return [hidden, cell]

    yield "LSTM step", lstm
