"""Several single-threaded processes that train one network, each on its own strings.

On a CPU this beats one process with several threads: small operations, data and lattices run in parallel
too, and no thread waits at a barrier inside an operation.  The processes meet once an update in shared
memory, and wait there without sleeping: on a busy machine a sleeper is woken late, every time.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_PATIENCE_S = 2.0  # then sleep after all: another process is judging the network or saving it


class Team:
    """Shared memory for `processes` copies of `size` numbers.  Made by the parent, handed to each process."""

    def __init__(self, processes: int, size: int) -> None:
        self.processes = processes
        # Two slots in turn: a process writes slot 0 again only after all have passed the meeting at slot 1,
        # and so have finished reading slot 0.
        self.numbers = torch.zeros(2, processes, size).share_memory_()
        self.arrived = torch.zeros(processes, dtype=torch.long).share_memory_()

    def mean(self, rank: int, numbers: Tensor) -> Tensor:
        """The mean over the processes of what each brings, the same in all of them."""
        meeting = int(self.arrived[rank]) + 1
        slot = self.numbers[meeting % 2]
        slot[rank].copy_(numbers)
        self.arrived[rank] = meeting
        self._wait(meeting)
        return slot.mean(0)

    def _wait(self, meeting: int) -> None:
        arrived = self.arrived.numpy()
        since = time.monotonic()
        while arrived.min() < meeting:
            if time.monotonic() - since > _PATIENCE_S:
                time.sleep(0.002)


def average_gradients(team: Team | None, rank: int, parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, the same in all of them."""
    if team is None:
        return
    for parameter in parameters:
        if parameter.grad is None:  # a loss that this batch did not use
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean = team.mean(rank, torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, piece in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))
