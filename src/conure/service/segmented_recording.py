"""Recordings of any length to words, in constant memory.

    blocks -> speech probabilities -> pieces -> rounds -> batches of like length -> words -> joined at the seams

A round is what is looked ahead, so that pieces of like length can share a batch. While one round is transcribed a
thread reads, decodes and cuts the next, so the recognizer need not wait. Held are two rounds, one block and, for each
channel, one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from conure.engine.lanes.batching import form_batches
from conure.engine.prefetch import prefetch
from conure.service.channel_words import ChannelWords
from conure.service.segmenter import Detector, split_blocks
from conure.types import Word
from conure.vad.segmentation import ClipSpan, SegmentationSettings

__all__ = ["SegmentedRecording", "Progress", "Transcribe"]

RATE = 16_000

Samples = NDArray[np.float32]
Transcribe = Callable[[list[Samples]], Sequence[Sequence[Word]]]
"""Clips, mono at 16 kHz, to the words of each in times of the clip."""
Progress = Callable[[float], None]
"""Called with the seconds of the recording that are done."""


@dataclass
class _Round:
    reached: float = 0.0
    """Seconds of the recording up to which it was cut."""
    pieces: list[tuple[int, ClipSpan]] = field(default_factory=list)
    """With the channel of each."""

    @property
    def seconds(self) -> float:
        return sum(piece.seconds for _, piece in self.pieces)


class SegmentedRecording:
    """Cuts, transcribes and joins. Serves one recording after the other."""

    def __init__(
        self,
        transcribe: Transcribe,
        *,
        cut: SegmentationSettings | None = None,
        batch_seconds: float = 240.0,
        look_ahead_seconds: float | None = None,
        open_detector: Callable[[], Detector] | None = None,
    ) -> None:
        """Looks two batches ahead, if not told otherwise."""
        self.transcribe = transcribe
        self.cut = cut or SegmentationSettings()
        self.batch_seconds = batch_seconds
        self.look_ahead_seconds = look_ahead_seconds or 2 * batch_seconds
        self.open_detector = open_detector

    def words(self, blocks: Iterable[Samples], progress: Progress | None = None) -> Iterator[tuple[int, Word]]:
        """Blocks [channels, n] of a recording at 16 kHz -> (channel, word), each channel's in order.

        `blocks` is run through in a thread of its own.
        """
        channels = ChannelWords()
        done = 0.0
        for coming in prefetch(self._rounds(blocks), "conure-cuts"):
            heard: dict[int, Sequence[Word]] = {}
            for batch in self._batches(coming.pieces):
                clips = [coming.pieces[index][1].samples for index in batch]
                heard.update(zip(batch, self.transcribe(clips), strict=True))
                if progress:
                    progress(done + (coming.reached - done) * len(heard) / len(coming.pieces))
            done = coming.reached
            for index, (channel, piece) in enumerate(coming.pieces):
                yield from channels.add_clip(channel, heard[index], piece.start, piece.overlap)
        yield from channels.finish()
        if progress:
            progress(done)

    def _rounds(self, blocks: Iterable[Samples]) -> Iterator[_Round]:
        """The last one may have no pieces, but tells how long the recording is."""
        coming = _Round()
        for reached, pieces in split_blocks(blocks, self.cut, self.open_detector):
            coming.reached = reached
            coming.pieces += pieces
            if coming.seconds >= self.look_ahead_seconds:
                yield coming
                coming = _Round(reached)
        yield coming

    def _batches(self, pieces: Sequence[tuple[int, ClipSpan]]) -> Iterator[list[int]]:
        return form_batches([len(piece.samples) for _, piece in pieces], int(self.batch_seconds * RATE))
