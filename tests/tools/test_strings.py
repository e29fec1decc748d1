"""Strings of clips: texts, places of words, batches."""

import numpy as np
import pytest

from tools.train.corpus import Clip, normalise_text, trim
from tools.train.evaluate import error_rate, real_strings
from tools.train.strings import Example, Span, collate, concatenate
from tools.train.synthesis import phrase_jobs
from tools.train.tokenizer import END


class Words:
    """A tokenizer with a word."""

    size = 2

    def word(self, word: str) -> tuple[int, ...]:
        return (1,) if word == END else (0,)


def tone(text: str, seconds: float, speaker: str = "a", split: str = "dev") -> Clip:
    samples = (8_000 * np.sin(np.arange(int(seconds * 16_000)) * 0.2)).astype(np.int16)
    return Clip(text, samples, speaker, "fsdd", split)


def test_words_lie_where_their_clips_are() -> None:
    example = concatenate([tone("one", 0.5), tone("two three", 0.8)], np.random.default_rng(0))
    assert [span.word for span in example.spans] == ["one", "two", "three"]
    for span in example.spans:
        inside = example.samples[span.start : span.end]
        assert np.sqrt((inside**2).mean()) > 0.1
    between = example.samples[example.spans[0].end : example.spans[1].start]
    assert len(between) == 0 or np.abs(between).max() < 0.01


def test_speed_shortens_clips_and_moves_spans() -> None:
    slow = concatenate([tone("one", 1.0)], np.random.default_rng(0))
    fast = concatenate([tone("one", 1.0)], np.random.default_rng(0), speed=1.25)
    assert fast.spans[0].end - fast.spans[0].start == pytest.approx(0.8 * 16_000, abs=2)
    assert slow.spans[0].end - slow.spans[0].start == 16_000


def test_utterances_end_in_long_pauses_alone() -> None:
    rng = np.random.default_rng(0)
    clips = [tone("one", 0.3), tone("two", 0.3)] * 3
    examples = [concatenate(clips, rng, marks_ends=True) for _ in range(40)]
    assert not any(END in [span.word for span in concatenate(clips, rng).spans] for _ in range(40))
    ends = [(example, span) for example in examples for span in example.spans if span.word == END]
    assert 20 < len(ends) < 80
    for example, end in ends:
        quiet = example.samples[end.start - 7_000 : end.start + 4_000]
        assert np.abs(quiet).max() < 0.01
        after = [span.start for span in example.spans if span.start > end.start]
        assert all(start - end.start > 4_000 for start in after)


def test_words_of_the_frame_targets_may_be_late_but_ends_are_not() -> None:
    spans = [Span(2 * 1280, 4 * 1280, "one"), Span(9 * 1280, 10 * 1280, END)]
    example = Example(np.zeros(12 * 1280, np.float32), spans)
    on_time, late = (collate([example], Words(), delay).frames[0].tolist() for delay in (0, 3))
    assert on_time[:12] == [2, 2, 0, 0, 2, 2, 2, 2, 2, 1, 2, 2]
    assert late[:12] == [2, 2, 2, 2, 2, 0, 0, 2, 2, 1, 2, 2]


def test_evaluation_strings_are_fixed_and_by_held_out_speakers() -> None:
    clips = [tone("one", 0.3), tone("two", 0.3), tone("never", 0.3, split="train")]
    first, second = real_strings(clips, 10), real_strings(clips, 10)
    assert [u.text for u in first] == [u.text for u in second]
    assert all(2 <= len(u.text.split()) <= 10 and "never" not in u.text for u in first)


def test_held_out_phrases_are_not_among_the_training_phrases() -> None:
    sentences = [f"this is {name} speaking, and so it goes." for name in ("ann", "bob", "cy")] * 40
    jobs = phrase_jobs([f"{s} {'x' * (i % 7 + 2)}" for i, s in enumerate(sentences)], 10_000, seed=1)
    train = {job.text for job in jobs if job.split == "train"}
    assert train
    assert not train & {job.text for job in jobs if job.split == "dev"}


def test_text_is_lower_case_words_or_nothing() -> None:
    assert normalise_text("Don't stop -- now!") == "don't stop now"
    assert normalise_text("route 66") is None
    assert normalise_text("") is None


def test_trim_cuts_silence_but_leaves_a_margin() -> None:
    silence = np.zeros(8_000, np.int16)
    trimmed = trim(np.concatenate([silence, tone("one", 0.5).samples, silence]))
    assert 8_000 <= len(trimmed) <= 8_000 + 2 * 640 + 320


def test_words_heard_in_silence_count_per_utterance() -> None:
    assert error_rate(["", ""], ["", "two words"]) == 1.0
    assert error_rate(["one two"], ["one too"]) == 0.5
