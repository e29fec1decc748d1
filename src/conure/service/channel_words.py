"""The words of a recording's pieces, channel by channel, each word once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conure.text.overlap_merge import OverlapMerger
from conure.types import Word

__all__ = ["ChannelWords"]


class ChannelWords:
    """One recording. Its pieces come in the order of their channel; holds the words of one piece a channel."""

    def __init__(self) -> None:
        self._joiners: dict[int, OverlapMerger[Word]] = {}

    def add_clip(self, channel: int, words: Sequence[Word], start: float, overlap: float) -> list[tuple[int, Word]]:
        """The words of a piece in its own times -> (channel, word) that are settled now, in times of the recording.

        `start` is the piece's own, and `overlap` the seconds at its beginning that the piece before it heard, too.
        """
        joiner = self._joiners.setdefault(channel, OverlapMerger())
        return [(channel, word) for word in joiner.add_clip([_shifted(word, start) for word in words], start, overlap)]

    def finish(self) -> list[tuple[int, Word]]:
        """What is left."""
        return [(channel, word) for channel, joiner in self._joiners.items() for word in joiner.finish()]


def _shifted(word: Word, seconds: float) -> Word:
    start = None if word.start is None else round(word.start + seconds, 3)
    end = None if word.end is None else round(word.end + seconds, 3)
    tokens = tuple(
        replace(token, start=round(token.start + seconds, 3), end=round(token.end + seconds, 3))
        for token in word.tokens
    )
    return replace(word, start=start, end=end, tokens=tokens)
