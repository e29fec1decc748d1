"""Subtitles: the requirements of players, and where cues and lines break."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conure.errors import BadOption
from conure.text.segments import segments_from_words
from conure.text.subtitles import COLUMNS, columns, cues_from_segments, render_srt, render_vtt
from conure.types import Segment, Word


def spoken(text: str, *, each: float = 0.4, start: float = 0.0) -> list[Segment]:
    words = [Word(w, start + i * each, start + (i + 1) * each) for i, w in enumerate(text.split())]
    return segments_from_words(words)


def test_srt() -> None:
    assert render_srt(spoken("Hello there. How are you?", each=0.6, start=3599.8)) == (
        "1\n00:59:59,800 --> 01:00:01,000\nHello there.\n\n2\n01:00:01,000 --> 01:00:02,800\nHow are you?\n\n"
    )


def test_vtt_is_escaped_and_always_has_hours() -> None:
    assert render_vtt(spoken("R&D <b> -->", each=0.5)) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nR&amp;D &lt;b&gt; --&gt;\n\n"
    )


def test_srt_text_cannot_look_like_a_time_line() -> None:
    assert render_srt(spoken("a --> b")).count("-->") == 1


def test_hours_beyond_two_digits() -> None:
    assert "100:00:00,000 --> 100:00:01,000" in render_srt(spoken("late", start=360_000.0))


def test_an_empty_transcript() -> None:
    assert render_srt([]) == ""
    assert render_vtt([]) == "WEBVTT\n\n"


def test_words_without_times_are_refused() -> None:
    with pytest.raises(BadOption, match="subtitles need times"):
        render_srt([Segment("hello", words=(Word("hello"),))])
    with pytest.raises(BadOption, match="subtitles need times"):
        render_srt([Segment("hello", 0.0, 1.0)])


def test_a_long_sentence_breaks_at_a_clause_into_balanced_lines() -> None:
    text = (
        "When the sun came up over the hills of the old town, nobody was awake to see it, "
        "and the birds had the market square to themselves."
    )
    cues = cues_from_segments(spoken(text, each=0.3))
    assert [cue.lines for cue in cues] == [
        ("When the sun came up over", "the hills of the old town,"),
        ("nobody was awake to see it,", "and the birds had the market square"),
        ("to themselves.",),
    ] or all(cue.lines[-1][-1] in ",." for cue in cues)


def test_a_very_short_cue_is_merged_with_its_neighbour() -> None:
    cues = cues_from_segments(spoken("Yes. I know that already.", each=0.3))
    assert [cue.lines for cue in cues] == [("Yes. I know that already.",)]


def test_a_pause_ends_a_cue_and_a_short_cue_stays_a_second() -> None:
    words = (Word("one", 0.0, 0.2), Word("two", 10.0, 10.2))
    cues = cues_from_segments([Segment("one two", 0.0, 10.2, words)])
    assert [(cue.start_ms, cue.end_ms) for cue in cues] == [(0, 1000), (10_000, 11_000)]


def test_chinese_breaks_between_characters_and_shares_the_time() -> None:
    text = "今天我们来谈一谈语音识别的历史和现状，" * 4 + "好的。"
    cues = cues_from_segments([Segment(text, 0.0, 24.0, (Word(text, 0.0, 24.0),))])
    assert "".join("".join(cue.lines) for cue in cues) == text
    assert len(cues) >= 4
    assert all(columns(line) <= COLUMNS for cue in cues for line in cue.lines)
    assert not any(line[0] in "，。" for cue in cues for line in cue.lines)
    assert cues[-1].end_ms == pytest.approx(24_000, abs=1000)


def test_a_foreign_word_in_japanese_stays_whole() -> None:
    text = "これは" + "とても長い文章で" * 2 + "Wikipediaという百科事典について説明しています「そうです」。"
    cues = cues_from_segments([Segment(text, 0.0, 9.0, (Word(text, 0.0, 9.0),))])
    assert any("Wikipedia" in line for cue in cues for line in cue.lines)
    assert not any(line.endswith("「") for cue in cues for line in cue.lines)


def test_full_width_sentences_join_without_blanks() -> None:
    cues = cues_from_segments(spoken("好的。 走吧。", each=0.3))
    assert [cue.lines for cue in cues] == [("好的。走吧。",)]


def test_a_word_too_long_for_a_line_is_split() -> None:
    text = "x" * 100
    cues = cues_from_segments([Segment(text, 0.0, 3.0, (Word(text, 0.0, 3.0),))])
    assert "".join("".join(cue.lines) for cue in cues) == text
    assert all(columns(line) <= COLUMNS for cue in cues for line in cue.lines)


def test_words_at_the_same_instant_do_not_overlap() -> None:
    words = tuple(Word("incomprehensibilities" * 2, 1.0, 1.0) for _ in range(6))
    cues = cues_from_segments([Segment("", 1.0, 1.0, words)])
    assert all(cue.start_ms < cue.end_ms for cue in cues)
    assert all(one.end_ms <= two.start_ms for one, two in pairwise(cues))


TEXTS = st.sampled_from(["a", "longer", "Sentence.", "clause,", "incomprehensibilities", "今天很好。", "y" * 60, "<i>"])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.floats(0.0, 12.0), st.floats(0.0, 5.0)), max_size=60))
def test_cues_are_valid_and_complete_for_any_text(drawn: list[tuple[str, float, float]]) -> None:
    words, now = [], 0.0
    for text, length, pause in drawn:
        words.append(Word(text, now + pause, now + pause + length))
        now += pause + length
    cues = cues_from_segments(segments_from_words(words))
    text = "".join(word.text for word in words)
    assert re.sub(r"\s", "", "".join("".join(cue.lines) for cue in cues)) == text
    assert all(cue.start_ms < cue.end_ms <= cue.start_ms + 7000 for cue in cues)
    assert all(one.end_ms <= two.start_ms for one, two in pairwise(cues))
    assert all(1 <= len(cue.lines) <= 2 and columns(line) <= COLUMNS for cue in cues for line in cue.lines)
