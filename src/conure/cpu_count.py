"""Processors (hardware threads) and cores that this process may use; numbers of threads and processes derive from them.

A container's CPU quota is not part of the operating system's count, so control groups are read. Two processors of one
core multiply no faster than one, and more compute threads than cores wait for one another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["core_count", "processor_count"]

ROOT = Path("/")
SIBLINGS = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
CGROUPS = "sys/fs/cgroup"


def processor_count(root: Path = ROOT) -> int:
    """Processors in this process's CPU affinity, limited by the quota of its container."""
    return _limit(len(_affinity()), root)


def core_count(root: Path = ROOT) -> int:
    """As `processor_count`, but processors that share a core count as one."""
    return _limit(len({_core(number, root) for number in _affinity()}), root)


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(processor: int, root: Path) -> str:
    """Id of the processor's core: its sibling list on Linux; elsewhere each processor is a core."""
    try:
        return (root / SIBLINGS.format(processor)).read_text()
    except OSError:
        return str(processor)


def _limit(count: int, root: Path) -> int:
    """Quotas are rounded down: a thread with a part of a processor's time delays those that wait for it."""
    return max(1, min(count, *map(int, _quotas(root)), count))


def _quotas(root: Path) -> Iterator[float]:
    """Quotas, in processors, of the control groups of this process, outermost first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        group = root / CGROUPS / ("cpu" if kinds else "")
        for part in ("", *Path(path.lstrip("/")).parts):
            group /= part
            yield from _quota(group)


def _quota(group: Path) -> Iterator[float]:
    """cgroup v2: one file, "max 100000" or "150000 100000" (quota, period); v1: two files."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return
