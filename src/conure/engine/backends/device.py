"""Devices, their memory, and the classification of device errors, which torch reports as text.

torch is imported only for devices other than the CPU.
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

ALLOCATION_MESSAGES = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED")
"""Out-of-memory messages that do not come from torch's allocator."""
FAILURE_MESSAGES = (
    "CUDA error",
    "CUDA driver error",
    "cuBLAS error",
    "cuDNN error",
    "cuFFT error",
    "device-side assert",
)
"""Parts of error messages after which no kernel of the process can run any more. torch has exception types for some of
them, from version 2.8 on for most."""


DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")
"""One of these exists if Linux has a driver for a GPU that torch supports."""


class Device(Protocol):
    """The part of `torch.device` that we need, so that the CPU works without torch."""

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
    """Whether a GPU driver is installed. Checking files takes no time; torch would have to be imported first."""
    if sys.platform == "win32":
        return find_library("nvcuda") is not None
    return any(Path(driver).exists() for driver in DRIVERS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. Existing tensors stay valid."""
    return _is_torch_error(error, "OutOfMemoryError") or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ALLOCATION_MESSAGES)
    )


def is_device_failure(error: BaseException) -> bool:
    """Whether the contents of the device are lost, or no step can run on it any more."""
    return (
        _is_torch_error(error, "AcceleratorError")
        or is_out_of_memory(error)
        or (isinstance(error, RuntimeError) and any(word in str(error) for word in FAILURE_MESSAGES))
    )


def _is_torch_error(error: BaseException, name: str) -> bool:
    """Compares by name, so that torch need not be imported."""
    return any(base.__name__ == name and base.__module__.partition(".")[0] == "torch" for base in type(error).__mro__)


def error_summary(error: BaseException) -> str:
    """The first line of an error message; torch's further lines are advice on debugging kernels."""
    return str(error).partition("\n")[0]


def free_bytes(device: Device) -> int:
    if device.type == "cuda":
        import torch  # noqa: PLC0415

        free: int = torch.cuda.mem_get_info(str(device))[0]
        return free
    return psutil.virtual_memory().available


def limit_gpu_memory(device: Device, more: int) -> None:
    """Limits torch to its current memory and `more` bytes of a GPU; further allocations fail."""
    if device.type == "cuda":
        import torch  # noqa: PLC0415

        device = torch.device(str(device))
        total = torch.cuda.get_device_properties(device).total_memory
        reserved = torch.cuda.memory_reserved(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_per_process_memory_fraction(min((reserved + more) / total, 1.0), index)


def release_cached_memory() -> None:
    """Returns cached blocks of torch's allocator to the device, for other processes and other sizes."""
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()
