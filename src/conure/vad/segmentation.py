"""Segmentation: splits a recording, by its speech probabilities, into clips of limited length.

    recording   ──speech────  ·······clear non-speech·······  ──speech──·──speech──────────speech──────────────
    clips      [─speech────··]                             [··──speech──·][speech────────spe═══]
                               left out except for padding       silence ┘             [═══ech──────────────
                                                                                 forced ┘ in both clips

A recording that fits into one clip is not split; it is left out if it contains no speech. Longer ones are split at
clear non-speech. A clip that is too long is split in the best silence of its second half or, without one, at the least
speech-like position; then both clips contain the seam.

Memory: one clip. Results do not depend on the sizes of blocks. Independent of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from conure.constants import SAMPLE_RATE
from conure.errors import BadOption

__all__ = ["MIN_CLIP_LIMIT", "SegmentationSettings", "Segmenter", "ClipSpan", "Seam"]

STEP = 512
"""Samples per probability: 32 ms."""
STEPS_PER_SEARCH = 32
"""Steps between two searches for a split."""
MIN_CLIP_LIMIT = 2.0
"""Smallest `max_seconds`: words must fit between two forced seams."""

Samples = NDArray[np.float32]
Seam = Literal["edge", "silence", "forced"]


@dataclass(frozen=True)
class SegmentationSettings:
    """Settings of the segmentation. Lengths are in seconds.

    The thresholds were measured for Silero 6.2. Rain, noise, a tone and music stay below 0.17, and below 0.09 in their
    first steps; of 2,500 single digits without context, the faintest reaches 0.067, and within silence 0.32.
    """

    max_seconds: float = 30.0
    """Longest clip."""
    overlap: float = 2.0
    """Overlap of clips at a forced seam; at most a quarter of a clip."""
    min_pause: float = 0.25
    """Shortest silence for a split without overlap."""
    max_silence: float = 2.0
    """Longer clear non-speech is left out, except for the padding."""
    padding: float = 0.5
    """Silence that is kept on either side."""

    clear: float = 0.1
    """Below this probability a step is clear non-speech."""
    speech: float = 0.2
    """A clip in which no step reaches this probability is left out."""
    speech_at_start: float = 0.1
    """The same for the first steps of a recording, where the detector is less sensitive."""
    speech_in_short: float = 0.05
    """The same for short recordings, such as a single word without context."""
    start_seconds: float = 0.38
    short_seconds: float = 3.0
    hangover: float = 5.0
    """For so long after speech, steps that are not clear non-speech are kept, too."""

    def __post_init__(self) -> None:
        if not MIN_CLIP_LIMIT <= self.max_seconds < float("inf"):
            raise BadOption(
                f"maximal clip length of {self.max_seconds:g} s", f"it must be {MIN_CLIP_LIMIT:g} s or more"
            )


@dataclass(frozen=True)
class ClipSpan:
    """A clip: samples of the recording from `start` on. Times are in seconds."""

    start: float
    samples: Samples
    left_seam: Seam
    right_seam: Seam
    overlap: float = 0.0
    """Seconds at its beginning that the previous clip contains, too; only at a forced seam."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    @property
    def end(self) -> float:
        return self.start + self.seconds


