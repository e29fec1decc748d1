"""Kernels are used where they run and pass the self-test, and can be disabled."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from conure.fused import self_test
from conure.fused.available import has_fused_kernels, without_kernels
from tests.fused.devices import DEVICE


@torch.inference_mode()
def test_self_test_passes() -> None:
    assert self_test.find_mismatch(DEVICE, torch.float32) is None


@torch.inference_mode()
def test_self_test_names_the_failing_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: object, kernels: bool) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(5, dtype=torch.long), torch.ones(5) + 0.1 * kernels, torch.ones(5))

    monkeypatch.setattr(self_test, "best_tokens", wrong)
    assert "the token scores kernel differs from its reference by 0.1" in str(
        self_test.find_mismatch(DEVICE, torch.float32)
    )


def test_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert has_fused_kernels(cpu)
    monkeypatch.delenv("TRITON_INTERPRET")
    assert not has_fused_kernels(cpu)


def test_unavailable_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    from conure.fused import available as module  # noqa: PLC0415

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    module._is_installed.cache_clear()
    assert not has_fused_kernels(torch.device("cpu"))
    monkeypatch.undo()
    module._is_installed.cache_clear()


def test_kernels_can_be_disabled() -> None:
    with without_kernels():
        with without_kernels():
            assert not has_fused_kernels(DEVICE)
        assert not has_fused_kernels(DEVICE)
    assert has_fused_kernels(DEVICE)
