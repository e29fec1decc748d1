"""Turns of a dialogue, made of utterances: their starts, possible ends, resumptions and ends.

    utterance ends by silence ──> eager_end ──┬─ speech ──────────> resumed ──> ...
                                              └─ silence goes on ──> end

The confidence that a turn is over depends on the duration of the silence: `confidence_after`. A model with an end token
may end a turn at once. Independent of sockets and clocks: the input is the events of a stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from conure.errors import BadOption
from conure.service.events import Event, Final, Finished, Lag, Marker, Partial, SpeechStarted, UtteranceEnded
from conure.types import Word
from conure.vad.endpointing import Endpointing, EndReason

__all__ = [
    "MIN_PAUSE",
    "EndOfTurnSettings",
    "EndTrigger",
    "DialogueTurn",
    "TurnEvent",
    "DialogueTurns",
    "confidence_after",
    "silence_for",
]

TIME_CONSTANT = 0.5
"""Seconds of silence after which the confidence is 63 %."""
MIN_PAUSE = 0.2
"""Shortest silence, in seconds, that may end an utterance: networks emit the last part of a word that late."""

TurnEvent = Literal["start", "update", "eager_end", "resumed", "end"]
EndTrigger = Literal["model", "manual", "timeout"]


def confidence_after(silence: float) -> float:
    """Confidence that the turn is over after a silence: 0.7 after 0.6 s, 0.9 after 1.15 s."""
    return 1 - math.exp(-silence / TIME_CONSTANT)


def silence_for(confidence: float) -> float:
    """Inverse of `confidence_after`."""
    return math.inf if confidence >= 1 else -TIME_CONSTANT * math.log(1 - confidence)


@dataclass(frozen=True)
class EndOfTurnSettings:
    """Confidence at which a turn ends. Raises BadOption."""

    threshold: float = 0.7
    """From 0.5; at 1, only `timeout` ends a turn."""
    eager_threshold: float | None = None
    """Confidence at which an `eager_end` is reported; None for never."""
    timeout: float = 5.0
    """Seconds without a word after which a turn always ends."""

    def __post_init__(self) -> None:
        _check("eot_threshold", self.threshold, 0.5, 1.0)
        if self.eager_threshold is not None:
            _check("eager_eot_threshold", self.eager_threshold, 0.3, 0.9)
        _check("eot_timeout_ms", self.timeout * 1000, 500, 60_000)

    @property
    def end_silence(self) -> float:
        """Seconds of silence that end a turn."""
        return min(max(silence_for(self.threshold), MIN_PAUSE), self.timeout)

    @property
    def eager_end_silence(self) -> float | None:
        """Seconds of silence until an `eager_end`; None if it would not be before the end."""
        if self.eager_threshold is None:
            return None
        silence = max(silence_for(self.eager_threshold), MIN_PAUSE)
        return silence if silence < self.end_silence else None

    @property
    def endpointing(self) -> Endpointing:
        """Endpointing of the utterances that make up turns."""
        base = Endpointing(silence=self.eager_end_silence or self.end_silence, blanks=self.timeout)
        return replace(base, end_token=None) if self.threshold >= 1 else base


def _check(name: str, value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise BadOption(f"{name} is {value:g}", f"it must be {minimum:g} to {maximum:g}")


@dataclass(frozen=True)
class DialogueTurn:
    """An event of a turn, with the turn's state."""

    event: TurnEvent
    index: int
    start: float
    """End of the previous turn."""
    until: float
    words: tuple[Word, ...]
    """All words of the turn so far."""
    confidence: float
    """That the turn is over; 0 during speech."""
    trigger: EndTrigger | None = None
    """Cause of an `end`."""


class DialogueTurns:
    """Turns of one stream. `settings` may change at any time."""

    def __init__(self, settings: EndOfTurnSettings) -> None:
        self.settings = settings
        self._index = 0
        self._start = self._until = 0.0
        self._words: tuple[Word, ...] = ()
        """Words of ended utterances."""
        self._silent_since: float | None = None
        """Start of the silence in this turn."""
        self._is_started = self._is_eager = False
        """Whether its `start`, and an `eager_end`, were reported."""

    def process_event(self, event: Event) -> Iterator[DialogueTurn]:
        match event:
            case SpeechStarted():
                yield from self._resume()
            case Partial(processed_until=until, stable_words=stable, tail_words=tail) if stable or tail:
                self._until = max(self._until, until)
                yield from self._resume()
                yield self._turn("update" if self._is_started else "start", (*self._words, *stable, *tail))
                self._is_started = True
            case UtteranceEnded(at=at):
                self._until = max(self._until, at)
            case Final(words=words, reason=reason):
                self._words += words
                yield from self._pause(reason)
            case Lag(processed_until=until) if self._silent_since is not None:
                self._until = max(self._until, until)
                if self._silence >= self.settings.end_silence:
                    yield self._end(self._silence_trigger)
            case Finished(seconds):
                self._until = max(self._until, seconds)
                yield from self._end_manually()
            case Marker():
                yield from self._end_manually()

    @property
    def _silence(self) -> float:
        return 0.0 if self._silent_since is None else max(self._until - self._silent_since, 0.0)

    @property
    def _silence_trigger(self) -> EndTrigger:
        return "timeout" if self.settings.end_silence >= self.settings.timeout else "model"

    def _resume(self) -> Iterator[DialogueTurn]:
        """Speech continues."""
        self._silent_since = None
        if self._is_eager:
            self._is_eager = False
            yield self._turn("resumed", self._words)

    def _pause(self, reason: EndReason) -> Iterator[DialogueTurn]:
        """An utterance has ended, and perhaps the turn. A turn without words has no events."""
        if not self._words:
            return
        if not self._is_started:
            self._is_started = True
            yield self._turn("start", self._words)
        eager = self.settings.eager_end_silence
        silences: dict[EndReason, float] = {
            "silence": eager or self.settings.end_silence,
            "blanks": self.settings.timeout,
        }
        self._silent_since = self._until - silences.get(reason, 0.0)
        match reason:
            case "end_token":
                yield self._end("model")
            case "blanks":
                yield self._end("timeout")
            case "length":
                yield self._turn("update", self._words)
            case "silence" if eager:
                self._is_eager = True
                yield self._turn("eager_end", self._words)
            case "silence":
                yield self._end(self._silence_trigger)
            case _:
                pass  # a requested final: the turn ends with the marker

    def _end_manually(self) -> Iterator[DialogueTurn]:
        if self._words:
            yield self._end("manual")

    def _end(self, trigger: EndTrigger) -> DialogueTurn:
        turn = replace(self._turn("end", self._words), trigger=trigger)
        if trigger == "model":
            turn = replace(turn, confidence=max(turn.confidence, self.settings.threshold))
        self._index += 1
        self._start, self._words, self._silent_since = self._until, (), None
        self._is_started = self._is_eager = False
        return turn

    def _turn(self, event: TurnEvent, words: tuple[Word, ...]) -> DialogueTurn:
        return DialogueTurn(
            event, self._index, self._start, self._until, words, round(confidence_after(self._silence), 4)
        )
