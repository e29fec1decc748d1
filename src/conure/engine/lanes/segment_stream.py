"""One live stream of a model that hears whole clips only: what of it was heard, and what is still to be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from conure.audio.realtime_clock import RealtimeClock
from conure.engine.lanes.chunk_lane import AHEAD, Cut
from conure.engine.lanes.clip_batch import seconds_of
from conure.engine.lanes.utterance import Utterance
from conure.engine.lanes.vad_stream import Speech, VadStream
from conure.engine.messages import Samples, StreamOptions
from conure.engine.scheduler import LiveWork
from conure.text.overlap_merge import ForcedSeam
from conure.types import Word
from conure.vad.endpointing import SpeechEnded
from conure.vad.silero import STEP
from conure.vad.utterance_detector import UtteranceDetector

__all__ = ["SegmentStream"]

RATE = 16_000
LISTEN = 5 * STEP
"""Samples that are listened to together, 160 ms."""
ONSET = 0.2
"""Seconds, at most, that a word was already being said when the detector hears it."""


@dataclass(slots=True)
class SegmentStream:
    number: int
    options: StreamOptions
    utterances: UtteranceDetector
    ear: VadStream = field(default_factory=VadStream)
    steps: deque[Speech] = field(default_factory=deque)
    """What the ear has heard and was not followed yet: what comes after an utterance that is over."""
    origin: int = 0
    """The sample of the last cut."""
    border: ForcedSeam[Word] | None = None
    """At that cut, where it cut an utterance off."""
    cuts: deque[Cut] = field(default_factory=deque)
    goes_on: Utterance | None = None
    over: SpeechEnded | None = None
    """How the utterance ended whose tokens are not known yet."""
    clear: int = 0
    """No utterance to come hears what is before this sample."""
    likeliest: float = 0.0
    """The highest probability of speech since the last cut."""
    spoke: bool = False
    """Whether there was an utterance since."""
    heard_rest: bool = False
    """Whether the ear has heard what is left before the next cut after its last whole step."""
    since: float | None = None
    """When there was something to listen to."""
    over_since: float | None = None
    guess_since: float | None = None
    pushed: float = 0.0
    spoken: RealtimeClock = field(default_factory=RealtimeClock)
    late_until: int = 0
    """The sample before which all should have been worked in when the stream was opened."""

    @property
    def latency(self) -> float:
        return self.options.latency_ms / 1000

    @property
    def listens(self) -> int:
        """Samples that are listened to together."""
        return min(LISTEN, max(1, int(self.latency * RATE) // STEP) * STEP)

    @property
    def end(self) -> int:
        """Of the audio that the ear may hear."""
        return self.cuts[0].sample if self.cuts else self.ear.samples.end

    @property
    def over_at(self) -> int:
        """Where the audio ends of the utterance that is over. The last of the silence is left to the next one."""
        assert self.over is not None
        onset = min(ONSET, self.utterances.silence / 3) if self.over.reason == "silence" else 0.0
        return round((self.over.at - onset) * RATE)

    @property
    def seconds(self) -> int:
        """Audio of the utterance that is over, as a size of work."""
        return seconds_of(self.over_at - self.goes_on.first) if self.over and self.goes_on else 1

    @property
    def wants_guess(self) -> bool:
        going = self.goes_on
        return going is not None and going.is_told and self.over is None and self.ear.listened >= going.next_guess

    def work(self, kind: Hashable, end: int, since: float) -> LiveWork:
        """What is to be done with audio up to that sample, since it could be."""
        whole = self.spoken.spoken_at(end) if end > self.late_until else since
        return LiveWork(self.number, kind, max(whole, since) + self.latency, firm_from=whole - AHEAD, since=self.pushed)

    def read(self, first: int, end: int) -> Samples:
        samples = np.empty(max(end - first, 0), np.float32)
        self.ear.samples.read_into(first, samples, end)
        return samples
