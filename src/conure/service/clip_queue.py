"""Pieces that wait for the device, and which of them go there together."""

from __future__ import annotations

from collections.abc import Iterable

from conure.engine.lanes.batching import form_batches
from conure.service.recording_words import HeldClip, RecordingWords

__all__ = ["ClipQueue"]

RATE = 16_000


class ClipQueue:
    def __init__(self, batch_seconds: float) -> None:
        self.seconds = 0.0
        """Of audio that waits."""
        self._limit = int(batch_seconds * RATE)
        self._pieces: list[HeldClip] = []
        """In the order in which they came."""

    @property
    def oldest(self) -> HeldClip | None:
        return self._pieces[0] if self._pieces else None

    def add(self, piece: HeldClip) -> None:
        self._pieces.append(piece)
        self.seconds += piece.seconds

    def pop_batch(self) -> list[HeldClip]:
        """The oldest piece and those of like length that share a batch with it, so that none waits for ever."""
        lengths = [piece.message.count for piece in self._pieces]
        batch = next(batch for batch in form_batches(lengths, self._limit) if 0 in batch)
        return self._remove(set(batch), batch)

    def remove_recording(self, recording: RecordingWords) -> list[HeldClip]:
        """The pieces of the recording, which nobody wants any more."""
        those = [index for index, piece in enumerate(self._pieces) if piece.recording is recording]
        return self._remove(set(those), those)

    def _remove(self, indices: set[int], order: Iterable[int]) -> list[HeldClip]:
        removed = [self._pieces[index] for index in order]
        self._pieces = [piece for index, piece in enumerate(self._pieces) if index not in indices]
        self.seconds = sum(piece.seconds for piece in self._pieces)
        return removed
