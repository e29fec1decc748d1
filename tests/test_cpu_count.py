"""Cores and processors, limited by affinity and container quotas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conure.cpu_count import SIBLINGS, core_count, processor_count


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four cores with two processors each."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for number in range(8):
        write(tmp_path / SIBLINGS.format(number), f"{number % 4},{number % 4 + 4}\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_processors_of_one_core_count_as_one(root: Path) -> None:
    assert (processor_count(root), core_count(root)) == (8, 4)


def test_only_processors_in_the_affinity_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 5}, raising=False)
    assert (processor_count(root), core_count(root)) == (3, 2)


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 4)]
)
def test_quotas_of_a_container(root: Path, quota: str, expected: int) -> None:
    write(root / "proc/self/cgroup", "0::/\n")
    write(root / "sys/fs/cgroup/cpu.max", quota + "\n")
    assert core_count(root) == expected


def test_the_least_of_all_groups_counts(root: Path) -> None:
    write(root / "proc/self/cgroup", "0::/pod/box\n")
    write(root / "sys/fs/cgroup/pod/cpu.max", "300000 100000\n")
    write(root / "sys/fs/cgroup/pod/box/cpu.max", "max 100000\n")
    assert (processor_count(root), core_count(root)) == (3, 3)


def test_the_first_version_of_control_groups(root: Path) -> None:
    write(root / "proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box\n")
    write(root / "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "200000\n")
    write(root / "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    assert core_count(root) == 2


def test_no_limit_is_no_limit(root: Path) -> None:
    write(root / "proc/self/cgroup", "3:cpu:/\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert core_count(root) == 4


def test_without_topology_each_processor_is_a_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert core_count(tmp_path) == processor_count(tmp_path) == 3


def test_this_machine_has_one() -> None:
    assert 1 <= core_count() <= processor_count() <= (os.cpu_count() or 1)
