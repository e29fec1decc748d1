"""State of a model's streams: encoder and decoder state by slot, including the scratch slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from conure.engine.backends.decoder import SlotState

__all__ = ["EncoderStateT", "StreamState"]


EncoderStateT = TypeVar("EncoderStateT", bound=SlotState)


@dataclass(frozen=True)
class StreamState(Generic[EncoderStateT]):
    encoder: EncoderStateT
    decoder: SlotState

    def reset(self, rows: np.ndarray) -> None:
        """Resets slots for new streams."""
        self.encoder.reset(rows)
        self.decoder.reset(rows)