class Segmenter:
    """Segmentation of one recording, or of one channel."""

    def __init__(self, settings: SegmentationSettings | None = None) -> None:
        self.settings = settings or SegmentationSettings()
        self._window = _Window(self.settings)
        self._samples: Samples = np.zeros(0, np.float32)
        self._probabilities: Samples = np.zeros(0, np.float32)

    def push(self, samples: Samples, probabilities: Samples) -> list[ClipSpan]:
        """The clips that are complete now. Probabilities may be pushed later than their samples."""
        self._samples = np.concatenate([self._samples, samples])
        self._probabilities = np.concatenate([self._probabilities, probabilities])
        searches = min(len(self._samples) // (STEPS_PER_SEARCH * STEP), len(self._probabilities) // STEPS_PER_SEARCH)
        clips = [clip for _ in range(searches) for clip in self._advance(STEPS_PER_SEARCH, is_last=False)]
        self._samples = self._samples.copy()  # a view would keep the whole block in memory
        return clips

    def finish(self) -> list[ClipSpan]:
        """The remaining clips. The last probability may be that of a step padded with silence."""
        steps = -(-len(self._samples) // STEP)
        if len(self._probabilities) != steps:
            raise ValueError(f"{len(self._probabilities)} probabilities for {len(self._samples)} samples, not {steps}")
        return self._advance(steps, is_last=True)

    def _advance(self, steps: int, is_last: bool) -> list[ClipSpan]:
        self._window.append(self._samples[: steps * STEP], self._probabilities[:steps])
        self._samples, self._probabilities = self._samples[steps * STEP :], self._probabilities[steps:]
        return list(self._window.pop_clips(is_last))


@dataclass(frozen=True)
class _Split:
    end: int
    """End of the clip, in samples of the window."""
    next: int
    """Start of the next clip; before `end` at a forced seam."""
    seam: Seam
    is_clear: bool = False
    """Whether clear non-speech follows, which is left out."""


class _Window:
    """The samples and steps that are not yet part of a clip. Its start is always the start of a step."""

    def __init__(self, settings: SegmentationSettings) -> None:
        self.settings = settings
        self.max_samples = int(settings.max_seconds * SAMPLE_RATE)
        self._buffer: Samples = np.zeros(self.max_samples + STEPS_PER_SEARCH * STEP, np.float32)
        self._size = 0
        self._probabilities: Samples = np.zeros(0, np.float32)
        self._start = 0
        """Steps before the window."""
        self._last_speech = -_steps(settings.hangover) - 1
        """The last step before the window that was speech."""
        self._seam: Seam = "edge"
        self._overlap = 0
        self._after_clear = False
        self._is_complete = True
        """Whether the window contains the recording from its start on."""

    def append(self, samples: Samples, probabilities: Samples) -> None:
        self._buffer[self._size : self._size + len(samples)] = samples
        self._size += len(samples)
        self._probabilities = np.concatenate([self._probabilities, probabilities])

    def pop_clips(self, is_last: bool) -> Iterator[ClipSpan]:
        """Removes and yields the clips that are complete."""
        if self._is_complete and self._size <= self.max_samples:
            if is_last and self._has_speech(
                len(self._probabilities), self._size <= self.settings.short_seconds * SAMPLE_RATE
            ):
                yield ClipSpan(0.0, self._buffer[: self._size].copy(), "edge", "edge")
            return
        self._trim()
        while split := self._find_split(is_last):
            if self._has_speech(-(-split.end // STEP)):
                yield self._clip(split)
                self._seam, self._overlap = split.seam, split.end - split.next
            else:
                self._seam, self._overlap = "silence", 0
            self._after_clear = split.is_clear
            self._drop(split.next)
            self._trim()

    def _clip(self, split: _Split) -> ClipSpan:
        samples = self._buffer[: split.end].copy()
        return ClipSpan(self._start * STEP / SAMPLE_RATE, samples, self._seam, split.seam, self._overlap / SAMPLE_RATE)

    def _drop(self, samples: int) -> None:
        steps = -(-samples // STEP)
        spoken = np.flatnonzero(self._is_speech()[:steps])
        if len(spoken):
            self._last_speech = self._start + int(spoken[-1])
        self._buffer[: self._size - samples] = self._buffer[samples : self._size].copy()
        self._size -= samples
        self._probabilities = self._probabilities[steps:]
        self._start += steps
        self._is_complete = False

    def _trim(self) -> None:
        """Drops clear non-speech at the beginning, except for the padding."""
        not_clear = np.flatnonzero(self._probabilities >= self.settings.clear)
        silence = int(not_clear[0]) if len(not_clear) else len(self._probabilities)
        padding = _steps(self.settings.padding)
        kept = padding if self._after_clear else _steps(self.settings.max_silence)
        if silence > kept:
            self._drop((silence - padding) * STEP)
            self._seam, self._overlap = "silence", 0
            self._after_clear = True

    def _is_speech(self) -> NDArray[np.bool_]:
        """Whether each step of the window is speech, bool [steps]."""
        steps = self._start + np.arange(len(self._probabilities))
        early = steps < _steps(self.settings.start_seconds)
        threshold = np.where(early, self.settings.speech_at_start, self.settings.speech)
        return np.asarray(self._probabilities >= threshold)

    def _has_speech(self, steps: int, is_short: bool = False) -> bool:
        """Whether the first `steps` steps of the window may contain words."""
        if is_short and np.any(self._probabilities[:steps] >= self.settings.speech_in_short):
            return True
        if np.any(self._is_speech()[:steps]):
            return True
        is_after_speech = self._start - self._last_speech <= _steps(self.settings.hangover)
        return bool(is_after_speech and np.any(self._probabilities[:steps] >= self.settings.clear))

    def _find_split(self, is_last: bool) -> _Split | None:
        if split := self._split_before_clear():
            return split
        if self._size > self.max_samples:
            return self._split_at_limit()
        return _Split(self._size, self._size, "edge") if is_last and self._size else None

    def _split_before_clear(self) -> _Split | None:
        """A split at clear non-speech that is longer than `max_silence`."""
        for first, end in _runs(self._probabilities < self.settings.clear):
            if first and end - first > _steps(self.settings.max_silence):
                place = (first + _steps(self.settings.padding)) * STEP
                return _Split(place, place, "silence", is_clear=True) if place <= self.max_samples else None
        return None

    def _split_at_limit(self) -> _Split:
        last = self.max_samples // STEP
        if not self._has_speech(
            len(self._probabilities)
        ):  # no speech in the whole window: half of it is kept as context
            return _Split(last // 2 * STEP, last // 2 * STEP, "silence")
        if place := self._best_silence(last // 2, last):
            return _Split(place * STEP, place * STEP, "silence")
        half = _steps(min(self.settings.overlap, self.settings.max_seconds / 4)) // 2
        place = self._least_speech(max(last // 2, half + 1), last - half)
        return _Split((place + half) * STEP, (place - half) * STEP, "forced")

    def _best_silence(self, first: int, last: int) -> int | None:
        """The middle of the longest and clearest silence in the steps [first, last)."""
        quiet = np.maximum(self.settings.clear - self._probabilities[first:last], 0.0)
        runs = [run for run in _runs(quiet > 0) if run[1] - run[0] >= _steps(self.settings.min_pause)]
        if not runs:
            return None
        begin, end = max(runs, key=lambda run: float(quiet[run[0] : run[1]].sum()))
        return first + (begin + end) // 2

    def _least_speech(self, first: int, last: int) -> int:
        """The least speech-like step in [first, last), by probability and loudness around it."""
        steps = self._buffer[: len(self._probabilities) * STEP].reshape(-1, STEP)
        levels = 20 * np.log10(np.sqrt(np.einsum("ns,ns->n", steps, steps) / STEP) + 1e-5)
        likeness = self._probabilities + (levels - levels.max()) / 40
        smooth = np.convolve(likeness, np.ones(4) / 4)[1 : 1 + len(likeness)]  # two steps before, two after
        return first + int(smooth[first:last].argmin())


def _runs(marks: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, end) of each run of true values."""
    bounded = np.concatenate([[False], marks, [False]])
    edges = np.flatnonzero(bounded[1:] != bounded[:-1])
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _steps(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / STEP)
