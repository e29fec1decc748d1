"""Events rendered as Riva results."""

from __future__ import annotations

from conure.protocols.riva.options import Options
from conure.protocols.riva.results import Results
from conure.protocols.riva.riva_asr_pb2 import StreamingRecognitionResult
from conure.service.events import Event, Final, Finished, Lag, Marker, Partial, SpeechStarted, UtteranceEnded
from conure.types import Word
from conure.vad.endpointing import EndReason

WITH_INTERIMS = Options(interim=True, punctuation=True)
TWO_PASSES = Options(interim=True, punctuation=True, second_pass=0.5)


def words_of(text: str, start: float = 0.0) -> tuple[Word, ...]:
    return tuple(Word(word, start + i, start + i + 0.5, 0.5) for i, word in enumerate(text.split()))


def partial(stable: str, tail: str, until: float = 0.0) -> Partial:
    return Partial(1, stable, tail, (), until)


def utterance_end(text: str, at: float, reason: EndReason = "silence", start: float = 0.0) -> list[Event]:
    words = words_of(text, start)
    return [UtteranceEnded(1, at, reason), Final(1, text, words, start, at, reason, "tiny", 0.5, None)]


def render(results: Results, *events: Event) -> list[StreamingRecognitionResult]:
    return [result for event in events for result in results.render(event)]


def texts(results: list[StreamingRecognitionResult]) -> list[tuple[str, bool]]:
    return [(result.alternatives[0].transcript, result.is_final) for result in results]


def test_interims_are_cumulative_and_finals_have_words() -> None:
    results = Results(Options(interim=True, punctuation=True, with_words=True), 2)
    rendered = render(
        results,
        SpeechStarted(1, 0.1),
        partial("", "Hey", 0.5),
        partial("Hey", " Joe", 1.0),
        *utterance_end("Hey Joe", 1.6),
    )
    assert texts(rendered) == [("Hey", False), ("Hey Joe", False), ("Hey Joe", True)]
    assert [round(result.stability, 2) for result in rendered] == [0, 0.43, 1]
    assert {result.channel_tag for result in rendered} == {2}
    assert [round(result.audio_processed, 2) for result in rendered] == [0.5, 1, 1.6]
    assert not rendered[0].alternatives[0].words
    words = [(word.word, word.start_time, word.end_time) for word in rendered[2].alternatives[0].words]
    assert words == [("Hey", 0, 500), ("Joe", 1000, 1500)]
    assert rendered[2].alternatives[0].confidence == 0.5


def test_unrequested_results_are_omitted() -> None:
    (final,) = render(Results(Options()), partial("Hey", " Joe."), *utterance_end("Hey Joe.", 1.0))
    assert final.is_final
    assert final.alternatives[0].transcript == "hey joe"
    assert not final.alternatives[0].words


def test_noise_is_omitted_unless_an_interim_was_sent() -> None:
    assert render(Results(WITH_INTERIMS), *utterance_end("", 1.0)) == []
    assert texts(render(Results(WITH_INTERIMS), partial("", "uh"), *utterance_end("", 1.0))) == [
        ("uh", False),
        ("", True),
    ]


def test_finalize_request_is_answered() -> None:
    results = Results(WITH_INTERIMS)
    assert texts(render(results, Marker(1))) == [("", True)]
    assert texts(render(results, *utterance_end("yes", 1.0, "asked"), Marker(2))) == [("yes", True)]
    assert texts(render(results, *utterance_end("no", 2.0), Marker(3))) == [("no", True), ("", True)]


def test_second_pass_waits_for_silence() -> None:
    results = Results(TWO_PASSES)
    first = render(results, partial("", "one", 0.4), *utterance_end("one", 1.0))
    assert texts(first) == [("one", False), ("one", False)]
    assert [result.stability for result in first] == [0, 1]
    assert render(results, Lag(0.0, 1.2)) == []
    assert texts(render(results, Lag(0.0, 1.8))) == [("one", True)]


def test_short_pause_continues_the_utterance() -> None:
    results = Results(TWO_PASSES)
    render(results, partial("", "one"), *utterance_end("one", 1.0))
    assert render(results, SpeechStarted(2, 1.4), Lag(0.0, 1.9)) == []
    assert texts(render(results, partial("", "two"), Lag(0.0, 2.6))) == [("one two", False)]
    assert texts(render(results, *utterance_end("two", 3.0, start=2.0))) == [("one two", False)]
    assert texts(render(results, Finished(3.1))) == [("one two", True)]


def test_long_pause_starts_another_utterance() -> None:
    results = Results(TWO_PASSES)
    render(results, *utterance_end("one", 1.0))
    assert texts(render(results, SpeechStarted(2, 1.51))) == [("one", True)]
    assert texts(render(results, partial("", "two"))) == [("two", False)]


def test_noise_does_not_delay_a_final() -> None:
    results = Results(TWO_PASSES)
    render(results, *utterance_end("one", 1.0))
    assert render(results, SpeechStarted(2, 1.4), *utterance_end("", 1.8, start=1.4)) == []
    assert texts(render(results, Lag(0.0, 2.6))) == [("one", True)]


def test_requested_final_is_not_delayed() -> None:
    results = Results(TWO_PASSES)
    render(results, *utterance_end("one", 1.0))
    assert texts(render(results, Marker(1))) == [("one", True)]


def test_hold_is_limited() -> None:
    results = Results(TWO_PASSES)
    render(results, *utterance_end("one", 1.0), SpeechStarted(2, 1.2), partial("", "two"))
    assert texts(render(results, *utterance_end("two", 31.0, start=30.0))) == [("one two", True)]
