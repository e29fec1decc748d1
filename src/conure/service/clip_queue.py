"""Clips that wait for the device, and the batches that are formed of them."""

from __future__ import annotations

from collections.abc import Iterable

from conure.constants import SAMPLE_RATE
from conure.engine.lanes.batching import form_batches
from conure.service.recording_words import HeldClip, RecordingWords

__all__ = ["ClipQueue"]


class ClipQueue:
    def __init__(self, batch_seconds: float) -> None:
        self.seconds = 0.0
        """Of waiting audio."""
        self._limit = int(batch_seconds * SAMPLE_RATE)
        self._clips: list[HeldClip] = []
        """In order of arrival."""

    @property
    def oldest(self) -> HeldClip | None:
        return self._clips[0] if self._clips else None

    def add(self, clip: HeldClip) -> None:
        self._clips.append(clip)
        self.seconds += clip.seconds

    def pop_batch(self) -> list[HeldClip]:
        """Removes and returns the oldest clip and those of similar length in its batch, so that no clip starves."""
        lengths = [clip.message.count for clip in self._clips]
        batch = next(batch for batch in form_batches(lengths, self._limit) if 0 in batch)
        return self._remove(set(batch), batch)

    def remove_recording(self, recording: RecordingWords) -> list[HeldClip]:
        """Removes and returns the clips of a recording."""
        indices = [index for index, clip in enumerate(self._clips) if clip.recording is recording]
        return self._remove(set(indices), indices)

    def _remove(self, indices: set[int], order: Iterable[int]) -> list[HeldClip]:
        removed = [self._clips[index] for index in order]
        self._clips = [clip for index, clip in enumerate(self._clips) if index not in indices]
        self.seconds = sum(clip.seconds for clip in self._clips)
        return removed
