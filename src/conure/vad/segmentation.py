"""Where to cut a recording: samples and their speech probabilities in, pieces of bounded length out.

    recording   ──speech────  ·······clear non-speech·······  ──speech──·──speech──────────speech──────────────
    pieces     [─speech────··]                             [··──speech──·][speech────────spe═══]
                                  left out but for padding       silence ┘             [═══ech──────────────
                                                                                 forced ┘ heard by both

A recording that fits into one piece is passed whole, if anything in it might be speech. In longer ones, what lies
between two stretches of clear non-speech makes a piece; where it is too long it is cut in the best silence of the
piece's second half, or without one at the least speech-like place, and then both pieces hear the seam.

Memory: one piece. Where pieces begin and end does not depend on the sizes of the blocks. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from conure.errors import BadOption

__all__ = ["MIN_CLIP_LIMIT", "SegmentationSettings", "Segmenter", "ClipSpan", "Seam"]

RATE = 16_000
STEP = 512
"""Samples for each probability: 32 ms."""
TURN = 32
"""Steps between two looks for a cut."""
MIN_CLIP_LIMIT = 2.0
"""Seconds; there must be room for words between two forced seams."""

Samples = NDArray[np.float32]
Seam = Literal["edge", "silence", "forced"]


@dataclass(frozen=True)
class SegmentationSettings:
    """Lengths are in seconds.

    The thresholds are measured for Silero 6.2. Rain, noise, a tone and music stay below 0.17 and below 0.09 in their
    first steps; of 2,500 digits alone, cut close, the faintest reaches 0.067, and in silence 0.32.
    """

    max_seconds: float = 30.0
    """No piece is longer."""
    overlap: float = 2.0
    """What both pieces hear where a cut is forced; at most a quarter of a piece."""
    shortest_pause: float = 0.25
    """Less silence than this is no place for a cut without overlap."""
    longest_silence: float = 2.0
    """More clear non-speech than this is left out, but for the padding."""
    padding: float = 0.5
    """What is kept of it on either side."""

    clear: float = 0.1
    """Below this probability a step is clear non-speech."""
    speech: float = 0.2
    """A piece without a step that reaches this is left out."""
    speech_at_start: float = 0.1
    """The same for the first steps of a recording, where the detector is not yet sure of anything."""
    speech_in_short: float = 0.05
    """The same for a recording that is short altogether: a word alone, cut close."""
    start_seconds: float = 0.38
    short_seconds: float = 3.0
    linger: float = 5.0
    """Doubtful sound so soon after speech is kept, too."""

    def __post_init__(self) -> None:
        if not MIN_CLIP_LIMIT <= self.max_seconds < float("inf"):
            raise BadOption(f"pieces of at most {self.max_seconds:g} s", f"it must be {MIN_CLIP_LIMIT:g} s or more")


@dataclass(frozen=True)
class ClipSpan:
    """Samples of the recording from `start` on. Times are in seconds."""

    start: float
    samples: Samples
    left_seam: Seam
    right_seam: Seam
    overlap: float = 0.0
    """How much of its beginning the piece before it heard, too: only at a forced seam."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    @property
    def end(self) -> float:
        return self.start + self.seconds


