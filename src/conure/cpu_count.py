"""How many processors this process may use, and how many cores they are: what threads and processes are counted by.

A container's share of the processors is not in their number, and two processors of one core multiply no faster than
one. More threads than cores wait for one another.
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
    """Those that this process may run on, within what its container is granted."""
    return _within(len(_allowed()), root)


def core_count(root: Path = ROOT) -> int:
    """The same, where processors that share a core count as one."""
    return _within(len({_core(number, root) for number in _allowed()}), root)


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(processor: int, root: Path) -> str:
    """The processors of its core, as Linux lists them; elsewhere each is one of its own."""
    try:
        return (root / SIBLINGS.format(processor)).read_text()
    except OSError:
        return str(processor)


def _within(count: int, root: Path) -> int:
    """Whole ones: a thread that is granted a part of a processor's time holds up those that wait for it."""
    return max(1, min(count, *map(int, _granted(root)), count))


def _granted(root: Path) -> Iterator[float]:
    """Processors' worth of time that the control groups above this process allow, outermost first."""
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
    """Of version 2, "max 100000" or "150000 100000"; of version 1, two files."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return
