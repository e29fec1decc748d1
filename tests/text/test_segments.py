"""Words to segments."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from conure.text.segments import segments_from_words
from conure.types import Word


def spoken(text: str, *, each: float = 0.5, pauses: dict[int, float] | None = None) -> list[Word]:
    """The words of a text in order; `pauses` are seconds of silence before a word."""
    words, now = [], 0.0
    for index, word in enumerate(text.split()):
        now += (pauses or {}).get(index, 0.0)
        words.append(Word(word, now, now + each))
        now += each
    return words


def texts(words: list[Word], **options: float) -> list[str]:
    return [segment.text for segment in segments_from_words(words, **options)]


def test_a_segment_is_a_sentence_with_its_times() -> None:
    one, two = segments_from_words(spoken("How are you? I am well."))
    assert (one.text, one.start, one.end) == ("How are you?", 0.0, 1.5)
    assert (two.text, two.start, two.end) == ("I am well.", 1.5, 3.0)
    assert [word.text for word in two.words] == ["I", "am", "well."]


def test_no_words_no_segments() -> None:
    assert segments_from_words([]) == []


def test_sentence_ends_inside_quotes_and_in_other_scripts() -> None:
    assert texts(spoken('He said "no." She left.')) == ['He said "no."', "She left."]
    assert texts(spoken("今天很好。 走吧！ ठीक है। हाँ")) == ["今天很好。", "走吧！", "ठीक है।", "हाँ"]


def test_a_lower_case_letter_continues_a_sentence() -> None:
    assert texts(spoken("Take e.g. this. Well... yes.")) == ["Take e.g. this.", "Well... yes."]


def test_without_marks_a_pause_ends_a_segment() -> None:
    assert texts(spoken("one two three four", pauses={2: 1.2})) == ["one two", "three four"]
    assert texts(spoken("one two three four", pauses={2: 0.9})) == ["one two three four"]


def test_with_marks_only_a_long_pause_ends_a_segment() -> None:
    assert texts(spoken("one two three four.", pauses={2: 1.5})) == ["one two three four."]
    assert texts(spoken("one two three four.", pauses={2: 3.5})) == ["one two", "three four."]


def test_a_long_segment_is_split_at_a_pause() -> None:
    words = spoken(" ".join(["w"] * 100), pauses={33: 0.5, 75: 0.4})
    segments = segments_from_words(words, max_seconds=20.0)
    assert [len(segment.words) for segment in segments] == [33, 40, 27]


def test_words_without_times_are_split_at_marks() -> None:
    segments = segments_from_words([Word(text) for text in ("Yes.", "No", "way")])
    assert [(segment.text, segment.start, segment.end) for segment in segments] == [
        ("Yes.", None, None),
        ("No way", None, None),
    ]


TEXTS = st.sampled_from(["a", "Be", "so.", "why?", "今天。"])
MAYBE_TIMES = st.one_of(st.none(), st.floats(0.0, 2.0))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXTS, MAYBE_TIMES, st.floats(0.0, 8.0))))
def test_every_word_is_in_one_segment_and_none_is_too_long(drawn: list[tuple[str, float | None, float]]) -> None:
    words, now = [], 0.0
    for text, length, pause in drawn:
        now += pause
        words.append(Word(text) if length is None else Word(text, now, now + length))
        now += length or 0.0
    segments = segments_from_words(words, max_seconds=10.0)
    assert [word for segment in segments for word in segment.words] == words
    assert all(segment.words for segment in segments)
    if all(word.start is not None for word in words):
        assert all((segment.end or 0) - (segment.start or 0) <= 10.0 for segment in segments)
