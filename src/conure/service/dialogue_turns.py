"""Turns of a conversation, made of utterances: when one is over, perhaps over, and going on after all.

    utterance ends by silence ──> EagerEnd ──┬─ somebody speaks ──> Resumed ──> ...
                                             └─ silence goes on ──> End

The confidence that a turn is over depends on the length of the silence: `confidence_after`. A model that reports ends
of utterances may be sure at once. Knows nothing of sockets or clocks: it goes by the events of a stream.
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

PAUSE = 0.5
"""Seconds of silence after which it is 63 % sure that the turn is over."""
MIN_PAUSE = 0.2
"""Seconds of silence that may end an utterance: a network may be so late with the last part of a word."""

TurnEvent = Literal["start", "update", "eager_end", "resumed", "end"]
EndTrigger = Literal["model", "manual", "timeout"]


def confidence_after(silence: float) -> float:
    """That nobody goes on speaking after so many seconds: 0.7 after 0.6 s, 0.9 after 1.15 s."""
    return 1 - math.exp(-silence / PAUSE)


def silence_for(confidence: float) -> float:
    """The other way round."""
    return math.inf if confidence >= 1 else -PAUSE * math.log(1 - confidence)


@dataclass(frozen=True)
class EndOfTurnSettings:
    """How sure it must be that a turn is over. Raises BadOption."""

    threshold: float = 0.7
    """From 0.5; at 1 only `timeout` ends a turn."""
    eager_threshold: float | None = None
    """From here on it is told that the turn may be over; None for never."""
    timeout: float = 5.0
    """Seconds without a word after which it is over in any case."""

    def __post_init__(self) -> None:
        _check("eot_threshold", self.threshold, 0.5, 1.0)
        if self.eager_threshold is not None:
            _check("eager_eot_threshold", self.eager_threshold, 0.3, 0.9)
        _check("eot_timeout_ms", self.timeout * 1000, 500, 60_000)

    @property
    def end_silence(self) -> float:
        """Seconds of silence."""
        return min(max(silence_for(self.threshold), MIN_PAUSE), self.timeout)

    @property
    def eager_end_silence(self) -> float | None:
        """The same, where it comes before the end."""
        if self.eager_threshold is None:
            return None
        silence = max(silence_for(self.eager_threshold), MIN_PAUSE)
        return silence if silence < self.end_silence else None

    @property
    def endpointing(self) -> Endpointing:
        """What ends the utterances of which turns are made."""
        base = Endpointing(silence=self.eager_end_silence or self.end_silence, blanks=self.timeout)
        return replace(base, end_token=None) if self.threshold >= 1 else base


def _check(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise BadOption(f"{name} is {value:g}", f"it must be {lowest:g} to {highest:g}")


@dataclass(frozen=True)
class DialogueTurn:
    """What is known of a turn when something happens to it."""

    event: TurnEvent
    index: int
    start: float
    """Where the turn before it ended."""
    until: float
    words: tuple[Word, ...]
    """All of the turn so far."""
    confidence: float
    """That it is over; 0 while somebody speaks."""
    trigger: EndTrigger | None = None
    """Of an end."""


class DialogueTurns:
    """One stream's. `patience` may change at any time."""

    def __init__(self, patience: EndOfTurnSettings) -> None:
        self.settings = patience
        self._index = 0
        self._start = self._until = 0.0
        self._said: tuple[Word, ...] = ()
        """Words of the utterances that are over."""
        self._silent_since: float | None = None
        """Since when nobody has spoken in this turn."""
        self._is_told = self._is_eager = False
        """Whether its beginning, and its possible end, were told."""

    def process_event(self, event: Event) -> Iterator[DialogueTurn]:
        match event:
            case SpeechStarted():
                yield from self._go_on()
            case Partial(processed_until=until, stable_words=stable, tail_words=tail) if stable or tail:
                self._until = max(self._until, until)
                yield from self._go_on()
                yield self._turn("update" if self._is_told else "start", (*self._said, *stable, *tail))
                self._is_told = True
            case UtteranceEnded(at=at):
                self._until = max(self._until, at)
            case Final(words=words, reason=reason):
                self._said += words
                yield from self._pause(reason)
            case Lag(processed_until=until) if self._silent_since is not None:
                self._until = max(self._until, until)
                if self._silence >= self.settings.end_silence:
                    yield self._end(self._by_silence)
            case Finished(seconds):
                self._until = max(self._until, seconds)
                yield from self._end_now()
            case Marker():
                yield from self._end_now()

    @property
    def _silence(self) -> float:
        return 0.0 if self._silent_since is None else max(self._until - self._silent_since, 0.0)

    @property
    def _by_silence(self) -> EndTrigger:
        return "timeout" if self.settings.end_silence >= self.settings.timeout else "model"

    def _go_on(self) -> Iterator[DialogueTurn]:
        """Somebody speaks."""
        self._silent_since = None
        if self._is_eager:
            self._is_eager = False
            yield self._turn("resumed", self._said)

    def _pause(self, reason: EndReason) -> Iterator[DialogueTurn]:
        """An utterance is over, and with it perhaps the turn; one without a word is none."""
        if not self._said:
            return
        if not self._is_told:
            self._is_told = True
            yield self._turn("start", self._said)
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
                yield self._turn("update", self._said)
            case "silence" if eager:
                self._is_eager = True
                yield self._turn("eager_end", self._said)
            case "silence":
                yield self._end(self._by_silence)
            case _:
                pass  # asked for: it ends with the marker

    def _end_now(self) -> Iterator[DialogueTurn]:
        if self._said:
            yield self._end("manual")

    def _end(self, trigger: EndTrigger) -> DialogueTurn:
        turn = replace(self._turn("end", self._said), trigger=trigger)
        if trigger == "model":
            turn = replace(turn, confidence=max(turn.confidence, self.settings.threshold))
        self._index += 1
        self._start, self._said, self._silent_since = self._until, (), None
        self._is_told = self._is_eager = False
        return turn

    def _turn(self, event: TurnEvent, words: tuple[Word, ...]) -> DialogueTurn:
        return DialogueTurn(
            event, self._index, self._start, self._until, words, round(confidence_after(self._silence), 4)
        )
