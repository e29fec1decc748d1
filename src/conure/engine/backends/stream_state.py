"""Everything a model remembers of its live streams: one row a slot, and the scratch row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from conure.engine.backends.decoder import DecoderRows

__all__ = ["Memory", "Rows", "StreamState"]


class Rows(Protocol):
    """What a runner's encoder remembers, row by row, in a form that is the runner's own business."""

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        ...

    def reset(self, rows: np.ndarray) -> None:
        """Makes rows ready for new streams."""
        ...


Memory = TypeVar("Memory", bound=Rows)


@dataclass(frozen=True)
class StreamState(Generic[Memory]):
    encoder: Memory
    decoder: DecoderRows

    def reset(self, rows: np.ndarray) -> None:
        """Makes rows ready for new streams."""
        self.encoder.reset(rows)
        self.decoder.reset(rows)
