"""Words of one of many recordings: its clips are transcribed in any order, its words are merged in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from conure.constants import SAMPLE_RATE
from conure.service.channel_words import ChannelWords
from conure.service.decode_process import DecodedClip, RecordingEnded, Samples
from conure.service.decode_worker import DecodeTask, DecodeWorker
from conure.types import Word

__all__ = ["HeldClip", "RecordingWords"]


@dataclass(eq=False, slots=True)
class HeldClip:
    """A clip in the memory of a worker."""

    recording: RecordingWords
    worker: DecodeWorker
    message: DecodedClip
    received_at: float
    """Monotonic clock."""
    words: Sequence[Word] | None = None
    """None until it is transcribed."""

    @property
    def samples(self) -> Samples:
        return self.worker.samples[self.message.offset : self.message.offset + self.message.count]

    @property
    def seconds(self) -> float:
        return self.message.count / SAMPLE_RATE


@dataclass(eq=False, slots=True)
class RecordingWords:
    task: DecodeTask
    channels: int = 1
    announced_seconds: float | None = None
    """Duration in the container's header."""
    clips: deque[HeldClip] = field(default_factory=deque)
    """Clips whose words are not merged yet, in order."""
    has_ended: bool = False
    """No more clips follow."""
    error: Exception | None = None
    processed_seconds: float = 0.0
    """Transcribed, or without speech."""
    name: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    """These three are set at its end."""
    words: list[tuple[int, Word]] = field(default_factory=list)
    """(channel, word)"""
    _merged: ChannelWords = field(default_factory=ChannelWords)

    @property
    def is_over(self) -> bool:
        return self.error is not None or (self.has_ended and not self.clips)

    def add_words(self, clip: HeldClip, words: Sequence[Word]) -> int:
        """Adds the words of a clip, in times of the clip. Returns how many words of the recording became final."""
        before = len(self.words)
        clip.words = words
        self.processed_seconds += (clip.seconds - clip.message.overlap) / self.channels
        while self.clips and self.clips[0].words is not None:
            first = self.clips.popleft()
            clip_words, span = first.words or (), first.message
            self.words += self._merged.add_clip(span.channel, clip_words, span.start, span.overlap)
        self._finish_if_over()
        return len(self.words) - before

    def finish(self, ended: RecordingEnded) -> int:
        """No more clips follow. Returns how many words of the recording became final."""
        before = len(self.words)
        self.has_ended = True
        self.name, self.seconds, self.problems = ended.name, ended.seconds, ended.problems
        self._finish_if_over()
        return len(self.words) - before

    def fail(self, error: Exception) -> None:
        self.error = error
        self.clips.clear()
        self.words.clear()

    def by_channel(self) -> list[list[Word]]:
        """Each channel's words in order; complete when the recording is over."""
        words: list[list[Word]] = [[] for _ in range(self.channels)]
        for channel, word in self.words:
            words[channel].append(word)
        return words

    def _finish_if_over(self) -> None:
        if self.has_ended and not self.clips:
            self.words += self._merged.finish()
            self.processed_seconds = self.seconds
