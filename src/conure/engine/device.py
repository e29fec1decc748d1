"""A device's memory, and what its errors mean: torch tells of both in sentences."""

from __future__ import annotations

import psutil
import torch

__all__ = ["device_failed", "free_bytes", "give_back", "hold_to", "out_of_memory", "told"]

ALLOCATION = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED")
"""How what is not torch's own allocator says that there was no memory."""
FAILURE = ("CUDA error", "CUDA driver error", "cuBLAS error", "cuDNN error", "cuFFT error", "device-side assert")
"""How errors begin, or what they hold, after which no kernel of the process will run any more. torch has a type for
some of them, from 2.8 on for most."""


def out_of_memory(error: BaseException) -> bool:
    """There was too little memory for what was tried; what is there is sound."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ALLOCATION)
    )


def device_failed(error: BaseException) -> bool:
    """Nothing that is on the device can be trusted any more, or no turn can be made there."""
    kind = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)
    return (
        isinstance(error, kind)
        or out_of_memory(error)
        or (isinstance(error, RuntimeError) and any(word in str(error) for word in FAILURE))
    )


def told(error: BaseException) -> str:
    """Its first line: the others are advice on how to debug kernels."""
    return str(error).partition("\n")[0]


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return psutil.virtual_memory().available


def hold_to(device: torch.device, more: int) -> None:
    """Of a card's memory, torch takes so many bytes and what it has, and then says that there is none."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        taken = torch.cuda.memory_reserved(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_per_process_memory_fraction(min((taken + more) / total, 1.0), index)


def give_back() -> None:
    """What torch keeps for the next tensors of the same sizes is free for others, and for tensors of other sizes."""
    torch.cuda.empty_cache()
