"""One live stream of a model that transcribes whole clips: what was processed of it, and what is still to be done."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np

from conure.audio.realtime_clock import RealtimeClock
from conure.constants import SAMPLE_RATE
from conure.engine.lanes.chunk_lane import LEAD_SECONDS, FinalizePoint
from conure.engine.lanes.clip_batch import seconds_of
from conure.engine.lanes.utterance import Utterance
from conure.engine.lanes.vad_stream import Speech, VadStream
from conure.engine.messages import Samples, StreamOptions
from conure.engine.scheduler import StreamWork
from conure.text.overlap_merge import ForcedSeam
from conure.types import Word
from conure.vad.endpointing import SpeechEnded
from conure.vad.silero import STEP
from conure.vad.utterance_detector import UtteranceDetector

__all__ = ["SegmentStream"]

VAD_SAMPLES = 5 * STEP
"""Samples that the speech detector processes together, 160 ms."""
MAX_ONSET = 0.2
"""Seconds of a word's sound before the detector notices it, at most."""


@dataclass(slots=True)
class SegmentStream:
    number: int
    options: StreamOptions
    detector: UtteranceDetector
    vad: VadStream = field(default_factory=VadStream)
    steps: deque[Speech] = field(default_factory=deque)
    """Detector steps not handled yet: those after an utterance that has ended."""
    last_finalize: int = 0
    """Sample of the last finalize."""
    finalize_seam: ForcedSeam[Word] | None = None
    """At that finalize, when it ended an utterance."""
    finalizes: deque[FinalizePoint] = field(default_factory=deque)
    utterance: Utterance | None = None
    speech_end: SpeechEnded | None = None
    """End of an utterance whose tokens are not decoded yet."""
    settled: int = 0
    """Samples that no later utterance needs."""
    max_probability: float = 0.0
    """Of speech, since the last finalize."""
    has_spoken: bool = False
    """Whether there was an utterance since the last finalize."""
    has_probed: bool = False
    """Whether the detector has processed the incomplete step before the next finalize."""
    audio_since: float | None = None
    """When the detector's work became ready."""
    final_since: float | None = None
    partial_since: float | None = None
    last_packet_at: float = 0.0
    clock: RealtimeClock = field(default_factory=RealtimeClock)
    overdue_until: int = 0
    """Samples that were overdue when the stream was opened."""

    @property
    def latency(self) -> float:
        return self.options.latency_ms / 1000

    @property
    def vad_samples(self) -> int:
        """Samples that the speech detector processes together."""
        return min(VAD_SAMPLES, max(1, int(self.latency * SAMPLE_RATE) // STEP) * STEP)

    @property
    def audio_end(self) -> int:
        """End of the audio that the speech detector may process."""
        return self.finalizes[0].sample if self.finalizes else self.vad.samples.end

    @property
    def clip_end(self) -> int:
        """End of the ended utterance's audio. The last of the silence is left to the next utterance."""
        assert self.speech_end is not None
        onset = min(MAX_ONSET, self.detector.silence / 3) if self.speech_end.reason == "silence" else 0.0
        return round((self.speech_end.at - onset) * SAMPLE_RATE)

    @property
    def clip_seconds(self) -> int:
        """Audio of the ended utterance, as the size of its work."""
        return seconds_of(self.clip_end - self.utterance.first) if self.speech_end and self.utterance else 1

    @property
    def wants_partial(self) -> bool:
        utterance = self.utterance
        if utterance is None or not utterance.is_reported or self.speech_end is not None:
            return False
        return self.vad.processed >= utterance.next_partial

    def work(self, kind: Hashable, end: int, since: float) -> StreamWork:
        """Work on the audio up to sample `end`, which became ready at `since`."""
        complete_at = self.clock.spoken_at(end) if end > self.overdue_until else since
        return StreamWork(
            self.number,
            kind,
            due=max(complete_at, since) + self.latency,
            realtime_from=complete_at - LEAD_SECONDS,
            arrived_at=self.last_packet_at,
        )

    def read(self, first: int, end: int) -> Samples:
        samples = np.empty(max(end - first, 0), np.float32)
        self.vad.samples.read_into(first, samples, end)
        return samples
