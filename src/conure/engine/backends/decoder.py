"""Interfaces of decoders, which turn encoder steps into tokens: clips in slices, streams chunk by chunk."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np

from conure.decoding.emitted_token import EmittedToken
from conure.models.preemptible import Preemptible

__all__ = ["ClipDecoder", "SlotState", "StreamDecoder", "Tokens"]

Tokens = list[list[EmittedToken]]


class ClipDecoder(Protocol):
    def decode(self, encoded: Any, counts: Any) -> Preemptible[Tokens]:
        """encoded [B, S, D], counts [B] from the runner's `encode` -> the tokens of each clip."""
        ...


class SlotState(Protocol):
    """State of an encoder or a decoder by slot, in a format that is private to the runner."""

    @property
    def bytes(self) -> int:
        """Size in memory."""
        ...

    def reset(self, rows: np.ndarray) -> None:
        """Resets slots for new streams."""
        ...


DecoderStateT = TypeVar("DecoderStateT", bound=SlotState)


class StreamDecoder(ClipDecoder, Protocol[DecoderStateT]):
    def allocate(self, rows: int) -> DecoderStateT: ...

    def decode_chunk(
        self, encoded: Any, counts: Any, state: DecoderStateT, rows: np.ndarray, flush: np.ndarray | None = None
    ) -> Tokens:
        """encoded [B, C, D], counts [B] of a chunk of slots `rows` [B] -> its tokens; updates the state of these slots.

        The state of rows that are flushed (bool [B]) does not change: their chunk is decoded again when it is complete.
        """
        ...
