"""Recordings of any length to words, in constant memory.

    blocks -> speech probabilities -> pieces -> rounds -> batches of like length -> words -> joined at the seams

A round is what is looked ahead, so that pieces of like length can share a batch. While one round is transcribed a
thread reads, decodes and cuts the next, so the recognizer need not wait. Held are two rounds, one block and, for each
channel, one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conure.engine.ahead import ahead
from conure.engine.batching import batches
from conure.text.joining import Joiner
from conure.types import Word
from conure.vad.cuts import CutSettings, Cutter, Piece
from conure.vad.silero import load_silero

__all__ = ["Detector", "LongAudio", "Progress", "Transcribe"]

RATE = 16_000

Samples = NDArray[np.float32]
Transcribe = Callable[[list[Samples]], Sequence[Sequence[Word]]]
"""Clips, mono at 16 kHz, to the words of each in times of the clip."""
Progress = Callable[[float], None]
"""Called with the seconds of the recording that are done."""


class Detector(Protocol):
    """What hears speech in one stream: a probability for each 512 samples."""

    def push(self, samples: Samples) -> Samples: ...

    def finish(self) -> Samples: ...


@dataclass
class _Channel:
    detector: Detector
    cutter: Cutter

    def push(self, samples: Samples) -> list[Piece]:
        return self.cutter.push(samples, self.detector.push(samples))

    def finish(self) -> list[Piece]:
        return self.cutter.push(np.zeros(0, np.float32), self.detector.finish()) + self.cutter.finish()


@dataclass
class _Round:
    reached: float = 0.0
    """Seconds of the recording up to which it was cut."""
    pieces: list[tuple[int, Piece]] = field(default_factory=list)
    """With the channel of each."""

    @property
    def seconds(self) -> float:
        return sum(piece.seconds for _, piece in self.pieces)


class LongAudio:
    """Cuts, transcribes and joins. Serves one recording after the other."""

    def __init__(
        self,
        transcribe: Transcribe,
        *,
        cut: CutSettings | None = None,
        batch_seconds: float = 240.0,
        look_ahead_seconds: float = 480.0,
        open_detector: Callable[[], Detector] | None = None,
    ) -> None:
        self.transcribe = transcribe
        self.cut = cut or CutSettings()
        self.batch_seconds = batch_seconds
        self.look_ahead_seconds = look_ahead_seconds
        self.open_detector = open_detector or _open_silero

    def words(self, blocks: Iterable[Samples], progress: Progress | None = None) -> Iterator[tuple[int, Word]]:
        """Blocks [channels, n] of a recording at 16 kHz -> (channel, word), each channel's in order.

        `blocks` is run through in a thread of its own.
        """
        joiners: dict[int, Joiner[Word]] = {}
        done = 0.0
        for coming in ahead(self._rounds(blocks), "conure-cuts"):
            heard: dict[int, Sequence[Word]] = {}
            for batch in self._batches(coming.pieces):
                heard.update(self._transcribe(coming.pieces, batch))
                if progress:
                    progress(done + (coming.reached - done) * len(heard) / len(coming.pieces))
            done = coming.reached
            for index, (channel, piece) in enumerate(coming.pieces):
                joiner = joiners.setdefault(channel, Joiner())
                for word in joiner.push(heard[index], piece.start, piece.overlap):
                    yield channel, word
        for channel, joiner in joiners.items():
            for word in joiner.finish():
                yield channel, word
        if progress:
            progress(done)

    def _rounds(self, blocks: Iterable[Samples]) -> Iterator[_Round]:
        """The last one may have no pieces, but tells how long the recording is."""
        channels: list[_Channel] = []
        coming = _Round()
        for block in blocks:
            channels = channels or [_Channel(self.open_detector(), Cutter(self.cut)) for _ in block]
            for index, channel in enumerate(channels):
                coming.pieces += [(index, piece) for piece in channel.push(block[index])]
            coming.reached += block.shape[1] / RATE
            if coming.seconds >= self.look_ahead_seconds:
                yield coming
                coming = _Round(coming.reached)
        for index, channel in enumerate(channels):
            coming.pieces += [(index, piece) for piece in channel.finish()]
        yield coming

    def _batches(self, pieces: Sequence[tuple[int, Piece]]) -> Iterator[list[int]]:
        return batches([len(piece.samples) for _, piece in pieces], int(self.batch_seconds * RATE))

    def _transcribe(self, pieces: Sequence[tuple[int, Piece]], batch: Sequence[int]) -> dict[int, Sequence[Word]]:
        """The words of each piece of the batch, in times of the recording."""
        chosen = [pieces[index][1] for index in batch]
        heard = self.transcribe([piece.samples for piece in chosen])
        shifted = [[_shifted(word, piece.start) for word in words] for piece, words in zip(chosen, heard, strict=True)]
        return dict(zip(batch, shifted, strict=True))


def _open_silero() -> Detector:
    return load_silero().open()


def _shifted(word: Word, seconds: float) -> Word:
    start = None if word.start is None else round(word.start + seconds, 3)
    end = None if word.end is None else round(word.end + seconds, 3)
    return replace(word, start=start, end=end)
