"""Start and end of utterances."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.errors import BadOption
from conure.vad.endpointing import Endpointer, Endpointing, SpeechBegan, SpeechEnded

STEP = 0.032


def add_steps(endpointer: Endpointer, probabilities: list[float], start: int = 0) -> list[SpeechBegan | SpeechEnded]:
    """Events of the detector's steps; `start` is the number of the first one."""
    heard = (
        endpointer.add_step(STEP * i, STEP * (i + 1), probability) for i, probability in enumerate(probabilities, start)
    )
    return [event for event in heard if event is not None]


def test_silence_after_speech_ends_an_utterance() -> None:
    events = add_steps(Endpointer(Endpointing()), [0.0] * 10 + [0.9] * 30 + [0.0] * 40)
    assert events == [SpeechBegan(pytest.approx(10 * STEP)), SpeechEnded(pytest.approx(59 * STEP), "silence")]


def test_one_step_of_speech_begins_no_utterance() -> None:
    assert add_steps(Endpointer(Endpointing()), [0.0, 0.9, 0.0] * 50) == []


def test_a_token_begins_an_utterance_that_the_detector_missed() -> None:
    endpointer = Endpointer(Endpointing(blanks=1.0))
    assert add_steps(endpointer, [0.1] * 20) == []
    assert endpointer.add_token(0.4, 0.6) == SpeechBegan(0.4)
    assert [
        event.reason for event in add_steps(endpointer, [0.1] * 40, start=20) if isinstance(event, SpeechEnded)
    ] == ["silence"]


def test_a_token_late_in_the_pause_restarts_it() -> None:
    endpointer = Endpointer(Endpointing(silence=0.5))
    add_steps(endpointer, [0.9] * 20 + [0.0] * 14)
    endpointer.add_token(1.0, 1.08)
    (ended,) = add_steps(endpointer, [0.0] * 40, start=34)
    assert ended == SpeechEnded(pytest.approx(1.58, abs=STEP), "silence")


def test_an_end_token_ends_sooner_but_not_in_the_middle_of_speech() -> None:
    endpointer = Endpointer(Endpointing(silence=0.8, end_token=0.1))
    add_steps(endpointer, [0.9] * 20)
    endpointer.add_token(0.3, 0.5)
    endpointer.add_token(0.6, 0.64, is_end=True)
    assert add_steps(endpointer, [0.9] * 20, start=20) == []
    (ended,) = add_steps(endpointer, [0.0] * 10, start=40)
    assert ended == SpeechEnded(pytest.approx(44 * STEP), "end_token")


def test_a_word_after_the_end_token_cancels_it() -> None:
    endpointer = Endpointer(Endpointing(silence=0.8, end_token=0.1))
    add_steps(endpointer, [0.9] * 20)
    endpointer.add_token(0.6, 0.64, is_end=True)
    endpointer.add_token(0.64, 0.72)
    assert add_steps(endpointer, [0.0] * 20, start=20) == []


def test_noise_like_speech_ends_by_blanks_and_speech_by_its_length() -> None:
    noise = Endpointer(Endpointing(blanks=2.0))
    add_steps(noise, [0.9] * 10)
    noise.add_token(0.1, 0.3)
    ended, again = add_steps(noise, [0.9] * 80, start=10)
    assert ended == SpeechEnded(pytest.approx(2.3, abs=STEP), "blanks")
    assert isinstance(again, SpeechBegan)
    _, ended = add_steps(Endpointer(Endpointing(blanks=None, longest=2.0)), [0.9] * 63)
    assert ended == SpeechEnded(pytest.approx(2.0, abs=STEP), "length")


def test_a_request_ends_the_current_utterance_only() -> None:
    endpointer = Endpointer(Endpointing())
    assert endpointer.end_speech(0.5, "asked") is None
    add_steps(endpointer, [0.9] * 20)
    assert endpointer.end_speech(0.7, "asked") == SpeechEnded(0.7, "asked")
    assert endpointer.end_speech(0.7, "closed") is None


@pytest.mark.parametrize("wrong", [{"silence": 0.0}, {"longest": -1.0}, {"blanks": float("inf")}, {"speech": 1.0}])
def test_invalid_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(BadOption):
        Endpointing(**wrong)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.3, 0.4, 0.6, 0.9]), st.booleans(), st.booleans()), max_size=300),
    st.sampled_from([None, 0.2, 0.6]),
)
def test_starts_and_ends_alternate_in_order(heard: list[tuple[float, bool, bool]], silence: float | None) -> None:
    endpointer = Endpointer(Endpointing(silence=silence, longest=4.0, blanks=1.5))
    events: list[SpeechBegan | SpeechEnded] = []
    for index, (probability, says, is_end) in enumerate(heard):
        start, end = STEP * index, STEP * (index + 1)
        told = [
            endpointer.add_token(start, end, is_end) if says else None,
            endpointer.add_step(start, end, probability),
        ]
        events += [event for event in told if event is not None]
    assert all(isinstance(event, (SpeechBegan, SpeechEnded)[index % 2]) for index, event in enumerate(events))
    times = [event.at for event in events]
    assert times == sorted(times)
    lengths = [end - begin for begin, end in zip(times[::2], times[1::2], strict=False)]
    assert all(length <= 4.0 + 2 * STEP for length in lengths)


@pytest.mark.parametrize("seed", range(40))
def test_steps_added_at_once_equal_those_added_one_by_one(seed: int) -> None:
    """Blocks that can be added at once lead to the same state as their steps; others do not change it."""
    rng = random.Random(seed)
    settings = Endpointing(silence=0.3, end_token=0.1, blanks=1.0, longest=3.0)
    skims, steps, at, skimmed = Endpointer(settings), Endpointer(settings), 0, 0
    for _ in range(300):
        level = rng.choice([0.05, 0.42, 0.9])
        block = [min(1.0, max(0.0, rng.gauss(level, 0.02))) for _ in range(rng.randint(1, 6))]
        places = [(at + index) * 0.032 for index in range(len(block) + 1)]
        at += len(block)
        if rng.random() < 0.1:
            said = places[0], places[0] + 0.08, rng.random() < 0.3
            assert skims.add_token(*said) == steps.add_token(*said)
        told = [steps.add_step(*step) for step in zip(places, places[1:], block, strict=False)]
        if skims.add_steps(places[-1], min(block), max(block)):
            assert told == [None] * len(block)
            skimmed += 1
        else:
            assert told == [skims.add_step(*step) for step in zip(places, places[1:], block, strict=False)]
        assert vars(skims) == vars(steps)
    assert 30 < skimmed < 300
