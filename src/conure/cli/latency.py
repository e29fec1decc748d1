"""The lag of text: the time from sending audio to receiving its text."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

__all__ = ["Latencies", "percentile"]


class Latencies:
    """Records when each packet was sent. Times are of one clock, in seconds."""

    def __init__(self, packet_seconds: float) -> None:
        self._packet_seconds = packet_seconds
        self._sent = array("d")
        self.partials = array("d")
        self.finals = array("d")
        self.last_final: float | None = None
        """Time of the last final."""

    def record_sent(self, now: float) -> None:
        self._sent.append(now)

    def lag_at(self, seconds: float, now: float) -> float | None:
        """Time since sending the packet that contains `seconds` of the audio, or ends there; None before the first."""
        index = math.ceil(seconds / self._packet_seconds - 1e-6) - 1
        return now - self._sent[min(max(0, index), len(self._sent) - 1)] if self._sent else None

    def last_final_lag(self) -> float | None:
        """Time from the last packet to the last final."""
        return None if self.last_final is None or not self._sent else self.last_final - self._sent[-1]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that is not exceeded by this share of all values; None without values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None
