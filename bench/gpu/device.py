"""The device under test: its name, its ceilings, and how to time what it does."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Ceilings", "Spread", "ceilings", "free", "name_of", "peak", "timed", "wait"]

WARM_UPS, LEAST_ROUNDS, ROUNDS = 2, 3, 15
MOST = 2.0
"""Seconds of measuring, from which on no further round is begun."""


@dataclass(frozen=True)
class Spread:
    """Seconds."""

    least: float
    median: float
    p99: float


@dataclass(frozen=True)
class Ceilings:
    """What the device does with nothing else to do, measured."""

    copied: float
    """Bytes a second, read and written."""
    products: float
    """Operations a second of bfloat16 products."""


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"CPU, torch {torch.__version__}, {torch.get_num_threads()} threads"


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, call: Callable[[], object], rounds: int = ROUNDS, most: float = MOST) -> Spread:
    """From the call to when the device is done, on the host's clock, after some that warm up.

    Of so many rounds, or of those that end in `most` seconds, three at least; of one on a processor.
    """
    warm_ups, rounds = (WARM_UPS, rounds) if device.type == "cuda" else (1, 1)
    for _ in range(warm_ups):
        call()
    wait(device)
    took: list[float] = []
    while len(took) < rounds and (len(took) < LEAST_ROUNDS or sum(took) < most):
        begin = time.perf_counter()
        call()
        wait(device)
        took.append(time.perf_counter() - begin)
    took.sort()
    return Spread(took[0], statistics.median(took), took[min(len(took) - 1, int(0.99 * len(took)))])


def ceilings(device: torch.device) -> Ceilings:
    large = device.type == "cuda"
    source = torch.randn(1 << (31 if large else 26), dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / timed(device, functools.partial(target.copy_, source)).median
    del source, target
    size = 8192 if large else 512
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    return Ceilings(copied, 2 * size**3 / timed(device, lambda: left @ right).median)


def free(device: torch.device) -> float:
    """Bytes."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 4e9


def peak(device: torch.device, call: Callable[[], object]) -> float:
    """Bytes that the device holds at most while something is done; 0 where torch cannot tell."""
    if device.type != "cuda":
        call()
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return float(torch.cuda.max_memory_allocated(device))
