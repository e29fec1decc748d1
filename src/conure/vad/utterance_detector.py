"""Where a stream may hold words, by the speech detector alone: for models that hear whole utterances only.

What is between two utterances is never transcribed, so a word must not be missed. Beside the utterances that settings
ask for ("sure" ones) there are faint ones, found with the thresholds that `cuts` has for recordings. What comes of a
faint one is known when it was transcribed. Pure, as `endpoints` is.
"""

from __future__ import annotations

from dataclasses import replace

from conure.vad.endpointing import Endpointer, Endpointing, EndReason, SpeechBegan, SpeechEnded
from conure.vad.segmentation import SHORTEST_LIMIT, CutSettings

__all__ = ["Utterances"]

SILENCE = 0.6
"""Seconds after which a faint utterance ends where settings name no silence."""


class Utterances:
    """One stream. Ends by silence and by length, which cannot be switched off; it knows of no tokens."""

    def __init__(self, settings: Endpointing, cuts: CutSettings) -> None:
        self.cuts = cuts
        self.began: float | None = None
        """Start of the utterance that goes on, sure or faint."""
        self._sure, self._faint = Endpointer(settings), Endpointer(settings)
        self.configure(settings)

    @property
    def is_sure(self) -> bool:
        return self._sure.began is not None

    def configure(self, settings: Endpointing) -> None:
        self._longest = max(min(settings.longest or self.cuts.max_seconds, self.cuts.max_seconds), SHORTEST_LIMIT)
        self._sure.settings = replace(settings, blanks=None, longest=None)
        speech, self.silence = min(settings.speech, self.cuts.speech), settings.silence or SILENCE
        self._faint.settings = replace(
            self._sure.settings, speech=speech, silence=self.silence, begin_seconds=min(settings.begin_seconds, 0.03)
        )

    def step(self, start: float, end: float, probability: float) -> SpeechBegan | SpeechEnded | None:
        """The detector's next step. Beginnings are told of sure utterances only."""
        sure = self._sure.step(start, end, probability)
        faint = self._faint.step(start, end, self._at_start(start, probability))
        if isinstance(sure, SpeechEnded):
            return self.end(sure.at, sure.reason)
        if isinstance(faint, SpeechEnded) and not self.is_sure:
            return self.end(faint.at, faint.reason)
        begun = [event.at for event in (sure, faint) if isinstance(event, SpeechBegan)]
        if begun and self.began is None:
            self.began = min(begun)
        if self.began is not None and end - self.began >= self._longest - 1e-6:
            return self.end(end, "length")
        return sure

    def _at_start(self, start: float, probability: float) -> float:
        """In its first steps the detector is not sure of anything."""
        early = start < self.cuts.start_seconds and probability >= self.cuts.speech_at_start
        return max(probability, self.cuts.speech) if early else probability

    def resume(self, at: float, until: float, is_sure: bool) -> None:
        """An utterance that goes on after one that ended by its length: it began before what was heard last."""
        self.began = at
        (self._sure if is_sure else self._faint).begin(at, until)

    def end(self, at: float, reason: EndReason) -> SpeechEnded | None:
        """Over, because of what the caller knows; None where nobody speaks."""
        if self.began is None:
            return None
        self.began = None
        self._sure.end(at, reason)
        self._faint.end(at, reason)
        return SpeechEnded(at, reason)
