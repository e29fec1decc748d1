"""Kernels are used where they run and agree, and can be refused."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from conure.fused import self_test
from conure.fused.available import has_fused_kernels, without_kernels
from tests.fused.devices import DEVICE


@torch.inference_mode()
def test_the_self_test_finds_that_they_agree() -> None:
    assert self_test.disagreement(DEVICE, torch.float32) is None


@torch.inference_mode()
def test_the_self_test_names_a_kernel_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*given: object, kernels: bool) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(5, dtype=torch.long), torch.ones(5) + 0.1 * kernels, torch.ones(5))

    monkeypatch.setattr(self_test, "best_tokens", wrong)
    assert "scores of tokens is 0.1 away" in str(self_test.disagreement(DEVICE, torch.float32))


def test_on_a_processor_only_where_they_are_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert has_fused_kernels(cpu)
    monkeypatch.delenv("TRITON_INTERPRET")
    assert not has_fused_kernels(cpu)


def test_not_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    from conure.fused import available as module  # noqa: PLC0415

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    module._installed.cache_clear()
    assert not has_fused_kernels(torch.device("cpu"))
    monkeypatch.undo()
    module._installed.cache_clear()


def test_they_can_be_refused() -> None:
    with without_kernels():
        with without_kernels():
            assert not has_fused_kernels(DEVICE)
        assert not has_fused_kernels(DEVICE)
    assert has_fused_kernels(DEVICE)
