"""A token as emitted by a decoder, with times in encoder steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from conure.constants import ENCODER_FRAME_SECONDS
from conure.types import Token

__all__ = ["ALPHA", "EmittedToken"]


ALPHA = 0.33
"""Exponent of the entropy for confidence; see `confidence`."""


@dataclass(frozen=True, slots=True)
class EmittedToken:
    id: int
    step: int
    """Encoder step (80 ms) at which it was emitted."""
    duration: int
    """Duration in steps: predicted by TDT, the run of equal labels for CTC, always 1 for RNNT."""
    log_probability: float
    confidence: float

    def to_token(self, origin: float = 0.0, end: float = math.inf, since: float = 0.0) -> Token:
        """The token with times in seconds, for a first step at `origin`; times are clamped to [since, end]."""
        begins = max(min(origin + self.step * ENCODER_FRAME_SECONDS, end), since)
        ends = max(min(origin + (self.step + self.duration) * ENCODER_FRAME_SECONDS, end), since)
        return Token(self.id, round(begins, 3), round(ends, 3), self.log_probability, self.confidence)
