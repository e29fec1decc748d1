import random

import pytest

from conure.text.overlap_merge import OverlapMerger, find_seam
from conure.types import Word


def words_in_order(text, start, seconds=0.4):
    """Consecutive words."""
    return [Word(word, start + i * 0.5, start + i * 0.5 + seconds) for i, word in enumerate(text.split())]


def merged(left, right, begin=10.0, end=12.0):
    """Merges two clips that both contain the audio from `begin` to `end`."""
    joiner = OverlapMerger()
    words = joiner.add_clip(left) + joiner.add_clip(right, begin, end - begin) + joiner.finish()
    return " ".join(word.text for word in words)


def test_at_a_clean_seam_all_words_are_kept():
    joiner = OverlapMerger()
    assert joiner.add_clip(words_in_order("one two", 9.0)) == []
    assert [word.text for word in joiner.add_clip(words_in_order("two three", 10.0), 10.0)] == ["one", "two"]
    assert [word.text for word in joiner.finish()] == ["two", "three"]
    assert joiner.finish() == []


def test_words_of_both_clips_occur_once():
    assert (
        merged(words_in_order("one two three four", 9.6), words_in_order("two three four five", 10.1))
        == "one two three four five"
    )


def test_words_split_at_an_edge_come_from_the_other_clip():
    left = [*words_in_order("one two three", 9.6), Word("fo", 11.1, 11.3)]
    right = [Word("oo", 10.0, 10.1), *words_in_order("three four five", 10.6)]
    assert merged(left, right, 10.0, 11.3) == "one two three four five"


def test_repeated_words_are_counted_correctly():
    assert (
        merged(words_in_order("two two two two two", 9.3), words_in_order("two two two two", 10.35))
        == "two two two two two two"
    )


def test_case_and_marks_are_ignored():
    assert merged(words_in_order("well, Yes.", 10.4), words_in_order("yes sir", 10.9)) == "well, Yes. sir"


def test_without_agreement_each_clip_has_its_half():
    assert merged(words_in_order("a b c d", 10.1), words_in_order("e f g h", 10.1)) == "a b g h"


@pytest.mark.parametrize(
    ("left", "right"), [("one two three four", "one three four"), ("one three four", "one two three four")]
)
def test_a_word_that_one_clip_lacks_is_kept(left, right):
    at = {"one": 10.05, "two": 10.5, "three": 11.0, "four": 11.4}
    sides = [[Word(word, at[word], at[word] + 0.35) for word in side.split()] for side in (left, right)]
    assert merged(*sides) == "one two three four"


def test_a_word_in_the_middle_that_both_place_beyond_it_is_kept():
    left, right = [Word("no", 10.95, 11.15)], [Word("yes", 10.75, 10.95)]
    assert merged(left, right) in ("yes no", "yes", "no")
    assert merged([Word("no", 11.0, 11.2)], [Word("no", 10.8, 11.0)]) == "no"


def test_one_sound_recognised_as_two_words_occurs_once():
    assert merged([Word("for", 10.7, 11.2)], [Word("four", 10.85, 11.3)]) == "for"


def test_silence_in_one_clip_loses_only_words_at_the_edge():
    assert merged(words_in_order("one two", 10.3), []) == "one two"
    assert merged([], words_in_order("one two", 10.3)) == "one two"
    assert merged([Word("o", 11.85, 12.0)], []) == ""
    assert merged([], [Word("o", 10.0, 10.1)]) == ""


def test_words_before_and_after_the_overlap_are_unchanged():
    before, after = words_in_order("a b c d", 7.0), words_in_order("a b c d", 12.1)
    assert merged(before, after) == "a b c d a b c d"


def test_without_times_equal_text_occurs_once():
    left, right = ([Word(word) for word in text.split()] for text in ("one two three", "two three four"))
    assert merged(left, right) == "one two three four"
    assert merged([Word("one")], [Word("two")]) == "one two"


def test_words_without_length_are_merged():
    left = [Word("a", 10.2, 10.2), Word("b", 10.8, 10.8), Word("c", 11.4, 11.4)]
    right = [Word("b", 10.88, 10.88), Word("c", 11.4, 11.4), Word("d", 12.5, 12.5)]
    assert merged(left, right) == "a b c d"


def test_two_forced_seams_in_a_row():
    joiner = OverlapMerger()
    pieces = [
        (words_in_order("a b c d e", 0.1), 0.0, 0.0),
        (words_in_order("d e f g h", 1.6), 1.5, 1.0),
        (words_in_order("g h i", 3.1), 3.0, 1.0),
    ]
    words = [word for piece in pieces for word in joiner.add_clip(*piece)] + joiner.finish()
    assert "".join(word.text for word in words) == "abcdefghi"


def clips_at_a_seam(words, last, lead, jitter, seed):
    """Words of the left clip until `last`, words of the right clip from some time before the seam on, and the seam."""
    chance = random.Random(seed)

    def words_between(begin, end):
        shift = chance.uniform(-jitter, jitter)
        whole = [word for word in words if begin <= word.start and word.end <= end]
        return [Word(word.text, word.start + shift, word.end + shift) for word in whole]

    seam = find_seam(words_between(0.0, last), 0.0, last)
    return seam, seam.merge(words_between(seam.at - lead, 1e9))


@pytest.mark.parametrize("seed", range(60))
def test_a_seam_chosen_by_the_left_clip_loses_no_word(seed):
    chance = random.Random(seed)
    words, at = [], 0.0
    while at < 12:
        length = chance.uniform(0.15, 0.6)
        words.append(Word(chance.choice(["two", "one", "six"]), at, at + length))
        at += length + chance.choice([0.0, 0.02, 0.2, 0.9])
    seam, right = clips_at_a_seam(words, last=8.0, lead=1.0, jitter=0.06, seed=seed)
    assert 4.0 <= seam.at <= 7.0
    assert [word.text for word in (*seam.before, *right)] == [word.text for word in words]


def test_a_seam_without_words_is_late():
    seam = find_seam([], 0.0, 8.0)
    assert seam.at == 6.75
    assert seam.merge([Word("one", 6.0, 6.5), Word("two", 7.0, 7.4)]) == [Word("two", 7.0, 7.4)]
