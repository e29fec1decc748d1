"""What a recording bears, on a card; turns and decoders are tested with tapes elsewhere."""

from __future__ import annotations

import threading

import pytest
import torch

from conure.engine.backends.cuda.graph_capture import CudaGraphCapturer, graph_capturer_for, no_capture

CPU = torch.device("cpu")
card = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card")


class Product:
    """Work on tensors that stay where they are."""

    def __init__(self, size: int) -> None:
        self.given = torch.randn(size, size, device="cuda")
        self.made = torch.zeros_like(self.given)

    def __call__(self) -> None:
        self.made.copy_(self.given @ self.given)

    def is_done_by(self, play: object) -> bool:
        self.given.normal_()
        assert callable(play)
        play()
        return torch.allclose(self.made, self.given @ self.given, rtol=1e-2, atol=1e-2)


def test_a_processor_records_nothing() -> None:
    assert graph_capturer_for(CPU) is no_capture


@card
def test_recordings_go_on_where_all_before_were_given_up() -> None:
    recorder = CudaGraphCapturer(torch.device("cuda"))
    for size in (64, 128, 32):
        work = Product(size)
        assert work.is_done_by(recorder(work, [work.made]))
        del work
    assert not recorder.failed


@card
def test_other_threads_may_use_the_device_meanwhile() -> None:
    recorder, begun, stop = CudaGraphCapturer(torch.device("cuda")), threading.Event(), threading.Event()

    def upload() -> None:
        sizes = iter(range(1, 1 << 20))
        while not stop.is_set():
            torch.empty(next(sizes) * 4096, pin_memory=True).to("cuda", non_blocking=True)
            begun.set()

    thread = threading.Thread(target=upload)
    thread.start()
    begun.wait()
    works = [Product(size) for size in (64, 96, 128)]
    plays = [recorder(work, [work.made]) for work in works]
    stop.set()
    thread.join()
    assert not recorder.failed
    assert all(work.is_done_by(play) for work, play in zip(works, plays, strict=True))


@card
def test_what_cannot_be_recorded_is_done_as_it_is() -> None:
    recorder = CudaGraphCapturer(torch.device("cuda"))
    made = torch.zeros(1, device="cuda")

    def asks() -> None:
        made.add_(made.sum().item() + 1)

    before = torch.cuda.current_stream()
    play = recorder(asks)
    assert recorder.failed
    assert torch.cuda.current_stream() == before
    value = made.item()
    play()
    assert made.item() == 2 * value + 1
