"""What makes tokens of encoded steps: of whole clips in slices, of streams chunk by chunk."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from conure.decoding.emitted_token import EmittedToken
from conure.models.preemptible import Preemptible

__all__ = ["ClipDecoder", "DecoderRows", "StreamDecoder", "Tokens"]

Tokens = list[list[EmittedToken]]


class ClipDecoder(Protocol):
    def decode(self, encoded: Any, counts: Any) -> Preemptible[Tokens]:
        """encoded [B, S, D], counts [B], as the runner's `encode` gives them -> the tokens of each clip."""
        ...


class DecoderRows(Protocol):
    """What a decoder remembers of streams, row by row."""

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        ...

    def reset(self, rows: np.ndarray) -> None:
        """Makes rows ready for new streams."""
        ...


Remembered = TypeVar("Remembered", bound=DecoderRows)


class StreamDecoder(ClipDecoder, Protocol[Remembered]):
    def allocate(self, rows: int) -> Remembered: ...

    def decode_chunk(
        self, encoded: Any, counts: Any, memory: Remembered, rows: np.ndarray, flush: np.ndarray | None = None
    ) -> Tokens:
        """encoded [B, C, D], counts [B] of the rows [B] -> the chunk's tokens; the rows are moved on in place.

        A row whose chunk is flushed (bool [B]) is as it was before: the chunk will come again, with more to its right.
        """
        ...
