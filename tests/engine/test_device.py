"""What torch's errors mean for the engine, in the words of several of its releases."""

from __future__ import annotations

import psutil
import pytest
import torch

from conure.engine.device import device_failed, free_bytes, out_of_memory, told

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


@pytest.mark.parametrize("error", MEMORY, ids=told)
def test_no_memory(error: RuntimeError) -> None:
    assert out_of_memory(error)
    assert device_failed(error)


@pytest.mark.parametrize("error", FAILURES, ids=told)
def test_a_failure(error: RuntimeError) -> None:
    assert device_failed(error)
    assert not out_of_memory(error)
    assert "\n" not in told(error)


@pytest.mark.parametrize("error", [RuntimeError("the card is gone"), ValueError("CUDA error: none")], ids=str)
def test_others_are_ours(error: Exception) -> None:
    assert not device_failed(error)
    assert not out_of_memory(error)


def test_what_is_free_on_the_cpu() -> None:
    assert 0 < free_bytes(torch.device("cpu")) < psutil.virtual_memory().total
