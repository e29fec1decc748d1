"""Where the kernels run."""

from __future__ import annotations

import functools

import torch

__all__ = ["available"]

CAPABILITY = (8, 0)
"""The first of NVIDIA's generations that multiplies bfloat16."""


def available(device: torch.device) -> bool:
    """Whether the kernels run on a device: on a GPU, and on a CPU where Triton was told to interpret them."""
    if not _installed():
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= CAPABILITY
    return device.type == "cpu" and _interpreted()


@functools.cache
def _installed() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def _interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)
