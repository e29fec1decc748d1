"""Work on a device that is recorded once and played again: one launch instead of thousands.

Work to be recorded takes nothing, gives nothing, and reads and writes tensors that stay where they are: it is their
places that are recorded. It must ask nothing of the device and make nothing from the host's memory. `CudaGraphCapturer`
records CUDA graphs; `no_capture` is the plain twin.
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
"""Runs before a recording."""
TOLERANCE = 0.02
"""Of the largest value, between work as it is and as it was recorded: libraries may choose other kernels."""
MOST_CHECKED = 3
"""Recordings that are compared with the work itself; what goes wrong goes wrong in the first."""


class GraphCapturer(Protocol):
    def __call__(self, work: Work, results: Sequence[Tensor] = ()) -> Work:
        """What plays it again. `results` are written by the work and depend on nothing that it changes."""
        ...


def no_capture(work: Work, results: Sequence[Tensor] = ()) -> Work:
    """Not recorded: it is done each time."""
    return work


def graph_capturer_for(device: torch.device, stream: torch.cuda.Stream | None = None) -> GraphCapturer:
    return CudaGraphCapturer(device, stream) if device.type == "cuda" else no_capture


class CudaGraphCapturer:
    """CUDA graphs that share one pool of memory, for they are played one after the other.

    They are recorded on the `stream` that they are to be played on, or on one of the recorder's own: kernels keep the
    priority of the stream that they were recorded on, and all products recorded on one stream share a workspace of
    cuBLAS, so what may run at the same time as they must be recorded on another. No graph is given up before the
    recorder: where one is, torch frees that workspace, and a pool without graphs cannot be used again.
    """

    def __init__(self, device: torch.device, stream: torch.cuda.Stream | None = None) -> None:
        self.device = device
        self.failed = False
        self._stream = stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self._pool: Any = None
        self._checked = 0

    def __call__(self, work: Work, results: Sequence[Tensor] = ()) -> Work:
        """Plays a graph; where it cannot be made or gives something else, does the work as it is."""
        if not self.failed:
            try:
                with self._alone():
                    play = self._record(work)
                    if self._checked < MOST_CHECKED:
                        _check(work, play, results)
                        self._checked += 1
                return play
            except (RuntimeError, AssertionError) as error:
                log.warning("CUDA graphs are not used, which costs time in every turn: %s", error)
                self.failed = True
        torch.cuda.synchronize(self.device)  # what the work reads was written on this stream or that
        return work

    def capture_repeated(self, work: Work, unfinished: Tensor, times: int) -> Work:
        """Does the work, and so many times more while it is `unfinished`, a bool that it writes; asks nobody.

        Raises RuntimeError where torch (before 2.13) or the driver has no conditional nodes.
        """
        if not hasattr(torch.cuda.CUDAGraph, "begin_capture_to_if_node"):
            raise RuntimeError(f"torch {torch.__version__} has no conditional nodes")

        def repeated() -> None:
            work()
            for _ in range(times):
                with _only_if(unfinished):
                    work()

        with self._alone():
            return self._record(work, repeated)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """On the recorder's stream, with nothing else on the device; torch leaves its own one set where it fails."""
        torch.cuda.synchronize(self.device)
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.synchronize(self.device)

    def _record(self, work: Work, recorded: Work | None = None) -> Work:
        """Runs the work before, for libraries choose their kernels and make their workspaces in the first runs."""
        for _ in range(WARM_UPS):
            work()
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)
        # What other threads do at the same time, as uploads of clips, is none of this recording's.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            (recorded or work)()
        self._pool = self._pool or graph.pool()
        return graph.replay


def _check(work: Work, play: Work, results: Sequence[Tensor]) -> None:
    """Raises RuntimeError where a recording gives something else than the work."""
    told = []
    for do in (work, play):
        for result in results:
            result.zero_()
        do()
        torch.cuda.synchronize()
        told.append([result.float().clone() for result in results])
    for mine, recorded in zip(*told, strict=True):
        apart, largest = float((mine - recorded).abs().max()), float(mine.abs().max())
        if not apart <= TOLERANCE * largest:
            raise RuntimeError(f"what was recorded is {apart:.2g} away from what it should give, up to {largest:.2g}")


@contextlib.contextmanager
def _only_if(condition: Tensor) -> Iterator[None]:
    """A conditional node around what is recorded within."""
    graph = torch.cuda.CUDAGraph.get_currently_capturing_graph()
    graph.begin_capture_to_if_node(condition)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        graph.end_capture_to_conditional_node()  # type: ignore[no-untyped-call]
