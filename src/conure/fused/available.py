"""Where the kernels run: on a GPU on which they give what their plain twins give, and where they are interpreted."""

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
"""The first of NVIDIA's generations that multiplies bfloat16."""

_refused = 0
"""How many times over nobody is to have kernels."""


def has_fused_kernels(device: torch.device) -> bool:
    """Whether the kernels run on a device. The first answer for a GPU takes as long as it takes to compile them."""
    if _refused:
        return False
    if device.type == "cuda":
        return _agree(device)
    return bool(os.environ.get("TRITON_INTERPRET")) and _installed()


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Plain twins alone, to compare them."""
    global _refused
    _refused += 1
    try:
        yield
    finally:
        _refused -= 1


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _agree(device: torch.device) -> bool:
    if not _installed() or torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    from conure.fused.self_test import disagreement

    try:
        found = disagreement(device)
    except Exception as error:  # a compiler or a card that cannot: the plain twins can
        found = f"{type(error).__name__}: {error}"
    if found:
        log.warning("kernels are not used on %s, which costs time in every turn: %s", device, found)
    return not found
