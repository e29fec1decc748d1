"""Search and replacement of phrases in words, independent of case and punctuation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conure.text.overlap_merge import normalized_letters
from conure.types import Word

__all__ = ["find_phrase", "replace_phrase"]


def find_phrase(words: Sequence[Word], phrase: str) -> list[tuple[int, int]]:
    """Occurrences of a phrase, without overlaps: index of the first word and index after the last."""
    pattern = [normalized_letters(part) for part in phrase.split()]
    letters = [normalized_letters(word.text) for word in words]
    found, at = [], 0
    while pattern and at + len(pattern) <= len(letters):
        if letters[at : at + len(pattern)] == pattern:
            found.append((at, at + len(pattern)))
            at += len(pattern)
        else:
            at += 1
    return found


def replace_phrase(words: Sequence[Word], phrase: str, other: str) -> list[Word]:
    """Replaces a phrase by another one, which keeps the punctuation around it; an empty one removes the phrase.

    If both have the same number of words, times are kept; otherwise the new words become one with the times of all.
    """
    replaced, done = list[Word](), 0
    for begin, end in find_phrase(words, phrase):
        replaced += [*words[done:begin], *_replacement(words[begin:end], other.split())]
        done = end
    return [*replaced, *words[done:]]


def _replacement(replaced: Sequence[Word], new_texts: list[str]) -> list[Word]:
    if not new_texts:
        return []
    before, after = _marks(replaced[0].text)[0], _marks(replaced[-1].text)[1]
    new_texts[0] = before + new_texts[0]
    new_texts[-1] += after
    if len(new_texts) == len(replaced):
        return [replace(word, text=text) for word, text in zip(replaced, new_texts, strict=True)]
    confidences = [word.confidence for word in replaced if word.confidence is not None]
    combined = Word(
        text=" ".join(new_texts),
        start=replaced[0].start,
        end=replaced[-1].end,
        confidence=min(confidences) if len(confidences) == len(replaced) else None,
        tokens=tuple(token for word in replaced for token in word.tokens),
    )
    return [combined]


def _marks(text: str) -> tuple[str, str]:
    """The marks before the first letter or digit, and those after the last."""
    letters = [index for index, character in enumerate(text) if character.isalnum()]
    return (text[: letters[0]], text[letters[-1] + 1 :]) if letters else ("", "")
