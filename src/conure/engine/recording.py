"""Work on a device that is recorded once and played again: one launch instead of thousands.

Work to be recorded takes nothing, gives nothing, and reads and writes tensors that stay where they are: it is their
places that are recorded. It must ask nothing of the device and make nothing from the host's memory. `CudaRecorder`
records CUDA graphs; `as_it_is` is the plain twin.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["CudaRecorder", "Recorder", "as_it_is", "recorder_for"]

log = logging.getLogger(__name__)

Work = Callable[[], None]

WARM_UPS = 2
"""Runs before a recording: libraries choose their kernels and make their workspaces in the first ones."""
TOLERANCE = 0.02
"""Of the largest value, between work as it is and as it was recorded: libraries may choose other kernels."""
MOST_CHECKED = 3
"""Recordings that are compared with the work itself; what goes wrong goes wrong in the first."""


class Recorder(Protocol):
    def __call__(self, work: Work, results: Sequence[Tensor] = ()) -> Work:
        """What plays it again. `results` are written by the work and depend on nothing that it changes."""
        ...


def as_it_is(work: Work, results: Sequence[Tensor] = ()) -> Work:
    """Not recorded: it is done each time."""
    return work


def recorder_for(device: torch.device) -> Recorder:
    return CudaRecorder(device) if device.type == "cuda" else as_it_is


class CudaRecorder:
    """CUDA graphs that share one pool of memory, for they are played one after the other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.failed = False
        self._pool: Any = None
        self._checked = 0

    def __call__(self, work: Work, results: Sequence[Tensor] = ()) -> Work:
        """Plays a graph; where it cannot be made or gives something else, does the work as it is."""
        if self.failed:
            return work
        try:
            _warm_up(work)
            play = self._record(work)
            if self._checked < MOST_CHECKED:
                _check(work, play, results)
                self._checked += 1
        except (RuntimeError, AssertionError) as error:
            log.warning("CUDA graphs are not used, which costs time in every turn: %s", error)
            self.failed = True
            return work
        return play

    def _record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        self._pool = self._pool or graph.pool()
        return graph.replay

    def repeat(self, work: Work, unfinished: Tensor, times: int) -> Work:
        """Does the work, and so many times more while it is `unfinished`, a bool that it writes; asks nobody.

        Raises RuntimeError or AttributeError where torch (before 2.13) or the driver has no conditional nodes.
        """
        _warm_up(work)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
            for _ in range(times):
                with _only_if(unfinished):
                    work()
        self._pool = self._pool or graph.pool()
        return graph.replay


def _warm_up(work: Work) -> None:
    """On a stream of its own, as torch wants it."""
    torch.cuda.synchronize()
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()


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
