"""A recording among others: its pieces are heard in any order, its words are joined in theirs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from conure.service.channel_words import ChannelWords
from conure.service.decode_process import DecodedClip, RecordingEnded, Samples
from conure.service.decode_worker import DecodeTask, DecodeWorker
from conure.types import Word

__all__ = ["HeldClip", "RecordingWords"]

RATE = 16_000


@dataclass(eq=False, slots=True)
class HeldClip:
    """A piece in the memory of a reader."""

    recording: RecordingWords
    worker: DecodeWorker
    message: DecodedClip
    received_at: float
    """When it came."""
    words: Sequence[Word] | None = None
    """None until it was heard."""

    @property
    def samples(self) -> Samples:
        return self.worker.samples[self.message.offset : self.message.offset + self.message.count]

    @property
    def seconds(self) -> float:
        return self.message.count / RATE


@dataclass(eq=False, slots=True)
class RecordingWords:
    task: DecodeTask
    channels: int = 1
    announced_seconds: float | None = None
    """Its seconds, as the container tells them."""
    clips: deque[HeldClip] = field(default_factory=deque)
    """Those whose words are not joined yet, in the order of the recording."""
    has_ended: bool = False
    """Whether there are no more."""
    error: Exception | None = None
    processed_seconds: float = 0.0
    """Seconds that were transcribed, or need not be."""
    name: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    """These three are told at its end."""
    words: list[tuple[int, Word]] = field(default_factory=list)
    """With their channel."""
    _joined: ChannelWords = field(default_factory=ChannelWords)

    @property
    def is_over(self) -> bool:
        return self.error is not None or (self.has_ended and not self.clips)

    def add_words(self, piece: HeldClip, words: Sequence[Word]) -> int:
        """The words of one of its pieces, in times of the piece -> how many are settled with it."""
        before = len(self.words)
        piece.words = words
        self.processed_seconds += (piece.seconds - piece.message.overlap) / self.channels
        while self.clips and self.clips[0].words is not None:
            first = self.clips.popleft()
            self.words += self._joined.add_clip(
                first.message.channel, first.words or (), first.message.start, first.message.overlap
            )
        self._settle()
        return len(self.words) - before

    def finish(self, ended: RecordingEnded) -> int:
        """No piece comes after those that came -> how many words are settled with that."""
        before = len(self.words)
        self.has_ended = True
        self.name, self.seconds, self.problems = ended.name, ended.seconds, ended.problems
        self._settle()
        return len(self.words) - before

    def fail(self, error: Exception) -> None:
        """Nothing is wanted of it any more."""
        self.error = error
        self.clips.clear()
        self.words.clear()

    def by_channel(self) -> list[list[Word]]:
        """Each channel's words in order; all of them when it is over."""
        words: list[list[Word]] = [[] for _ in range(self.channels)]
        for channel, word in self.words:
            words[channel].append(word)
        return words

    def _settle(self) -> None:
        if self.has_ended and not self.clips:
            self.words += self._joined.finish()
            self.processed_seconds = self.seconds
