"""Merges the words of a recording's clips, for each channel; words in overlaps appear once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conure.text.overlap_merge import OverlapMerger
from conure.types import Word

__all__ = ["ChannelWords"]


class ChannelWords:
    """Words of one recording. Clips of a channel are added in order; holds the words of one clip per channel."""

    def __init__(self) -> None:
        self._mergers: dict[int, OverlapMerger[Word]] = {}

    def add_clip(self, channel: int, words: Sequence[Word], start: float, overlap: float) -> list[tuple[int, Word]]:
        """Words of a clip, in times of the clip -> (channel, word) that are final now, in times of the recording.

        `start`: of the clip. `overlap`: seconds at its beginning that the previous clip contains, too.
        """
        merger = self._mergers.setdefault(channel, OverlapMerger())
        return [(channel, word) for word in merger.add_clip([_shifted(word, start) for word in words], start, overlap)]

    def finish(self) -> list[tuple[int, Word]]:
        """The remaining words."""
        return [(channel, word) for channel, merger in self._mergers.items() for word in merger.finish()]


def _shifted(word: Word, seconds: float) -> Word:
    start = None if word.start is None else round(word.start + seconds, 3)
    end = None if word.end is None else round(word.end + seconds, 3)
    tokens = tuple(
        replace(token, start=round(token.start + seconds, 3), end=round(token.end + seconds, 3))
        for token in word.tokens
    )
    return replace(word, start=start, end=end, tokens=tokens)
