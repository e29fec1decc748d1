"""Whether the fused kernels can run: on a GPU where they pass the self-test, or in Triton's interpreter."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
from collections.abc import Iterator

import torch

__all__ = ["has_fused_kernels", "without_kernels"]

log = logging.getLogger(__name__)

CAPABILITY = (8, 0)
"""Minimal compute capability: the first with bfloat16 tensor cores (Ampere)."""

_disabled = 0
"""Nesting depth of `without_kernels`."""


def has_fused_kernels(device: torch.device) -> bool:
    """Whether the kernels run on a device. The first call for a GPU compiles and tests them."""
    if _disabled:
        return False
    if device.type == "cuda":
        return _passes_self_test(device)
    return bool(os.environ.get("TRITON_INTERPRET")) and _is_installed()


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Disables the kernels within the context, to compare with the reference implementations."""
    global _disabled
    _disabled += 1
    try:
        yield
    finally:
        _disabled -= 1


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _passes_self_test(device: torch.device) -> bool:
    if not _is_installed() or torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    from conure.fused.self_test import find_mismatch

    try:
        problem = find_mismatch(device)
    except Exception as error:  # compiler or GPU errors: the reference implementations still work
        problem = f"{type(error).__name__}: {error}"
    if problem:
        log.warning("fused kernels are disabled on %s, which slows down every step: %s", device, problem)
    return not problem
