"""The device under test: name, peak rates, timing and memory."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Ceilings", "Spread", "ceilings", "free_memory", "name_of", "peak_memory", "timed", "synchronize"]

WARM_UPS, MIN_ROUNDS, ROUNDS = 2, 3, 15
MAX_SECONDS = 2.0
"""No further round starts after this time."""


@dataclass(frozen=True)
class Spread:
    """Seconds."""

    least: float
    median: float
    p99: float


@dataclass(frozen=True)
class Ceilings:
    """Measured peak rates of the device."""

    copied: float
    """Bytes per second of a copy, read and written."""
    products: float
    """Operations per second of bfloat16 matrix products."""


def name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    return f"CPU, torch {torch.__version__}, {torch.get_num_threads()} threads"


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(
    device: torch.device, call: Callable[[], object], rounds: int = ROUNDS, max_seconds: float = MAX_SECONDS
) -> Spread:
    """Host time from the call until the device is idle, after warm-up.

    Measures `rounds` rounds, or at least MIN_ROUNDS until `max_seconds`; one round on a CPU.
    """
    warm_ups, rounds = (WARM_UPS, rounds) if device.type == "cuda" else (1, 1)
    for _ in range(warm_ups):
        call()
    synchronize(device)
    times: list[float] = []
    while len(times) < rounds and (len(times) < MIN_ROUNDS or sum(times) < max_seconds):
        started_at = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - started_at)
    times.sort()
    return Spread(times[0], statistics.median(times), times[min(len(times) - 1, int(0.99 * len(times)))])


def ceilings(device: torch.device) -> Ceilings:
    large = device.type == "cuda"
    source = torch.randn(1 << (31 if large else 26), dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / timed(device, functools.partial(target.copy_, source)).median
    del source, target
    size = 8192 if large else 512
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    return Ceilings(copied, 2 * size**3 / timed(device, lambda: left @ right).median)


def free_memory(device: torch.device) -> float:
    """Free bytes of the device."""
    return float(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 4e9


def peak_memory(device: torch.device, call: Callable[[], object]) -> float:
    """Peak of allocated bytes during the call; 0 on a CPU."""
    if device.type != "cuda":
        call()
        return 0.0
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return float(torch.cuda.max_memory_allocated(device))
