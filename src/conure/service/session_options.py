"""What is wanted of a live stream, once its model is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from conure.engine.plan import ModelInfo
from conure.service.second_pass import SecondPassOptions
from conure.text.tokenizer import Tokenizer
from conure.vad.endpointing import Endpointing

__all__ = ["LAG_INTERVAL", "SessionOptions"]

END = "<EOU>"
LAG_INTERVAL = 1.0


@dataclass(frozen=True)
class SessionOptions:
    model: ModelInfo
    tokenizer: Tokenizer
    latency_ms: int
    endpointing: Endpointing = field(default_factory=Endpointing)
    language: str | None = None
    prompt: int | None = None
    second_pass: SecondPassOptions | None = None
    """Finals from another model."""
    lag_interval: float = LAG_INTERVAL
    """Seconds between two lags."""

    @property
    def has_end_token(self) -> bool:
        """The network itself says when an utterance is over."""
        return END in self.tokenizer.pieces
