"""Finds utterances by the speech detector alone, for models that transcribe complete utterances only.

Audio between two utterances is never transcribed, so no word may be missed. In addition to the utterances by the
client's settings ("confirmed" ones) there are faint ones, found with the more sensitive thresholds of the segmentation
of recordings. Whether a faint one contains words is known after its transcription. Without I/O, like `endpointing`.
"""

from __future__ import annotations

from dataclasses import replace

from conure.vad.endpointing import Endpointer, Endpointing, EndReason, SpeechBegan, SpeechEnded
from conure.vad.segmentation import MIN_CLIP_LIMIT, SegmentationSettings

__all__ = ["UtteranceDetector"]

SILENCE = 0.6
"""Silence in seconds after which a faint utterance ends if the settings disable this rule."""


class UtteranceDetector:
    """Utterances of one stream. They end by silence and by length, which cannot be disabled; tokens are not used."""

    def __init__(self, settings: Endpointing, segmentation: SegmentationSettings) -> None:
        self.segmentation = segmentation
        self.speech_start: float | None = None
        """Start of the current utterance, confirmed or faint."""
        self._confirmed, self._faint = Endpointer(settings), Endpointer(settings)
        self.configure(settings)

    @property
    def is_sure(self) -> bool:
        return self._confirmed.speech_start is not None

    def configure(self, settings: Endpointing) -> None:
        self._max_seconds = max(
            min(settings.longest or self.segmentation.max_seconds, self.segmentation.max_seconds), MIN_CLIP_LIMIT
        )
        self._confirmed.settings = replace(settings, blanks=None, longest=None)
        speech, self.silence = min(settings.speech, self.segmentation.speech), settings.silence or SILENCE
        self._faint.settings = replace(
            self._confirmed.settings,
            speech=speech,
            silence=self.silence,
            begin_seconds=min(settings.begin_seconds, 0.03),
        )

    def add_step(self, start: float, end: float, probability: float) -> SpeechBegan | SpeechEnded | None:
        """The next step of the speech detector. SpeechBegan is returned for confirmed utterances only."""
        confirmed = self._confirmed.add_step(start, end, probability)
        faint = self._faint.add_step(start, end, self._at_start(start, probability))
        if isinstance(confirmed, SpeechEnded):
            return self.end_speech(confirmed.at, confirmed.reason)
        if isinstance(faint, SpeechEnded) and not self.is_sure:
            return self.end_speech(faint.at, faint.reason)
        begun = [event.at for event in (confirmed, faint) if isinstance(event, SpeechBegan)]
        if begun and self.speech_start is None:
            self.speech_start = min(begun)
        if self.speech_start is not None and end - self.speech_start >= self._max_seconds - 1e-6:
            return self.end_speech(end, "length")
        return confirmed

    def _at_start(self, start: float, probability: float) -> float:
        """Raises probabilities in the first steps, where the detector is less sensitive."""
        is_early = start < self.segmentation.start_seconds and probability >= self.segmentation.speech_at_start
        return max(probability, self.segmentation.speech) if is_early else probability

    def resume(self, at: float, until: float, is_sure: bool) -> None:
        """Continues an utterance that was split by its length: the next one begins at `at`, before the last step."""
        self.speech_start = at
        (self._confirmed if is_sure else self._faint).begin_speech(at, until)

    def end_speech(self, at: float, reason: EndReason) -> SpeechEnded | None:
        """Ends the utterance by decision of the caller; None in silence."""
        if self.speech_start is None:
            return None
        self.speech_start = None
        self._confirmed.end_speech(at, reason)
        self._faint.end_speech(at, reason)
        return SpeechEnded(at, reason)
