"""When an utterance begins and when it is over: a small state machine over what was heard so far.

    quiet ── speech for `begin_seconds`, or a token ──> speaking ── silence, blanks, <EOU> or length ──> quiet

It is told of each step of the speech detector and of each token, in the order of the stream, and answers with what
begins or ends. Times are seconds of the stream, so the same audio gives the same answers however it arrives. Knows
nothing of networks, samples or clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conure.errors import BadOption

__all__ = ["SpeechBegan", "EndReason", "SpeechEnded", "Endpointer", "Endpointing"]

EndReason = Literal["silence", "blanks", "end_token", "length", "asked", "closed"]


@dataclass(frozen=True, slots=True)
class Endpointing:
    """What ends an utterance. Lengths are in seconds; None switches a reason off."""

    silence: float | None = 0.6
    """After speech, as the detector hears it."""
    end_token: float | None = 0.1
    """The same, where the network said that the utterance is over."""
    blanks: float | None = 3.0
    """Since the last token, whatever the detector hears: music and noise may sound like speech for ever."""
    longest: float | None = 30.0
    """Of an utterance."""
    speech: float = 0.5
    """The probability from which on a step is speech."""
    begin_seconds: float = 0.064
    """So much speech in a row begins an utterance."""

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


GOES_ON = 0.7
"""Of the probability that begins speech: so much and it goes on."""


class Endpointer:
    """One stream."""

    def __init__(self, settings: Endpointing) -> None:
        self.settings = settings
        self.speech_start: float | None = None
        """Start of the utterance that goes on; None where nobody speaks."""
        self._rising: float | None = None
        """Start of the speech that may become an utterance."""
        self._heard = self._said = 0.0
        """End of the last speech or token, and of the last token, of this utterance."""
        self._is_over = False

    def add_step(self, start: float, end: float, probability: float) -> SpeechBegan | SpeechEnded | None:
        """The detector's next step, after the tokens that were said before its end."""
        if self.speech_start is None:
            return self._rise(start, end, probability)
        if end > self._heard and probability >= self.settings.speech * GOES_ON:
            self._heard = end
        reason = self._reason(end)
        return None if reason is None else self.end_speech(end, reason)

    def add_steps(self, until: float, lowest: float, highest: float) -> bool:
        """All steps up to there at once, by their least and largest probability: whether nothing follows from them.

        Where something may, nothing has changed, and they are to be told step by step.
        """
        if self.speech_start is None:
            if highest >= self.settings.speech:
                return False
            self._rising = None
            return True
        threshold = self.settings.speech * GOES_ON
        if lowest < threshold <= highest:
            return False
        heard = self._heard
        if highest >= threshold:
            self._heard = max(heard, until)
        if self._reason(until) is None:
            return True
        self._heard = heard
        return False

    def add_token(self, start: float, end: float, is_end: bool = False) -> SpeechBegan | None:
        """A token, or the one that tells that the utterance is over. A late one never reopens what has ended."""
        if is_end:
            self._is_over = self.speech_start is not None
            return None
        began = None if self.speech_start is not None else self._begin(start)
        self._said, self._heard, self._is_over = max(self._said, end), max(self._heard, end), False
        return began

    def begin_speech(self, at: float, until: float) -> SpeechBegan:
        """One that has gone on from `at` until now, because of what the caller knows."""
        began = self._begin(at)
        self._heard = max(at, until)
        return began

    def end_speech(self, at: float, reason: EndReason) -> SpeechEnded | None:
        """Over, because of what the caller knows; None where nobody speaks."""
        if self.speech_start is None:
            return None
        self.speech_start = self._rising = None
        return SpeechEnded(at, reason)

    def _rise(self, start: float, end: float, probability: float) -> SpeechBegan | None:
        if probability < self.settings.speech:
            self._rising = None
            return None
        self._rising = start if self._rising is None else self._rising
        if end - self._rising < self.settings.begin_seconds - 1e-6:
            return None
        began = self._begin(self._rising)
        self._heard = end
        return began

    def _begin(self, at: float) -> SpeechBegan:
        self.speech_start = self._heard = self._said = at
        self._is_over = False
        self._rising = None
        return SpeechBegan(at)

    def _reason(self, now: float) -> EndReason | None:
        """Why the utterance is over now."""
        assert self.speech_start is not None
        settings = self.settings
        silent = now - self._heard
        if self._is_over and _is_reached(settings.end_token, silent):
            return "end_token"
        if _is_reached(settings.silence, silent):
            return "silence"
        if _is_reached(settings.blanks, now - self._said):
            return "blanks"
        if _is_reached(settings.longest, now - self.speech_start):
            return "length"
        return None


def _is_reached(limit: float | None, length: float) -> bool:
    return limit is not None and length >= limit - 1e-6
