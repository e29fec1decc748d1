"""Turns of a dialogue: their events, the order of these, and confidence."""

from __future__ import annotations

import pytest

from conure.errors import BadOption
from conure.service.dialogue_turns import (
    MIN_PAUSE,
    DialogueTurn,
    DialogueTurns,
    EndOfTurnSettings,
    confidence_after,
    silence_for,
)
from conure.service.events import Event, Final, Finished, Lag, Marker, Partial, SpeechStarted, UtteranceEnded
from conure.types import Word
from conure.vad.endpointing import EndReason

EAGER = EndOfTurnSettings(eager_threshold=0.4)


def words(text: str, at: float) -> tuple[Word, ...]:
    return tuple(Word(word, at + i, at + i + 0.5) for i, word in enumerate(text.split()))


def partial(text: str, until: float) -> Partial:
    return Partial(1, "", text, (), until, (), words(text, 0.0))


def over(text: str, at: float, reason: EndReason = "silence") -> list[Event]:
    return [UtteranceEnded(1, at, reason), Final(1, text, words(text, at - 1), 0.0, at, reason, "model", None, None)]


def told(patience: EndOfTurnSettings, *events: Event) -> list[DialogueTurn]:
    turns = DialogueTurns(patience)
    return [turn for event in events for turn in turns.process_event(event)]


def kinds(turns: list[DialogueTurn]) -> list[tuple[int, str, str]]:
    return [(turn.index, turn.event, " ".join(word.text for word in turn.words)) for turn in turns]


def test_confidence_grows_with_silence() -> None:
    assert confidence_after(0) == 0
    for confidence in (0.3, 0.5, 0.7, 0.95):
        assert confidence_after(silence_for(confidence)) == pytest.approx(confidence)
    assert silence_for(1.0) == float("inf")
    assert 0.55 < silence_for(0.7) < 0.65


@pytest.mark.parametrize("values", [(0.4,), (1.1,), (0.7, 0.2), (0.7, 0.95), (0.7, None, 0.4), (0.7, None, 61.0)])
def test_values_out_of_bounds_are_named(values: tuple[float, ...]) -> None:
    with pytest.raises(BadOption, match="eot_"):
        EndOfTurnSettings(*values)


def test_patience_as_endpointing() -> None:
    usual = EndOfTurnSettings().endpointing
    assert usual.silence == pytest.approx(silence_for(0.7))
    assert usual.blanks == 5.0
    assert EAGER.endpointing.silence == pytest.approx(silence_for(0.4))
    assert EndOfTurnSettings(0.5, 0.3).endpointing.silence == MIN_PAUSE
    assert EndOfTurnSettings(0.5, 0.5).eager_end_silence is None  # it would come no earlier
    sure = EndOfTurnSettings(1.0, timeout=3.0).endpointing
    assert (sure.silence, sure.end_token, sure.blanks) == (3.0, None, 3.0)


def test_a_turn_of_one_utterance() -> None:
    turns = told(
        EndOfTurnSettings(), SpeechStarted(1, 0.5), partial("one", 1.0), partial("one two", 2.0), *over("one two", 3.0)
    )
    assert kinds(turns) == [(0, "start", "one"), (0, "update", "one two"), (0, "end", "one two")]
    assert [turn.trigger for turn in turns] == [None, None, "model"]
    assert [turn.confidence for turn in turns] == [0.0, 0.0, 0.7]
    assert (turns[-1].start, turns[-1].until) == (0.0, 3.0)


def test_every_turn_has_a_beginning_and_its_own_number() -> None:
    turns = told(EndOfTurnSettings(), *over("one", 1.0), *over("two", 2.5))
    assert kinds(turns) == [(0, "start", "one"), (0, "end", "one"), (1, "start", "two"), (1, "end", "two")]
    assert [turn.start for turn in turns] == [0.0, 0.0, 1.0, 1.0]


def test_noise_is_no_turn() -> None:
    assert told(EAGER, SpeechStarted(1, 0.5), *over("", 1.0), Lag(0.0, 9.0), Marker(1), Finished(10.0)) == []


def test_an_eager_end_that_holds() -> None:
    turns = told(EAGER, *over("one", 1.0), Lag(0.0, 1.2), Lag(0.0, 1.5), Lag(0.0, 9.0))
    assert kinds(turns) == [(0, "start", "one"), (0, "eager_end", "one"), (0, "end", "one")]
    assert [turn.confidence for turn in turns[1:]] == [pytest.approx(0.4, abs=1e-3), pytest.approx(0.78, abs=0.01)]
    assert turns[-1].trigger == "model"


def test_an_eager_end_that_does_not_hold() -> None:
    events = [*over("one", 1.0), SpeechStarted(2, 1.2), Lag(0.0, 9.0), partial("two", 9.5), *over("two", 10.0)]
    turns = told(EAGER, *events, Lag(0.0, 12.0))
    assert kinds(turns) == [
        (0, "start", "one"),
        (0, "eager_end", "one"),
        (0, "resumed", "one"),
        (0, "update", "one two"),
        (0, "eager_end", "one two"),
        (0, "end", "one two"),
    ]


def test_noise_after_an_eager_end_only_delays_the_end() -> None:
    turns = told(EAGER, *over("one", 1.0), SpeechStarted(2, 1.2), *over("", 2.0), Lag(0.0, 3.0))
    assert [turn.event for turn in turns] == ["start", "eager_end", "resumed", "eager_end", "end"]


@pytest.mark.parametrize(
    ("reason", "events", "trigger"),
    [("end_token", ["start", "end"], "model"), ("blanks", ["start", "end"], "timeout")],
)
def test_other_ends(reason: EndReason, events: list[str], trigger: str) -> None:
    for patience in (EndOfTurnSettings(), EAGER):
        turns = told(patience, *over("one", 1.0, reason))
        assert [turn.event for turn in turns] == events
        assert turns[-1].trigger == trigger
        assert turns[-1].confidence >= patience.threshold


def test_a_silence_as_long_as_the_timeout_is_one() -> None:
    assert told(EndOfTurnSettings(1.0, timeout=2.0), *over("one", 3.0))[-1].trigger == "timeout"


def test_a_long_utterance_is_no_end() -> None:
    events = [*over("one", 30.0, "length"), SpeechStarted(2, 30.0), partial("two", 31.0), *over("two", 32.0)]
    assert kinds(told(EndOfTurnSettings(), *events)) == [
        (0, "start", "one"),
        (0, "update", "one"),
        (0, "update", "one two"),
        (0, "end", "one two"),
    ]
    silent = told(EndOfTurnSettings(), *over("one", 30.0, "length"), Lag(0.0, 30.3), Lag(0.0, 30.7))
    assert [turn.event for turn in silent] == ["start", "update", "end"]


@pytest.mark.parametrize(("reason", "last"), [("asked", Marker(1)), ("closed", Finished(4.0))])
def test_a_requested_final_ends_a_turn(reason: EndReason, last: Event) -> None:
    turns = told(EndOfTurnSettings(), partial("one", 1.0), *over("one", 3.0, reason), last, last)
    assert [(turn.event, turn.trigger) for turn in turns] == [("start", None), ("end", "manual")]
    eager = told(EAGER, *over("one", 1.0), last)
    assert [(turn.event, turn.trigger) for turn in eager][-1] == ("end", "manual")
