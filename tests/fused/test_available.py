from __future__ import annotations

import pytest
import torch

from conure.fused.available import available


def test_a_cpu_runs_kernels_only_where_they_are_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert available(cpu)
    monkeypatch.delenv("TRITON_INTERPRET")
    assert not available(cpu)


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_runs_them_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert available(torch.device("cuda")) is expected


def test_other_devices_run_none() -> None:
    assert not available(torch.device("meta"))
