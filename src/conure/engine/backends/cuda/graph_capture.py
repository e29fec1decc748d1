"""Capture and replay of device work: one launch instead of thousands.

Captured work is a function without arguments or result that reads and writes tensors at fixed addresses, which the
graph records. It must not synchronise with the device or copy from pageable host memory. `CudaGraphCapturer` captures
CUDA graphs; `no_capture` is the reference implementation, which runs the work itself.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["CudaGraphCapturer", "GraphCapturer", "no_capture", "graph_capturer_for"]

log = logging.getLogger(__name__)

Work = Callable[[], None]

WARM_UPS = 2
"""Runs of the work before a capture."""
TOLERANCE = 0.02
"""Allowed difference between work and replay, relative to the largest value: libraries may select other kernels."""
MAX_CHECKED_GRAPHS = 3
"""Graphs that are compared with the work itself; errors show up in the first ones."""


class GraphCapturer(Protocol):
    def __call__(self, work: Work, results: Sequence[Tensor] = ()) -> Work:
        """Returns a function that replays the work. `results` are tensors that the work writes; they must not depend on
        state that it changes."""
        ...


def no_capture(work: Work, results: Sequence[Tensor] = ()) -> Work:
    """Returns the work itself."""
    return work


def graph_capturer_for(device: torch.device, stream: torch.cuda.Stream | None = None) -> GraphCapturer:
    return CudaGraphCapturer(device, stream) if device.type == "cuda" else no_capture


class CudaGraphCapturer:
    """Captures CUDA graphs that share one memory pool, because they are replayed one after the other.

    Graphs are captured on `stream`, on which they must be replayed, or on a stream of the capturer. Kernels keep the
    priority of their capture stream, and all products captured on a stream share one cuBLAS workspace: work that runs
    concurrently must be captured on another stream. Graphs live as long as the capturer, because destroying one makes
    torch free that workspace, and a pool without graphs cannot be reused.
    """

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self.device = device
        self.failed = False
        self._stream = stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._pool: Any = None
        self._checked = 0

    def __call__(self, work: Work, results: Sequence[Tensor] = ()) -> Work:
        """Returns a replay of the work, or the work itself if its capture fails or its results differ."""
        if not self.failed:
            try:
                with self._exclusive_stream():
                    replay = self._capture(work)
                    if self._checked < MAX_CHECKED_GRAPHS:
                        _check(work, replay, results)
                        self._checked += 1
                return replay
            except (RuntimeError, AssertionError) as error:
                log.warning("CUDA graphs are disabled, which slows down every step: %s", error)
                self.failed = True
        torch.cuda.synchronize(self.device)  # the inputs may have been written on either stream
        return work

    def capture_repeated(self, work: Work, unfinished: Tensor, times: int) -> Work:
        """Captures the work once, and up to `times` repetitions while `unfinished`, a bool tensor that it writes, is
        true.

        The device evaluates the condition. Raises RuntimeError if torch (before 2.13) or the driver has no conditional
        nodes.
        """
        if not hasattr(torch.cuda.CUDAGraph, "begin_capture_to_if_node"):
            raise RuntimeError(f"torch {torch.__version__} has no conditional nodes")

        def repeated() -> None:
            work()
            for _ in range(times):
                with _conditional_node(unfinished):
                    work()

        with self._exclusive_stream():
            return self._capture(work, repeated)

    @contextlib.contextmanager
    def _exclusive_stream(self) -> Iterator[None]:
        """Switches to the capturer's stream on an idle device, and back even if a capture fails."""
        torch.cuda.synchronize(self.device)
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.synchronize(self.device)

    def _capture(self, work: Work, captured: Work | None = None) -> Work:
        """Runs the work before the capture: libraries select kernels and allocate workspaces in the first runs."""
        for _ in range(WARM_UPS):
            work()
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)
        # Work of other threads during the capture, such as uploads of clips, does not affect it.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            (captured or work)()
        self._pool = self._pool or graph.pool()
        return graph.replay


def _check(work: Work, replay: Work, results: Sequence[Tensor]) -> None:
    """Raises RuntimeError if the results of a replay differ from those of the work."""
    outputs = []
    for run in (work, replay):
        for result in results:
            result.zero_()
        run()
        torch.cuda.synchronize()
        outputs.append([result.float().clone() for result in results])
    for expected, got in zip(*outputs, strict=True):
        difference, largest = float((expected - got).abs().max()), float(expected.abs().max())
        if not difference <= TOLERANCE * largest:
            raise RuntimeError(f"replay and work differ by {difference:.2g}; the largest value is {largest:.2g}")


@contextlib.contextmanager
def _conditional_node(condition: Tensor) -> Iterator[None]:
    """Captures the body of the context as a conditional node."""
    graph = torch.cuda.CUDAGraph.get_currently_capturing_graph()
    graph.begin_capture_to_if_node(condition)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        graph.end_capture_to_conditional_node()  # type: ignore[no-untyped-call]
