"""Options of a live session, with the requested names resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from conure.constants import END_OF_UTTERANCE
from conure.engine.plan import ModelInfo
from conure.service.second_pass import SecondPassOptions
from conure.text.tokenizer import Tokenizer
from conure.vad.endpointing import Endpointing

__all__ = ["LAG_INTERVAL", "SessionOptions"]

LAG_INTERVAL = 1.0
"""Default seconds between two lag events."""


@dataclass(frozen=True)
class SessionOptions:
    model: ModelInfo
    tokenizer: Tokenizer
    latency_ms: int
    endpointing: Endpointing = field(default_factory=Endpointing)
    language: str | None = None
    prompt: int | None = None
    second_pass: SecondPassOptions | None = None
    """Finals come from another model."""
    lag_interval: float = LAG_INTERVAL
    """Seconds between two lag events."""

    @property
    def has_end_token(self) -> bool:
        """Whether the network itself emits a token at the end of an utterance."""
        return END_OF_UTTERANCE in self.tokenizer.pieces
