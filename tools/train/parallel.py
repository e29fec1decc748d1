"""Data-parallel training by several single-threaded processes.

On a CPU this is faster than one process with several threads: small operations, data and lattices run in parallel too,
without thread barriers inside operations. The processes exchange gradients once per update in shared memory, with
busy waiting, since on a loaded machine a sleeping process wakes up late.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_SPIN_SECONDS = 2.0  # then sleep: another process is evaluating or saving the network


class SharedAverage:
    """Shared memory for `processes` copies of `size` numbers; made by the parent and passed to each process."""

    def __init__(self, processes: int, size: int) -> None:
        self.processes = processes
        # Two alternating slots: a process overwrites slot 0 only after all have passed the barrier of slot 1,
        # and so have read slot 0.
        self.values = torch.zeros(2, processes, size).share_memory_()
        self.arrived = torch.zeros(processes, dtype=torch.long).share_memory_()

    def mean(self, rank: int, values: Tensor) -> Tensor:
        """The mean over all processes, equal in all of them."""
        barrier = int(self.arrived[rank]) + 1
        slot = self.values[barrier % 2]
        slot[rank].copy_(values)
        self.arrived[rank] = barrier
        self._wait(barrier)
        return slot.mean(0)

    def _wait(self, barrier: int) -> None:
        arrived = self.arrived.numpy()
        started_at = time.monotonic()
        while arrived.min() < barrier:
            if time.monotonic() - started_at > _SPIN_SECONDS:
                time.sleep(0.002)


def average_gradients(shared: SharedAverage | None, rank: int, parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, the same in all of them."""
    if shared is None:
        return
    for parameter in parameters:
        if parameter.grad is None:  # a loss that this batch did not use
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean = shared.mean(rank, torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, piece in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))
