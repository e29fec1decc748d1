"""Endpointing: a state machine that finds the start and the end of utterances.

    quiet ── speech for `begin_seconds`, or a token ──> speaking ── silence, blanks, <EOU> or length ──> quiet

Its inputs are the steps of the speech detector and the tokens, in the order of the stream; its outputs are events.
Times are seconds of the stream, so results do not depend on when the audio arrives. Independent of networks, samples
and clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conure.errors import BadOption

__all__ = ["SpeechBegan", "EndReason", "SpeechEnded", "Endpointer", "Endpointing"]

EndReason = Literal["silence", "blanks", "end_token", "length", "asked", "closed"]


@dataclass(frozen=True, slots=True)
class Endpointing:
    """The rules that end an utterance. Lengths are in seconds; None disables a rule."""

    silence: float | None = 0.6
    """Silence after speech, by the speech detector."""
    end_token: float | None = 0.1
    """The same, after the network has emitted its token for the end of an utterance."""
    blanks: float | None = 3.0
    """Time since the last token: the speech detector may take music and noise for speech indefinitely."""
    longest: float | None = 30.0
    """Length of an utterance."""
    speech: float = 0.5
    """Probability from which a step is speech."""
    begin_seconds: float = 0.064
    """Uninterrupted speech that begins an utterance."""

    def __post_init__(self) -> None:
        for name in ("silence", "end_token", "blanks", "longest"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise BadOption(f"{name} of {value} seconds ends an utterance", "more than 0, or null for never")
        if not 0 < self.speech < 1:
            raise BadOption(f"speech from a probability of {self.speech}", "it must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    at: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    at: float
    reason: EndReason


CONTINUATION_FACTOR = 0.7
"""Within an utterance the threshold of speech is multiplied by this factor (hysteresis)."""


class Endpointer:
    """Endpointing of one stream."""

    def __init__(self, settings: Endpointing) -> None:
        self.settings = settings
        self.speech_start: float | None = None
        """Start of the current utterance; None in silence."""
        self._onset: float | None = None
        """Start of speech that is still too short for an utterance."""
        self._last_speech_end = self._last_token_end = 0.0
        """End of the last speech or token, and of the last token, of this utterance."""
        self._has_end_token = False

    def add_step(self, start: float, end: float, probability: float) -> SpeechBegan | SpeechEnded | None:
        """The next step of the speech detector; tokens before its end must have been added."""
        if self.speech_start is None:
            return self._begin_after_onset(start, end, probability)
        if end > self._last_speech_end and probability >= self.settings.speech * CONTINUATION_FACTOR:
            self._last_speech_end = end
        reason = self._end_reason(end)
        return None if reason is None else self.end_speech(end, reason)

    def add_steps(self, until: float, lowest: float, highest: float) -> bool:
        """All steps up to `until` at once, by their lowest and highest probability, if they cause no event.

        Returns False if they may cause one; then the state is unchanged and the steps have to be added one by one.
        """
        if self.speech_start is None:
            if highest >= self.settings.speech:
                return False
            self._onset = None
            return True
        threshold = self.settings.speech * CONTINUATION_FACTOR
        if lowest < threshold <= highest:
            return False
        previous = self._last_speech_end
        if highest >= threshold:
            self._last_speech_end = max(previous, until)
        if self._end_reason(until) is None:
            return True
        self._last_speech_end = previous
        return False

    def add_token(self, start: float, end: float, is_end: bool = False) -> SpeechBegan | None:
        """A token; `is_end`: the token for the end of an utterance. A late one does not reopen an ended utterance."""
        if is_end:
            self._has_end_token = self.speech_start is not None
            return None
        began = None if self.speech_start is not None else self._begin(start)
        self._last_token_end = max(self._last_token_end, end)
        self._last_speech_end = max(self._last_speech_end, end)
        self._has_end_token = False
        return began

    def begin_speech(self, at: float, until: float) -> SpeechBegan:
        """Begins an utterance at `at` whose speech lasts until `until`, by decision of the caller."""
        began = self._begin(at)
        self._last_speech_end = max(at, until)
        return began

    def end_speech(self, at: float, reason: EndReason) -> SpeechEnded | None:
        """Ends the utterance by decision of the caller; None in silence."""
        if self.speech_start is None:
            return None
        self.speech_start = self._onset = None
        return SpeechEnded(at, reason)

    def _begin_after_onset(self, start: float, end: float, probability: float) -> SpeechBegan | None:
        if probability < self.settings.speech:
            self._onset = None
            return None
        self._onset = start if self._onset is None else self._onset
        if end - self._onset < self.settings.begin_seconds - 1e-6:
            return None
        began = self._begin(self._onset)
        self._last_speech_end = end
        return began

    def _begin(self, at: float) -> SpeechBegan:
        self.speech_start = self._last_speech_end = self._last_token_end = at
        self._has_end_token = False
        self._onset = None
        return SpeechBegan(at)

    def _end_reason(self, now: float) -> EndReason | None:
        """The rule that ends the utterance now."""
        assert self.speech_start is not None
        settings = self.settings
        silence = now - self._last_speech_end
        if self._has_end_token and _is_reached(settings.end_token, silence):
            return "end_token"
        if _is_reached(settings.silence, silence):
            return "silence"
        if _is_reached(settings.blanks, now - self._last_token_end):
            return "blanks"
        if _is_reached(settings.longest, now - self.speech_start):
            return "length"
        return None


def _is_reached(limit: float | None, length: float) -> bool:
    return limit is not None and length >= limit - 1e-6
