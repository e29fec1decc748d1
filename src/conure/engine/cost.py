"""How long a turn will take, learned from the last ones of its kind."""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["Costs"]

WEIGHT = 0.2
"""Of the newest measurement: the machine's speed comes and goes, and so do other programs."""


class Costs:
    """Seconds by kind of work (a lane and its chunk, a slice of clips) and by size, in powers of two."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[Hashable, int], float] = {}

    def learn(self, kind: Hashable, size: int, seconds: float) -> None:
        key = (kind, size.bit_length())
        known = self._seconds.get(key)
        self._seconds[key] = seconds if known is None else known + WEIGHT * (seconds - known)

    def guess(self, kind: Hashable, size: int) -> float:
        """0 for a kind that was never seen. Other sizes of the kind stand in: smaller ones as if time grew with
        size, larger ones as they are."""
        wanted = size.bit_length()
        known = {bits: seconds for (seen, bits), seconds in self._seconds.items() if seen == kind}
        if not known:
            return 0.0
        if wanted in known:
            return known[wanted]
        smaller = [bits for bits in known if bits < wanted]
        if smaller:
            return known[max(smaller)] * 2.0 ** (wanted - max(smaller))
        return known[min(known)]
