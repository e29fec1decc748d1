"""Capture of CUDA graphs on a GPU; steps and decoders are tested on the CPU with `tape.py`."""

from __future__ import annotations

import threading

import pytest
import torch

from conure.engine.backends.cuda.graph_capture import CudaGraphCapturer, graph_capturer_for, no_capture

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Product:
    """A matrix product on tensors with fixed addresses."""

    def __init__(self, size: int) -> None:
        self.inputs = torch.randn(size, size, device="cuda")
        self.result = torch.zeros_like(self.inputs)

    def __call__(self) -> None:
        self.result.copy_(self.inputs @ self.inputs)

    def is_done_by(self, replay: object) -> bool:
        self.inputs.normal_()
        assert callable(replay)
        replay()
        return torch.allclose(self.result, self.inputs @ self.inputs, rtol=1e-2, atol=1e-2)


def test_cpu_does_not_capture() -> None:
    assert graph_capturer_for(CPU) is no_capture


@needs_gpu
def test_captures_continue_after_works_are_deleted() -> None:
    capturer = CudaGraphCapturer(torch.device("cuda"))
    for size in (64, 128, 32):
        work = Product(size)
        assert work.is_done_by(capturer(work, [work.result]))
        del work
    assert not capturer.failed


@needs_gpu
def test_other_threads_may_use_the_device_during_a_capture() -> None:
    capturer, begun, stop = CudaGraphCapturer(torch.device("cuda")), threading.Event(), threading.Event()

    def upload() -> None:
        sizes = iter(range(1, 1 << 20))
        while not stop.is_set():
            torch.empty(next(sizes) * 4096, pin_memory=True).to("cuda", non_blocking=True)
            begun.set()

    thread = threading.Thread(target=upload)
    thread.start()
    begun.wait()
    works = [Product(size) for size in (64, 96, 128)]
    replays = [capturer(work, [work.result]) for work in works]
    stop.set()
    thread.join()
    assert not capturer.failed
    assert all(work.is_done_by(replay) for work, replay in zip(works, replays, strict=True))


@needs_gpu
def test_work_that_cannot_be_captured_runs_directly() -> None:
    capturer = CudaGraphCapturer(torch.device("cuda"))
    total = torch.zeros(1, device="cuda")

    def synchronising_work() -> None:
        total.add_(total.sum().item() + 1)

    before = torch.cuda.current_stream()
    replay = capturer(synchronising_work)
    assert capturer.failed
    assert torch.cuda.current_stream() == before
    value = total.item()
    replay()
    assert total.item() == 2 * value + 1
