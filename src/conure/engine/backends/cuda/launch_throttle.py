"""Keeps the host from running far ahead of a device: what was launched last runs last, however urgent.

A slice of a clip is launched in a fraction of the time that it takes. Were the host not held back, slices would seem to
cost nothing, and a whole batch of them would stand before the next turn of streams.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from conure.engine.backends.device import Device

if TYPE_CHECKING:
    import torch

__all__ = ["LaunchThrottle"]

MOST_AHEAD = 2
"""Slices that are launched and not done: with one the device would wait for the host after each."""


class LaunchThrottle:
    """Does nothing on the CPU, where what returns is done."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._events: deque[torch.cuda.Event] | None = deque() if device.type == "cuda" else None

    def wait(self) -> None:
        """After each slice: waits until no more than MOST_AHEAD of them are left."""
        if self._events is None:
            return
        import torch  # noqa: PLC0415  on a CPU there is nothing to ask

        stream = torch.cuda.current_stream(torch.device(str(self._device)))
        self._events.append(stream.record_event())
        if len(self._events) > MOST_AHEAD:
            self._events.popleft().synchronize()
