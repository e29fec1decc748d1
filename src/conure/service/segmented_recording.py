"""Transcribes a recording of any length in constant memory.

    blocks -> speech probabilities -> clips -> rounds -> batches of similar length -> words -> merged at overlaps

A round is the look-ahead within which clips of similar length share a batch. While one round is transcribed, a thread
decodes and splits the next one. In memory are two rounds, one block and, for each channel, one clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from conure.constants import SAMPLE_RATE
from conure.engine.lanes.batching import form_batches
from conure.engine.prefetch import prefetch
from conure.service.channel_words import ChannelWords
from conure.service.segmenter import Detector, split_blocks
from conure.types import Word
from conure.vad.segmentation import ClipSpan, SegmentationSettings

__all__ = ["SegmentedRecording", "Progress", "Transcribe"]


Samples = NDArray[np.float32]
Transcribe = Callable[[list[Samples]], Sequence[Sequence[Word]]]
"""Clips, mono at 16 kHz -> the words of each, in times of the clip."""
Progress = Callable[[float], None]
"""Called with the transcribed seconds of the recording."""


@dataclass
class _Round:
    end: float = 0.0
    """Seconds of the recording up to which it is split."""
    clips: list[tuple[int, ClipSpan]] = field(default_factory=list)
    """(channel, clip)"""

    @property
    def seconds(self) -> float:
        return sum(clip.seconds for _, clip in self.clips)


class SegmentedRecording:
    """Splits, transcribes and merges. Processes one recording at a time."""

    def __init__(
        self,
        transcribe: Transcribe,
        *,
        segmentation: SegmentationSettings | None = None,
        batch_seconds: float = 240.0,
        look_ahead_seconds: float | None = None,
        open_detector: Callable[[], Detector] | None = None,
    ) -> None:
        """The default look-ahead is two batches."""
        self.transcribe = transcribe
        self.segmentation = segmentation or SegmentationSettings()
        self.batch_seconds = batch_seconds
        self.look_ahead_seconds = look_ahead_seconds or 2 * batch_seconds
        self.open_detector = open_detector

    def words(self, blocks: Iterable[Samples], progress: Progress | None = None) -> Iterator[tuple[int, Word]]:
        """Blocks [channels, n] of a recording at 16 kHz -> (channel, word), in order for each channel.

        `blocks` is iterated on a separate thread.
        """
        channels = ChannelWords()
        done = 0.0
        for round_ in prefetch(self._rounds(blocks), "conure-split"):
            transcribed: dict[int, Sequence[Word]] = {}
            for batch in self._batches(round_.clips):
                clips = [round_.clips[index][1].samples for index in batch]
                transcribed.update(zip(batch, self.transcribe(clips), strict=True))
                if progress:
                    progress(done + (round_.end - done) * len(transcribed) / len(round_.clips))
            done = round_.end
            for index, (channel, clip) in enumerate(round_.clips):
                yield from channels.add_clip(channel, transcribed[index], clip.start, clip.overlap)
        yield from channels.finish()
        if progress:
            progress(done)

    def _rounds(self, blocks: Iterable[Samples]) -> Iterator[_Round]:
        """The last round may have no clips, but has the duration of the recording."""
        round_ = _Round()
        for end, clips in split_blocks(blocks, self.segmentation, self.open_detector):
            round_.end = end
            round_.clips += clips
            if round_.seconds >= self.look_ahead_seconds:
                yield round_
                round_ = _Round(end)
        yield round_

    def _batches(self, clips: Sequence[tuple[int, ClipSpan]]) -> Iterator[list[int]]:
        return form_batches([len(clip.samples) for _, clip in clips], int(self.batch_seconds * SAMPLE_RATE))
