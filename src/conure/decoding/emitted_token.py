"""A token as a decoder emits it, by its encoder step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from conure.types import Token

__all__ = ["ALPHA", "STEP_SECONDS", "EmittedToken"]

STEP_SECONDS = 0.08
"""An encoder step: 8 mel frames of 10 ms."""

ALPHA = 0.33
"""Of the entropy from which confidence is found; see `confidence`."""


@dataclass(frozen=True, slots=True)
class EmittedToken:
    id: int
    step: int
    """Encoder step (80 ms) at which it was emitted."""
    duration: int
    """Steps it lasts: as TDT predicts it, the run of equal CTC labels, 1 for RNNT, which does not tell."""
    log_probability: float
    confidence: float

    def to_token(self, origin: float = 0.0, end: float = math.inf, since: float = 0.0) -> Token:
        """In seconds, where the first step is at `origin`; nothing lasts beyond `end`, or begins before `since`."""
        begins = max(min(origin + self.step * STEP_SECONDS, end), since)
        ends = max(min(origin + (self.step + self.duration) * STEP_SECONDS, end), since)
        return Token(self.id, round(begins, 3), round(ends, 3), self.log_probability, self.confidence)
