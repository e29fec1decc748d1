"""Where a stream may hold words, by the speech detector alone: for models that hear whole utterances only.

What is between two utterances is never transcribed, so a word must not be missed. Beside the utterances that settings
ask for ("sure" ones) there are faint ones, found with the thresholds that `cuts` has for recordings. What comes of a
faint one is known when it was transcribed. Pure, as `endpoints` is.
"""

from __future__ import annotations

from dataclasses import replace

from conure.vad.endpointing import Endpointer, Endpointing, EndReason, SpeechBegan, SpeechEnded
from conure.vad.segmentation import MIN_CLIP_LIMIT, SegmentationSettings

__all__ = ["UtteranceDetector"]

SILENCE = 0.6
"""Seconds after which a faint utterance ends where settings name no silence."""


class UtteranceDetector:
    """One stream. Ends by silence and by length, which cannot be switched off; it knows of no tokens."""

    def __init__(self, settings: Endpointing, cuts: SegmentationSettings) -> None:
        self.segmentation = cuts
        self.speech_start: float | None = None
        """Start of the utterance that goes on, sure or faint."""
        self._sure, self._faint = Endpointer(settings), Endpointer(settings)
        self.configure(settings)

    @property
    def is_sure(self) -> bool:
        return self._sure.speech_start is not None

    def configure(self, settings: Endpointing) -> None:
        self._longest = max(
            min(settings.longest or self.segmentation.max_seconds, self.segmentation.max_seconds), MIN_CLIP_LIMIT
        )
        self._sure.settings = replace(settings, blanks=None, longest=None)
        speech, self.silence = min(settings.speech, self.segmentation.speech), settings.silence or SILENCE
        self._faint.settings = replace(
            self._sure.settings, speech=speech, silence=self.silence, begin_seconds=min(settings.begin_seconds, 0.03)
        )

    def add_step(self, start: float, end: float, probability: float) -> SpeechBegan | SpeechEnded | None:
        """The detector's next step. Beginnings are told of sure utterances only."""
        sure = self._sure.add_step(start, end, probability)
        faint = self._faint.add_step(start, end, self._at_start(start, probability))
        if isinstance(sure, SpeechEnded):
            return self.end_speech(sure.at, sure.reason)
        if isinstance(faint, SpeechEnded) and not self.is_sure:
            return self.end_speech(faint.at, faint.reason)
        begun = [event.at for event in (sure, faint) if isinstance(event, SpeechBegan)]
        if begun and self.speech_start is None:
            self.speech_start = min(begun)
        if self.speech_start is not None and end - self.speech_start >= self._longest - 1e-6:
            return self.end_speech(end, "length")
        return sure

    def _at_start(self, start: float, probability: float) -> float:
        """In its first steps the detector is not sure of anything."""
        early = start < self.segmentation.start_seconds and probability >= self.segmentation.speech_at_start
        return max(probability, self.segmentation.speech) if early else probability

    def resume(self, at: float, until: float, is_sure: bool) -> None:
        """An utterance that goes on after one that ended by its length: it began before what was heard last."""
        self.speech_start = at
        (self._sure if is_sure else self._faint).begin_speech(at, until)

    def end_speech(self, at: float, reason: EndReason) -> SpeechEnded | None:
        """Over, because of what the caller knows; None where nobody speaks."""
        if self.speech_start is None:
            return None
        self.speech_start = None
        self._sure.end_speech(at, reason)
        self._faint.end_speech(at, reason)
        return SpeechEnded(at, reason)
