"""How long after it was sent audio comes back as text."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

__all__ = ["Latencies", "percentile"]


class Latencies:
    """Remembers when each packet was sent. Times are those of one clock, in seconds."""

    def __init__(self, packet_seconds: float) -> None:
        self._packet_seconds = packet_seconds
        self._sent = array("d")
        self.partials = array("d")
        self.finals = array("d")
        self.last_final: float | None = None
        """When the last final came."""

    def sent(self, now: float) -> None:
        """The next packet was sent."""
        self._sent.append(now)

    def since(self, seconds: float, now: float) -> float | None:
        """Time since the packet was sent that ends at `seconds` of the audio, or holds it; None before the first."""
        index = math.ceil(seconds / self._packet_seconds - 1e-6) - 1
        return now - self._sent[min(max(0, index), len(self._sent) - 1)] if self._sent else None

    def after_last(self) -> float | None:
        """From the last packet to the last final."""
        return None if self.last_final is None or not self._sent else self.last_final - self._sent[-1]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The least value that so large a share of all does not exceed; None of none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None
