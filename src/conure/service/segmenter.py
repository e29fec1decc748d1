"""Blocks of a recording to pieces that fit a network: where there is speech, and cuts between it. Knows no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conure.vad.segmentation import ClipSpan, SegmentationSettings, Segmenter
from conure.vad.silero import load_silero

__all__ = ["Detector", "split_blocks"]

RATE = 16_000

Samples = NDArray[np.float32]


class Detector(Protocol):
    """What hears speech in one stream: a probability for each 512 samples."""

    def push(self, samples: Samples) -> Samples: ...

    def finish(self) -> Samples: ...


@dataclass
class _Channel:
    detector: Detector
    cutter: Segmenter

    def push(self, samples: Samples) -> list[ClipSpan]:
        return self.cutter.push(samples, self.detector.push(samples))

    def finish(self) -> list[ClipSpan]:
        return self.cutter.push(np.zeros(0, np.float32), self.detector.finish()) + self.cutter.finish()


def split_blocks(
    blocks: Iterable[Samples], cut: SegmentationSettings, open_detector: Callable[[], Detector] | None = None
) -> Iterator[tuple[float, list[tuple[int, ClipSpan]]]]:
    """Blocks [channels, n] at 16 kHz -> for each the seconds so far, and the pieces that are complete with it.

    Each piece has its channel. Once more after the last block, with what is left. The detector is Silero's network
    unless another one is given.
    """
    open_detector = open_detector or load_silero().open_stream
    channels: list[_Channel] = []
    reached = 0.0
    for block in blocks:
        channels = channels or [_Channel(open_detector(), Segmenter(cut)) for _ in block]
        reached += block.shape[1] / RATE
        yield (
            reached,
            [(index, piece) for index, channel in enumerate(channels) for piece in channel.push(block[index])],
        )
    yield reached, [(index, piece) for index, channel in enumerate(channels) for piece in channel.finish()]