class Segmenter:
    """One recording, or one channel of it."""

    def __init__(self, settings: SegmentationSettings | None = None) -> None:
        self.settings = settings or SegmentationSettings()
        self._window = _Window(self.settings)
        self._samples: Samples = np.zeros(0, np.float32)
        self._heard: Samples = np.zeros(0, np.float32)

    def push(self, samples: Samples, probabilities: Samples) -> list[ClipSpan]:
        """Pieces that are complete now. Probabilities may come later than their samples."""
        self._samples = np.concatenate([self._samples, samples])
        self._heard = np.concatenate([self._heard, probabilities])
        turns = min(len(self._samples) // (TURN * STEP), len(self._heard) // TURN)
        pieces = [piece for _ in range(turns) for piece in self._turn(TURN, is_last=False)]
        self._samples = self._samples.copy()  # a view would keep the whole block
        return pieces

    def finish(self) -> list[ClipSpan]:
        """What is left. The last probability may be that of a step filled up with silence."""
        steps = -(-len(self._samples) // STEP)
        if len(self._heard) != steps:
            raise ValueError(f"{len(self._heard)} probabilities for {len(self._samples)} samples, not {steps}")
        return self._turn(steps, is_last=True)

    def _turn(self, steps: int, is_last: bool) -> list[ClipSpan]:
        self._window.append(self._samples[: steps * STEP], self._heard[:steps])
        self._samples, self._heard = self._samples[steps * STEP :], self._heard[steps:]
        return list(self._window.pop_clips(is_last))


@dataclass(frozen=True)
class _Cut:
    end: int
    """Samples of the window that the piece takes."""
    next: int
    """Where the next piece begins; before `end` at a forced seam."""
    seam: Seam
    is_clear: bool = False
    """Whether clear non-speech follows, to be left out."""


class _Window:
    """The samples and steps that are in no piece yet. Its start is always the start of a step."""

    def __init__(self, settings: SegmentationSettings) -> None:
        self.settings = settings
        self.longest = int(settings.max_seconds * RATE)
        self._buffer: Samples = np.zeros(self.longest + TURN * STEP, np.float32)
        self._size = 0
        self._heard: Samples = np.zeros(0, np.float32)
        self._start = 0
        """Steps before the window."""
        self._last_speech = -_steps(settings.linger) - 1
        """The last step before the window that was surely speech."""
        self._seam: Seam = "edge"
        self._overlap = 0
        self._after_clear = False
        self._is_whole = True
        """Whether the window holds the recording from its start on."""

    def append(self, samples: Samples, probabilities: Samples) -> None:
        self._buffer[self._size : self._size + len(samples)] = samples
        self._size += len(samples)
        self._heard = np.concatenate([self._heard, probabilities])

    def pop_clips(self, is_last: bool) -> Iterator[ClipSpan]:
        """Those that can be cut off now."""
        if self._is_whole and self._size <= self.longest:
            if is_last and self._speaks(len(self._heard), self._size <= self.settings.short_seconds * RATE):
                yield ClipSpan(0.0, self._buffer[: self._size].copy(), "edge", "edge")
            return
        self._trim()
        while cut := self._find_cut(is_last):
            if self._speaks(-(-cut.end // STEP)):
                yield self._piece(cut)
                self._seam, self._overlap = cut.seam, cut.end - cut.next
            else:
                self._seam, self._overlap = "silence", 0
            self._after_clear = cut.is_clear
            self._drop(cut.next)
            self._trim()

    def _piece(self, cut: _Cut) -> ClipSpan:
        samples = self._buffer[: cut.end].copy()
        return ClipSpan(self._start * STEP / RATE, samples, self._seam, cut.seam, self._overlap / RATE)

    def _drop(self, samples: int) -> None:
        steps = -(-samples // STEP)
        spoken = np.flatnonzero(self._surely_speech()[:steps])
        if len(spoken):
            self._last_speech = self._start + int(spoken[-1])
        self._buffer[: self._size - samples] = self._buffer[samples : self._size].copy()
        self._size -= samples
        self._heard = self._heard[steps:]
        self._start += steps
        self._is_whole = False

    def _trim(self) -> None:
        """Clear non-speech at the beginning goes, but for the padding."""
        doubtful = np.flatnonzero(self._heard >= self.settings.clear)
        silence = int(doubtful[0]) if len(doubtful) else len(self._heard)
        padding = _steps(self.settings.padding)
        kept = padding if self._after_clear else _steps(self.settings.longest_silence)
        if silence > kept:
            self._drop((silence - padding) * STEP)
            self._seam, self._overlap = "silence", 0
            self._after_clear = True

    def _surely_speech(self) -> NDArray[np.bool_]:
        """[steps] of the window."""
        steps = self._start + np.arange(len(self._heard))
        early = steps < _steps(self.settings.start_seconds)
        threshold = np.where(early, self.settings.speech_at_start, self.settings.speech)
        return np.asarray(self._heard >= threshold)

    def _speaks(self, steps: int, is_short: bool = False) -> bool:
        """Whether there may be words in the first steps of the window."""
        if is_short and np.any(self._heard[:steps] >= self.settings.speech_in_short):
            return True
        if np.any(self._surely_speech()[:steps]):
            return True
        lingers = self._start - self._last_speech <= _steps(self.settings.linger)
        return bool(lingers and np.any(self._heard[:steps] >= self.settings.clear))

    def _find_cut(self, is_last: bool) -> _Cut | None:
        if cut := self._cut_before_clear():
            return cut
        if self._size > self.longest:
            return self._cut_at_limit()
        return _Cut(self._size, self._size, "edge") if is_last and self._size else None

    def _cut_before_clear(self) -> _Cut | None:
        """Where more clear non-speech follows than is kept."""
        for first, end in _runs(self._heard < self.settings.clear):
            if first and end - first > _steps(self.settings.longest_silence):
                place = (first + _steps(self.settings.padding)) * STEP
                return _Cut(place, place, "silence", is_clear=True) if place <= self.longest else None
        return None

    def _cut_at_limit(self) -> _Cut:
        last = self.longest // STEP
        if not self._speaks(len(self._heard)):  # doubtful for a whole window: half of it is kept, lest speech follows
            return _Cut(last // 2 * STEP, last // 2 * STEP, "silence")
        if place := self._best_silence(last // 2, last):
            return _Cut(place * STEP, place * STEP, "silence")
        half = _steps(min(self.settings.overlap, self.settings.max_seconds / 4)) // 2
        place = self._least_speech(max(last // 2, half + 1), last - half)
        return _Cut((place + half) * STEP, (place - half) * STEP, "forced")

    def _best_silence(self, first: int, last: int) -> int | None:
        """The middle of the longest and quietest silence between two steps."""
        quiet = np.maximum(self.settings.clear - self._heard[first:last], 0.0)
        runs = [run for run in _runs(quiet > 0) if run[1] - run[0] >= _steps(self.settings.shortest_pause)]
        if not runs:
            return None
        begin, end = max(runs, key=lambda run: float(quiet[run[0] : run[1]].sum()))
        return first + (begin + end) // 2

    def _least_speech(self, first: int, last: int) -> int:
        """The step in [first, last) around which there is the least speech, by probability and then by loudness."""
        steps = self._buffer[: len(self._heard) * STEP].reshape(-1, STEP)
        levels = 20 * np.log10(np.sqrt(np.einsum("ns,ns->n", steps, steps) / STEP) + 1e-5)
        likeness = self._heard + (levels - levels.max()) / 40
        smooth = np.convolve(likeness, np.ones(4) / 4)[1 : 1 + len(likeness)]  # two steps before, two after
        return first + int(smooth[first:last].argmin())


def _runs(marks: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, end) of each run of marked steps."""
    bounded = np.concatenate([[False], marks, [False]])
    edges = np.flatnonzero(bounded[1:] != bounded[:-1])
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def _steps(seconds: float) -> int:
    return round(seconds * RATE / STEP)
