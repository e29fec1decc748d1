"""Utterances by the speech detector alone: confirmed ones by the settings, faint ones so that no word is missed."""

from __future__ import annotations

from conure.vad.endpointing import Endpointing, SpeechBegan, SpeechEnded
from conure.vad.segmentation import SegmentationSettings
from conure.vad.utterance_detector import UtteranceDetector

STEP = 0.032


def add_steps(
    utterances: UtteranceDetector, probabilities: list[float], start: int = 0
) -> tuple[list[SpeechBegan | SpeechEnded], list[tuple[float, float]]]:
    """Events, and start and end of utterances."""
    events: list[SpeechBegan | SpeechEnded] = []
    spans: list[tuple[float, float]] = []
    for index, probability in enumerate(probabilities, start):
        before = utterances.speech_start
        event = utterances.add_step(STEP * index, STEP * (index + 1), probability)
        if event is not None:
            events.append(event)
        if isinstance(event, SpeechEnded):
            spans.append((before or 0.0, event.at))
    return events, spans


def utterances(**settings: float | None) -> UtteranceDetector:
    return UtteranceDetector(Endpointing(**settings), SegmentationSettings())  # type: ignore[arg-type]


def test_clear_speech_has_the_events_of_the_endpointer() -> None:
    events, _ = add_steps(utterances(), [0.0] * 20 + [0.9] * 30 + [0.0] * 30)
    assert events == [SpeechBegan(20 * STEP), SpeechEnded(69 * STEP, "silence")]


def test_a_faint_word_is_kept_but_not_announced() -> None:
    events, spans = add_steps(utterances(), [0.0] * 20 + [0.25] + [0.0] * 30)
    assert [type(event) for event in events] == [SpeechEnded]
    assert spans[0][0] == 20 * STEP


def test_noise_is_ignored_and_the_threshold_at_the_start_is_lower() -> None:
    assert add_steps(utterances(), [0.05] * 12 + [0.17] * 200) == ([], [])
    assert len(add_steps(utterances(), [0.12] * 2 + [0.0] * 30)[1]) == 1


def test_speech_that_begins_faint_is_one_utterance() -> None:
    events, spans = add_steps(utterances(), [0.0] * 20 + [0.3] * 5 + [0.9] * 10 + [0.0] * 30)
    assert events[0] == SpeechBegan(25 * STEP)
    assert spans == [(20 * STEP, events[1].at)]


def test_the_length_of_utterances_is_limited() -> None:
    for longest, most in ((4.0, 4.0), (None, 30.0), (600.0, 30.0), (0.1, 2.0)):
        _, spans = add_steps(utterances(longest=longest, silence=None), [0.9] * 1000)
        assert most <= spans[0][1] - spans[0][0] <= most + STEP


def test_an_utterance_that_continues_after_a_split_ends_by_silence() -> None:
    one = utterances(longest=4.0)
    events, _ = add_steps(one, [0.9] * 125)
    one.resume(3.0, 4.0, is_sure=True)
    after, spans = add_steps(one, [0.0] * 40, start=125)
    assert isinstance(events[-1], SpeechEnded)
    assert [event.reason for event in after if isinstance(event, SpeechEnded)] == ["silence"]
    assert spans[0][0] == 3.0
    assert one.end_speech(9.0, "asked") is None
