"""Limits how far the host runs ahead of a device, because launched work delays everything that is launched later.

Launching a slice of a clip takes a fraction of its run time. Without a limit, slices would seem to cost nothing, and a
whole batch of them would be queued before the next step of streams.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from conure.engine.backends.device import Device

if TYPE_CHECKING:
    import torch

__all__ = ["LaunchThrottle"]

MAX_PENDING = 2
"""Slices that are launched and not finished. With one, the device would idle after each slice."""


class LaunchThrottle:
    """Does nothing on the CPU, where work is finished when its call returns."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._events: deque[torch.cuda.Event] | None = deque() if device.type == "cuda" else None

    def wait(self) -> None:
        """Call after each slice: waits until at most MAX_PENDING of them are unfinished."""
        if self._events is None:
            return
        import torch  # noqa: PLC0415  not needed on a CPU

        stream = torch.cuda.current_stream(torch.device(str(self._device)))
        self._events.append(stream.record_event())
        if len(self._events) > MAX_PENDING:
            self._events.popleft().synchronize()
