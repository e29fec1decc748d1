"""Events of a channel rendered as messages, without a server: rare and time-dependent cases."""

from __future__ import annotations

from typing import Any

import pytest

from conure.protocols.deepgram.results import ResultOptions, Results
from conure.service.events import Event, Failed, Final, Finished, Lag, Marker, Partial, SpeechStarted, UtteranceEnded
from conure.types import Word
from conure.vad.endpointing import EndReason


def words(text: str, at: float) -> tuple[Word, ...]:
    return tuple(Word(letter, at + i, at + i + 0.5, 0.9) for i, letter in enumerate(text))


def partial(stable: str, tail: str, at: float = 0.0) -> Partial:
    all_words = words(stable + tail, at)
    until = at + len(all_words)
    return Partial(1, stable, tail, (), until, all_words[: len(stable)], all_words[len(stable) :])


def utterance_end(text: str, at: float, reason: EndReason = "silence", begin: float = 0.0) -> list[Event]:
    final = Final(1, text, words(text, begin), begin, at, reason, "model", 0.9, None)
    return [UtteranceEnded(1, at, reason), final]


def render(options: ResultOptions, *events: Event) -> list[dict[str, Any]]:
    results = Results(options, (0, 1), {})
    return [message for event in events for message in results.render_event(event)] + list(results.flush())


def summary(messages: list[dict[str, Any]]) -> list[tuple[str, float, float, bool, bool]]:
    return [
        (
            message["channel"]["alternatives"][0]["transcript"].replace(" ", ""),
            message["start"],
            round(message["start"] + message["duration"], 6),
            message["is_final"],
            message["speech_final"],
        )
        for message in messages
        if message["type"] == "Results"
    ]


def test_long_utterance_is_finalized_in_parts() -> None:
    interim = ResultOptions(interim=True)
    messages = render(
        interim, partial("ab", "c"), partial("abcde", "f"), partial("abcdef", "g"), *utterance_end("abcdefg", 8.0)
    )
    assert summary(messages) == [
        ("abc", 0.0, 3.0, False, False),
        ("abcde", 0.0, 4.5, True, False),
        ("f", 4.5, 6.0, False, False),
        ("fg", 4.5, 7.0, False, False),
        ("fg", 4.5, 8.0, True, True),
    ]
    assert [line for line in summary(messages) if line[3]] == summary(
        render(ResultOptions(), partial("abcde", "f"), *utterance_end("abcdefg", 8.0))
    )


def test_length_limit_is_not_speech_final() -> None:
    assert summary(render(ResultOptions(), *utterance_end("a", 30.0, "length"))) == [("a", 0.0, 30.0, True, False)]
    assert summary(render(ResultOptions(ends_speech=False), *utterance_end("a", 3.0, "blanks"))) == [
        ("a", 0.0, 3.0, True, False)
    ]


def test_silence_is_finalized_in_parts_except_during_speech() -> None:
    lags = [Lag(0.0, seconds) for seconds in (2.0, 5.9, 6.0, 7.0, 13.0)]
    assert summary(render(ResultOptions(), *lags)) == [("", 0.0, 5.0, True, False), ("", 5.0, 12.0, True, False)]
    assert render(ResultOptions(), SpeechStarted(1, 0.5), *lags) == []


def test_finalize_is_answered_once() -> None:
    events = [*utterance_end("a", 0.9, "asked"), Marker(1, 1.0), Marker(2, 1.0)]
    messages = render(ResultOptions(), *events)
    assert summary(messages) == [("a", 0.0, 1.0, True, True), ("", 1.0, 1.0, True, True)]
    assert all(message["from_finalize"] for message in messages)


@pytest.mark.parametrize("last", [Finished(2.0), Failed("lag_exceeded", "too late")])
def test_last_words_are_sent_for_every_terminal_event(last: Event) -> None:
    (line,) = summary(render(ResultOptions(), *utterance_end("a", 1.5, "closed"), last))
    assert line == ("a", 0.0, 2.0 if isinstance(last, Finished) else 1.5, True, True)


@pytest.mark.parametrize(
    ("events", "ends"),
    [
        ([*utterance_end("a", 1.0), Lag(0.0, 1.4)], []),
        ([*utterance_end("a", 1.0), Lag(0.0, 1.5), Lag(0.0, 9.0)], [0.5]),
        ([partial("", "a"), Lag(0.0, 1.6)], [0.5]),
        ([*utterance_end("a", 1.0), *utterance_end("b", 4.0, begin=3.0)], [0.5]),
        ([*utterance_end("a", 1.0), *utterance_end("b", 2.0, begin=1.2)], []),
        ([*utterance_end("a", 1.0), Finished(1.5)], [0.5]),
        # Speech that begins within the time continues the utterance, once it has words.
        ([*utterance_end("a", 1.0), SpeechStarted(2, 1.4), Lag(0.0, 1.6), *utterance_end("b", 2.5, begin=2.0)], []),
        ([*utterance_end("a", 1.0), SpeechStarted(2, 1.4), Lag(0.0, 1.6), Lag(0.0, 3.4)], [0.5]),
        ([*utterance_end("a", 1.0), SpeechStarted(2, 1.4), *utterance_end("", 1.5), Lag(0.0, 1.6)], [0.5]),
    ],
)
def test_utterance_end_after_words_stop(events: list[Event], ends: list[float]) -> None:
    messages = render(ResultOptions(utterance_end=1.0), *events)
    assert [message["last_word_end"] for message in messages if message["type"] == "UtteranceEnd"] == ends
    assert all(message["type"] == "Results" for message in render(ResultOptions(), *events))


@pytest.mark.parametrize("begin", [1.1, 1.4, 1.49, 1.5, 1.6, 3.0])
@pytest.mark.parametrize("step", [0.08, 0.1, 0.56, 1.12])
def test_no_utterance_end_between_speech_start_and_words(begin: float, step: float) -> None:
    """An agent that answers at UtteranceEnd must not interrupt a speaker who has just started."""
    later = begin + 0.9
    passed = [Lag(0.0, step * turn) for turn in range(1, 200) if 1.0 < step * turn < later]
    events = sorted([*passed, SpeechStarted(2, begin)], key=lambda event: getattr(event, "processed_until", begin))
    options = ResultOptions(utterance_end=1.0, speech_starts=True)
    messages = render(
        options, SpeechStarted(1, 0.1), *utterance_end("a", 1.0), *events, *utterance_end("b", later + 0.1, begin=later)
    )
    kinds = [message["type"] for message in messages if message["type"] != "Results"]
    assert kinds in (["SpeechStarted", "SpeechStarted"], ["SpeechStarted", "UtteranceEnd", "SpeechStarted"])
    assert ("UtteranceEnd" in kinds) == (begin - 0.5 >= 1.0)
