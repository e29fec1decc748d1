"""Where networks run, a device's memory, and what its errors mean: torch tells of both in sentences.

torch is asked where a device is not the CPU, and loaded nowhere else.
"""

from __future__ import annotations

import sys
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

__all__ = [
    "CPU",
    "Device",
    "has_gpu_driver",
    "is_device_failure",
    "free_bytes",
    "release_cached_memory",
    "limit_gpu_memory",
    "is_out_of_memory",
    "error_summary",
]

ALLOCATION = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED")
"""How what is not torch's own allocator says that there was no memory."""
FAILURE = ("CUDA error", "CUDA driver error", "cuBLAS error", "cuDNN error", "cuFFT error", "device-side assert")
"""How errors begin, or what they hold, after which no kernel of the process will run any more. torch has a type for
some of them, from 2.8 on for most."""


DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
"""One of them is there where Linux has a driver for a card that torch knows."""


class Device(Protocol):
    """As torch has it, of which the CPU needs none."""

    @property
    def type(self) -> str:
        """cpu or cuda."""
        ...


@dataclass(frozen=True)
class _Cpu:
    type: str = "cpu"

    def __str__(self) -> str:
        return self.type


CPU: Device = _Cpu()


def has_gpu_driver() -> bool:
    """False where there can be no card: to look for the driver takes no time, and to ask torch is to load it."""
    if sys.platform == "win32":
        return find_library("nvcuda") is not None
    return any(Path(driver).exists() for driver in DRIVERS)


def is_out_of_memory(error: BaseException) -> bool:
    """There was too little memory for what was tried; what is there is sound."""
    return _is_of_torch(error, "OutOfMemoryError") or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ALLOCATION)
    )


def is_device_failure(error: BaseException) -> bool:
    """Nothing that is on the device can be trusted any more, or no turn can be made there."""
    return (
        _is_of_torch(error, "AcceleratorError")
        or is_out_of_memory(error)
        or (isinstance(error, RuntimeError) and any(word in str(error) for word in FAILURE))
    )


def _is_of_torch(error: BaseException, kind: str) -> bool:
    """By name: whoever has none of them need not load torch to know."""
    return any(one.__name__ == kind and one.__module__.partition(".")[0] == "torch" for one in type(error).__mro__)


def error_summary(error: BaseException) -> str:
    """Its first line: the others are advice on how to debug kernels."""
    return str(error).partition("\n")[0]


def free_bytes(device: Device) -> int:
    if device.type == "cuda":
        import torch  # noqa: PLC0415

        free: int = torch.cuda.mem_get_info(str(device))[0]
        return free
    return psutil.virtual_memory().available


def limit_gpu_memory(device: Device, more: int) -> None:
    """Of a card's memory, torch takes so many bytes and what it has, and then says that there is none."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415

        device = torch.device(str(device))
        total = torch.cuda.get_device_properties(device).total_memory
        taken = torch.cuda.memory_reserved(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_per_process_memory_fraction(min((taken + more) / total, 1.0), index)


def release_cached_memory() -> None:
    """What torch keeps for the next tensors of the same sizes is free for others, and for tensors of other sizes."""
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()
