"""What torch's errors mean for the engine, in the words of several of its releases."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
import torch

from conure.engine.backends.device import (
    error_summary,
    free_bytes,
    is_device_failure,
    is_out_of_memory,
    limit_gpu_memory,
)

MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
FAILURES = [
    RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuFFT error: CUFFT_EXEC_FAILED"),
    RuntimeError("index out of bounds: device-side assert triggered"),
]
if hasattr(torch, "AcceleratorError"):
    MEMORY.append(torch.AcceleratorError("CUDA error: out of memory"))
    FAILURES.append(torch.AcceleratorError("CUDA error: unspecified launch failure"))


@pytest.mark.parametrize("error", MEMORY, ids=error_summary)
def test_no_memory(error: RuntimeError) -> None:
    assert is_out_of_memory(error)
    assert is_device_failure(error)


@pytest.mark.parametrize("error", FAILURES, ids=error_summary)
def test_a_failure(error: RuntimeError) -> None:
    assert is_device_failure(error)
    assert not is_out_of_memory(error)
    assert "\n" not in error_summary(error)


@pytest.mark.parametrize("error", [RuntimeError("the card is gone"), ValueError("CUDA error: none")], ids=str)
def test_others_are_ours(error: Exception) -> None:
    assert not is_device_failure(error)
    assert not is_out_of_memory(error)


def test_what_is_free_on_the_cpu() -> None:
    assert 0 < free_bytes(torch.device("cpu")) < psutil.virtual_memory().total


@pytest.mark.parametrize(("device", "index"), [("cuda", 2), ("cuda:1", 1)])
def test_torch_is_held_to_a_part_of_a_card(monkeypatch: pytest.MonkeyPatch, device: str, index: int) -> None:
    held: list[tuple[float, int]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=1_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 100)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *asked: held.append(asked))
    limit_gpu_memory(torch.device(device), 400)
    limit_gpu_memory(torch.device(device), 2_000)
    limit_gpu_memory(torch.device("cpu"), 400)
    assert held == [(0.5, index), (1.0, index)]
