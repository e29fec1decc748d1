import random

import pytest

from conure.text.overlap_merge import OverlapMerger, find_seam
from conure.types import Word


def said(text, start, seconds=0.4):
    """Words after one another."""
    return [Word(word, start + i * 0.5, start + i * 0.5 + seconds) for i, word in enumerate(text.split())]


def joined(left, right, begin=10.0, end=12.0):
    """Two pieces that both heard all from `begin` to `end`."""
    joiner = OverlapMerger()
    words = joiner.add_clip(left) + joiner.add_clip(right, begin, end - begin) + joiner.finish()
    return " ".join(word.text for word in words)


def test_at_a_clean_seam_all_words_stay():
    joiner = OverlapMerger()
    assert joiner.add_clip(said("one two", 9.0)) == []
    assert [word.text for word in joiner.add_clip(said("two three", 10.0), 10.0)] == ["one", "two"]
    assert [word.text for word in joiner.finish()] == ["two", "three"]
    assert joiner.finish() == []


def test_words_both_heard_are_there_once():
    assert joined(said("one two three four", 9.6), said("two three four five", 10.1)) == "one two three four five"


def test_words_cut_at_an_edge_are_those_of_the_other_side():
    left = [*said("one two three", 9.6), Word("fo", 11.1, 11.3)]
    right = [Word("oo", 10.0, 10.1), *said("three four five", 10.6)]
    assert joined(left, right, 10.0, 11.3) == "one two three four five"


def test_equal_words_in_a_row_are_counted_right():
    assert joined(said("two two two two two", 9.3), said("two two two two", 10.35)) == "two two two two two two"


def test_case_and_marks_do_not_keep_words_apart():
    assert joined(said("well, Yes.", 10.4), said("yes sir", 10.9)) == "well, Yes. sir"


def test_without_agreement_each_side_has_its_half():
    assert joined(said("a b c d", 10.1), said("e f g h", 10.1)) == "a b g h"


@pytest.mark.parametrize(
    ("left", "right"), [("one two three four", "one three four"), ("one three four", "one two three four")]
)
def test_a_word_that_one_side_missed_is_kept(left, right):
    at = {"one": 10.05, "two": 10.5, "three": 11.0, "four": 11.4}
    sides = [[Word(word, at[word], at[word] + 0.35) for word in side.split()] for side in (left, right)]
    assert joined(*sides) == "one two three four"


def test_a_word_in_the_middle_that_both_place_beyond_it_is_kept():
    left, right = [Word("no", 10.95, 11.15)], [Word("yes", 10.75, 10.95)]
    assert joined(left, right) in ("yes no", "yes", "no")
    assert joined([Word("no", 11.0, 11.2)], [Word("no", 10.8, 11.0)]) == "no"


def test_one_sound_heard_as_two_words_is_there_once():
    assert joined([Word("for", 10.7, 11.2)], [Word("four", 10.85, 11.3)]) == "for"


def test_silence_on_one_side_loses_nothing_but_rests_at_the_edge():
    assert joined(said("one two", 10.3), []) == "one two"
    assert joined([], said("one two", 10.3)) == "one two"
    assert joined([Word("o", 11.85, 12.0)], []) == ""
    assert joined([], [Word("o", 10.0, 10.1)]) == ""


def test_words_before_the_overlap_and_after_it_are_never_touched():
    before, after = said("a b c d", 7.0), said("a b c d", 12.1)
    assert joined(before, after) == "a b c d a b c d"


def test_without_times_the_same_text_is_there_once():
    left, right = ([Word(word) for word in text.split()] for text in ("one two three", "two three four"))
    assert joined(left, right) == "one two three four"
    assert joined([Word("one")], [Word("two")]) == "one two"


def test_words_of_no_length_join_too():
    left = [Word("a", 10.2, 10.2), Word("b", 10.8, 10.8), Word("c", 11.4, 11.4)]
    right = [Word("b", 10.88, 10.88), Word("c", 11.4, 11.4), Word("d", 12.5, 12.5)]
    assert joined(left, right) == "a b c d"


def test_two_forced_seams_in_a_row():
    joiner = OverlapMerger()
    pieces = [(said("a b c d e", 0.1), 0.0, 0.0), (said("d e f g h", 1.6), 1.5, 1.0), (said("g h i", 3.1), 3.0, 1.0)]
    words = [word for piece in pieces for word in joiner.add_clip(*piece)] + joiner.finish()
    assert "".join(word.text for word in words) == "abcdefghi"


def pieces_at_a_seam(words, last, lead, jitter, seed):
    """What the left piece heard until `last`, what the right one heard from some time before the seam on, and it."""
    chance = random.Random(seed)

    def heard(begin, end):
        shift = chance.uniform(-jitter, jitter)
        whole = [word for word in words if begin <= word.start and word.end <= end]
        return [Word(word.text, word.start + shift, word.end + shift) for word in whole]

    seam = find_seam(heard(0.0, last), 0.0, last)
    return seam, seam.merge(heard(seam.at - lead, 1e9))


@pytest.mark.parametrize("seed", range(60))
def test_a_piece_is_ended_before_the_next_is_heard_and_nothing_is_lost(seed):
    chance = random.Random(seed)
    words, at = [], 0.0
    while at < 12:
        length = chance.uniform(0.15, 0.6)
        words.append(Word(chance.choice(["two", "one", "six"]), at, at + length))
        at += length + chance.choice([0.0, 0.02, 0.2, 0.9])
    seam, right = pieces_at_a_seam(words, last=8.0, lead=1.0, jitter=0.06, seed=seed)
    assert 4.0 <= seam.at <= 7.0
    assert [word.text for word in (*seam.before, *right)] == [word.text for word in words]


def test_a_seam_where_nothing_was_heard_is_late():
    seam = find_seam([], 0.0, 8.0)
    assert seam.at == 6.75
    assert seam.merge([Word("one", 6.0, 6.5), Word("two", 7.0, 7.4)]) == [Word("two", 7.0, 7.4)]
