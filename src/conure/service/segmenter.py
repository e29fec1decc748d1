"""Splits a recording into clips with speech, of a length that a network can process. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conure.constants import SAMPLE_RATE
from conure.vad.segmentation import ClipSpan, SegmentationSettings, Segmenter
from conure.vad.silero import load_silero

__all__ = ["Detector", "split_blocks"]


Samples = NDArray[np.float32]


class Detector(Protocol):
    """Speech detector of one channel: samples -> a probability for each 512 samples."""

    def push(self, samples: Samples) -> Samples: ...

    def finish(self) -> Samples: ...


@dataclass
class _Channel:
    detector: Detector
    segmenter: Segmenter

    def push(self, samples: Samples) -> list[ClipSpan]:
        return self.segmenter.push(samples, self.detector.push(samples))

    def finish(self) -> list[ClipSpan]:
        return self.segmenter.push(np.zeros(0, np.float32), self.detector.finish()) + self.segmenter.finish()


def split_blocks(
    blocks: Iterable[Samples], settings: SegmentationSettings, open_detector: Callable[[], Detector] | None = None
) -> Iterator[tuple[float, list[tuple[int, ClipSpan]]]]:
    """Blocks [channels, n] at 16 kHz -> (seconds so far, [(channel, clip)] that are complete), for each block.

    One more item after the last block has the remaining clips. The default detector is Silero's network.
    """
    open_detector = open_detector or load_silero().open_stream
    channels: list[_Channel] = []
    seconds = 0.0
    for block in blocks:
        channels = channels or [_Channel(open_detector(), Segmenter(settings)) for _ in block]
        seconds += block.shape[1] / SAMPLE_RATE
        yield (
            seconds,
            [(index, clip) for index, channel in enumerate(channels) for clip in channel.push(block[index])],
        )
    yield seconds, [(index, clip) for index, channel in enumerate(channels) for clip in channel.finish()]
