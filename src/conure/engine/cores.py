"""The cores that this process may use."""

from __future__ import annotations

import os

import psutil

__all__ = ["cores"]


def cores() -> int:
    """As many as compute without standing in each other's way; OMP_NUM_THREADS asks for fewer, as everywhere."""
    allowed = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count() or 1
    real = psutil.cpu_count(logical=False) or allowed
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(allowed, real, int(asked) if asked.isdecimal() and int(asked) else allowed)
